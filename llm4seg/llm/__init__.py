"""Layers of an LLM or a vision transformer as modules: the layer store, the architecture, and a layer's inputs."""
