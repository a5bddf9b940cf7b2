"""Commands that only print: memory estimates and model summaries."""
