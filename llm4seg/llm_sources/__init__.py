"""Sources of LLMs (GGUF, safetensors; local, hub, S3, HTTP), and the filling of the layer store from them."""
