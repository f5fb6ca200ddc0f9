"""Recommenders that read titles and are pre-trained on other domains."""
