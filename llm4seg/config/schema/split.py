"""Section `split`: which cases train, choose and test."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, NonNegativeInt, PositiveInt, model_validator

from llm4seg.config.schema.base import AtLeastTwo, Fraction, Section, is_inside

LISTED = ("official", "file")  # rules by which somebody else's lists decide, the number of folds, too


def _list_files(value: object) -> object:
    """A validator of `split.file`; raises ValueError unless its files are below the folder of the data."""
    files = value if isinstance(value, dict) else {} if value is None else {"test": value}
    inside = [isinstance(file, str) and is_inside(file) for file in files.values()]
    if value == {} or not all(inside) or not set(files) <= {"train", "val", "test"}:
        found = f", found {value}" if isinstance(value, dict) else ""
        raise ValueError(f"must be a file inside data.root, relative to it, or such by train, val, test{found}")
    return value


class Split(Section):
    """The split of the cases into train, val and test, or into k folds."""

    seed: NonNegativeInt
    rule: Literal["auto", "group", "block", "official", "file", "random"]
    file: Annotated[str | dict[str, str] | None, BeforeValidator(_list_files)]
    val: Fraction
    test: Fraction
    block: PositiveInt
    gap: NonNegativeInt
    folds: AtLeastTwo
    fold: NonNegativeInt | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; some must be left to train on")
        if self.rule == "file" and self.file is None:
            raise ValueError("file: found null, allowed with rule: file: a list inside data.root")
        if self.rule == "random":
            if self.fold is not None:
                raise ValueError(f"fold: found {self.fold}, allowed with rule: random: null (vary seed)")
            if self.seed >= 2**32:
                raise ValueError(f"seed: found {self.seed}, allowed with rule: random: below 2**32")
        if self.fold is not None and self.fold >= self.folds and self.rule not in LISTED:
            raise ValueError(f"fold is {self.fold}, allowed: 0 to {self.folds - 1}")
        return self
