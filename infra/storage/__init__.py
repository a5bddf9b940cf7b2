"""The bucket that holds a project's data and runs: created or checked, kept private, made the DVC remote."""
