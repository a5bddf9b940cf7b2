"""Execution of runs: Ray sessions, launching, workers, checkpoint storage and failures."""
