"""params.yaml: `Config`, its checked copy, and the schema of every section."""

from llm4seg.config.config import Config

__all__ = ["Config"]
