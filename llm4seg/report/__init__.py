"""Every picture and the HTML page."""
