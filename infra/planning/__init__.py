"""What a cluster's runs take and cost, before it is started: `python -m infra plan`."""
