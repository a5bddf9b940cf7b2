"""Tests of llm4seg/tracking."""
