"""From published or own images to what `prepare` writes: readers, resampling, checks, the writer."""
