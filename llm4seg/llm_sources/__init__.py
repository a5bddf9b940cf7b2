"""From an LLM at its source (GGUF, safetensors; here, hub, S3, HTTP) to the layer store."""
