"""Images a second in training, of this project's `fit` and of plain loops: `python -m tests.benchmarks.speed`."""
