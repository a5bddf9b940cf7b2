"""Paired comparisons of arms under several seeds and folds: runs, statistics, verdicts."""
