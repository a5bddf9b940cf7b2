"""Prediction: from an image array to a mask array."""
