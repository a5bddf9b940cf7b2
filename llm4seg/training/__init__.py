"""The training loop: trainer, checkpoints, optimizer, the run it happens in, and engines."""
