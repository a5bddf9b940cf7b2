"""Section `data.folder`: where a user's own images, masks, patients and test images are."""

import re
import unicodedata
from pathlib import PurePath
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from llm4seg.config.schema.base import Section, is_inside


def _regular_expression(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    if groups != 1:
        raise ValueError("must be a regular expression with exactly one group")
    return pattern


def _name_pattern(pattern: str) -> str:
    literal = re.sub(r"\{(id|channel)\}", "", pattern)
    if not is_inside(pattern) or "{id}" not in pattern or re.search(r"[{}]|\*\*", literal):
        raise ValueError("must be a path inside data.root, with {id} for the case's name, as in images/img{id}.nii.gz")
    if "}{" in pattern:
        raise ValueError("must have a text between {id} and {channel}, which tells where one ends")
    return unicodedata.normalize("NFC", PurePath(pattern).as_posix())  # as names of files are compared


def _inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError("must be a path inside data.root, relative to it")
    return PurePath(path).as_posix()


Pattern = Annotated[str, AfterValidator(_regular_expression)]
NamePattern = Annotated[str, AfterValidator(_name_pattern)]
Inside = Annotated[str, AfterValidator(_inside)]


class FolderData(Section):
    """A user's own images and masks: in images/ and masks/ by equal names, or by the patterns `image` and `mask`.

    The patient is in the name (`group`) or in a table (`groups`); `test` is a folder with test images of its own.
    """

    image: NamePattern | None
    mask: NamePattern | None
    group: Pattern | None
    groups: Inside | None
    test: Inside | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, other in (("image", "mask"), ("mask", "image")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise ValueError(
                    f"{name}: found null beside {other}: {getattr(self, other)}; allowed: a pattern with {{id}} too, "
                    f"or null for both, which means equal names in images/ and masks/"
                )
        if self.mask is not None and "{channel}" in self.mask:
            raise ValueError(f"mask: found {self.mask}, allowed: {{id}} alone; {{channel}} is of image")
        if self.group is not None and self.groups is not None:
            raise ValueError(f"groups: found {self.groups} beside group: {self.group}; allowed: one of them")
        return self
