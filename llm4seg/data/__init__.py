"""The input of a training: prepared arrays, their split, batches, augmentation and label noise."""
