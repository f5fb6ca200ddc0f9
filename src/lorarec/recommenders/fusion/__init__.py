"""The learned last stage: what a fusion computes of the scores of several recommenders."""
