"""DVC stages, one file each, and the commands beside them."""
