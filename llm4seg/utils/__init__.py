"""What every room may use: errors, files that appear whole or not at all, PyPI packages as data, provenance."""
