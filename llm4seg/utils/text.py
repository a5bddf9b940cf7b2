"""Texts and lists of lines, shortened for people to read."""

from collections.abc import Sequence


def elided(text: str, most: int) -> str:
    """A text of at most `most` characters, with its middle left out where it is longer."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}\u2026{text[-(most // 2) :]}"


def in_short(lines: Sequence[str], most: int = 5) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"and {more} more"] if more > 0 else [])]
