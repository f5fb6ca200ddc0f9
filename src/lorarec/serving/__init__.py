"""An HTTP service that ranks and recommends for many adapters, mixtures and users at once."""
