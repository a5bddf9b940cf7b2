"""What runs on a cluster's nodes themselves, copied there when they are set up."""
