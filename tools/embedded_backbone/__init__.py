"""Training of the small backbone that lorarec bundles; see README.md here."""
