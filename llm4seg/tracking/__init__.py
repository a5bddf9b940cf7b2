"""What is seen of a training while it runs: a live history, and trackers. It computes nothing, so no stage lists it."""
