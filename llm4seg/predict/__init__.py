"""From an image file to a mask: trained models in use."""
