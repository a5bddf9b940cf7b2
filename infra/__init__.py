"""From the laptop to cloud GPUs and back: clusters, storage, jobs. `python -m infra --help`."""
