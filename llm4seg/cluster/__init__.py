"""Where a run happens: Ray sessions, launching, workers, storage, and what can fail there."""
