"""Losses and metrics on tensors."""
