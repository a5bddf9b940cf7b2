"""Metrics of a trained model on the test part, with intervals, a threshold baseline and overlays."""
