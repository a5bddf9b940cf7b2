"""Checkpoints of LLM4Seg's released code, converted in and out."""
