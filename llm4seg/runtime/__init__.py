"""One process among workers: its device, its seeds, collectives, and BatchNorm over the global batch."""
