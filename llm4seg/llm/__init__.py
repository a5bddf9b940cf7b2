"""Decoder layers of an LLM as modules: the layer store, the architecture, and a layer's inputs."""
