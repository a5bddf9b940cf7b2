"""A layer of an LLM as a module: out of the layer store, with the inputs that its whole model gives it."""
