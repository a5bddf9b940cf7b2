"""Datasets, published or a user's own: readers, resampling, checks, and the writer of the prepared dataset."""
