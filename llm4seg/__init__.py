"""A frozen, pre-trained LLM layer inside a CNN for medical image segmentation.

What is public: `load(folder)`, which gives a `SegmentationModel`, with `predict(image)`; `Segmentation`, its result
with a geometry; `InputError`, which all that users can mend raises.

A suffix of a name gives a tensor's shape, as in `images_NCHW` and `tokens_NTE`: N batch, C channels, K classes, S all
spatial axes (D slices, H rows, W columns), T tokens, E the LLM's width, L layers, P patches, O and I outputs and inputs
of a matrix (G groups of M entries where it is quantized); W workers in what they exchange; 1 an axis of that length.
"""

import logging
from importlib import import_module
from typing import Any

# Public names and their modules, imported when they are used first: the import of this package, which every other one
# of the project makes, is quick, and depends on no room. Type checkers read __init__.pyi.
_PUBLIC = {
    "load": "llm4seg.predict.model",
    "Segmentation": "llm4seg.predict.model",
    "SegmentationModel": "llm4seg.predict.model",
    "InputError": "llm4seg.utils.errors",
}
__all__ = [*_PUBLIC]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what is shown is up to the program


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
