"""The HTML page and every chart."""
