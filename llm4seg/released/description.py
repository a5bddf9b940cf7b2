"""model.json of a converted checkpoint: what the weights tell, and what its user knows of the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from llm4seg.config import Config
from llm4seg.models.saved import describe
from llm4seg.released.architecture import STAGES, Shape
from llm4seg.utils.errors import InputError

STRIDE = 2 ** (STAGES - 1)  # of the coarsest feature map, whose pixels are the LLM's tokens
COLORS = 3  # channels, for which alone the released code's normalization is
NORMALIZED = ("released", "unit", "zscore")


@dataclass(frozen=True)
class Images:
    """What no checkpoint records of its images: `size` (rows, columns) of all, and `intensity`, as data.intensity.

    None: unknown. Without a size, the network can be evaluated on prepared data, and `predict` refuses it.
    """

    size: tuple[int, int] | None = None
    intensity: str | None = None


def parse_size(text: str) -> tuple[int, int]:
    """Rows and columns of "256" or "256,192". Raises InputError for other words, and sides that do not fit."""
    words = text.split(",")
    if not all(word.isdecimal() and word.isascii() for word in words) or len(words) > 2:
        raise InputError(f"--size: found {text}, allowed: rows and columns, as in 256 or 256,192")
    rows, columns = int(words[0]), int(words[-1])
    if any(side == 0 or side % STRIDE for side in (rows, columns)):
        raise InputError(f"--size: found {text}, allowed: multiples of {STRIDE}")
    return rows, columns


def description(config: Config, shape: Shape, images: Images) -> dict[str, Any]:
    """The content of model.json, with null for what is not known. Raises InputError naming an option that cannot be."""
    if images.size is not None and config.model.bottleneck == "llm":
        _check_tokens(images.size, config.model.llm.max_tokens)
    classes = [None] * max(1, shape.out_channels - 1)
    data = {"spatial_dims": 2, "channels": shape.in_channels, "classes": classes}
    data |= {"size": images.size and list(images.size), "name": None, "sha256": None}
    data |= {"intensity": _intensity(images.intensity, shape.in_channels), "window": None}
    data |= {"view": None}  # the released code reads pictures, rows and columns as they are
    described = describe(config, data, engine=None)
    for name in ("optimizer", "training", "engine"):
        described["config"][name] = dict.fromkeys(described["config"][name])
    # by the number of logits: one is a sigmoid's, more are classes with the background first
    described["config"]["training"]["loss"] = "bce_dice" if shape.out_channels == 1 else "dice_ce"
    return described


def _intensity(given: str | None, channels: int) -> str | None:
    """How images are normalized: by default as the released code does, of color images."""
    if given == "released" and channels != COLORS:
        others = " or ".join(name for name in NORMALIZED if name != "released")
        raise InputError(f"--intensity: found released for {channels} channels, allowed: {others}")
    return given or ("released" if channels == COLORS else None)


def _check_tokens(size: Sequence[int], most: int) -> None:
    tokens = prod(side // STRIDE for side in size)
    if tokens > most:
        raise InputError(f"--size: found {' x '.join(map(str, size))}, {tokens} tokens, allowed: {most} (max_tokens)")
