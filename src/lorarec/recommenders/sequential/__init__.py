"""Next-item models on item ids, and the recommenders that use them."""
