"""What a training reads: prepared arrays, their split, batches, augmentation and label noise."""
