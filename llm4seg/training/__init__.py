"""Training: the trainer, checkpoints, the optimizer, the interface to launchers, and engines."""
