"""From an image as an array to a mask as an array."""
