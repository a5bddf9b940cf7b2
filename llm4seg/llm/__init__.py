"""Where an LLM's decoder layers come from: sources, readers, and the layer store that the pipeline keeps them in."""
