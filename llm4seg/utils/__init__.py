"""Errors, atomic files, downloads from PyPI and provenance, for every room."""
