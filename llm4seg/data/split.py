"""Train, validation and test parts, and k folds: seeded, stratified, without a shared patient or image."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from llm4seg.config import schema
from llm4seg.data.prepared import Case
from llm4seg.data.units import Ids, Units, assign, ids_of, units_by
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json


@dataclass(frozen=True)
class Split:
    """Case ids of each part. `rule` describes the split in a sentence; `left_out` are gaps between blocks of slices, or
    cases in none of somebody's lists. `warnings`: what makes its scores doubtful, a line each.

    `folds`: the test part of each fold. Those made here partition all cases; where the rule is blocks, the gaps are cut
    when a fold is used.
    """

    rule: str
    seed: int
    train: Ids
    val: Ids
    test: Ids
    left_out: Ids
    folds: tuple[Ids, ...]
    warnings: tuple[str, ...] = ()


def make_split(cases: Sequence[Case], classes: Sequence[str], section: schema.Split) -> Split:
    """Split the cases, unit by unit: a unit is a group, or a block of neighboring slices of a volume, joined with all
    others that have an equal image.

    Raises InputError when there are too few units for the parts or folds, or the gaps leave a part empty.
    """
    by_block = section.rule == "block" or (section.rule == "auto" and _is_one_volume(cases))
    if by_block:
        units = units_by(cases, _block_keys(cases, section.block))
        what = f"blocks of {section.block} slices"
    else:
        units = units_by(cases, [case.group for case in cases])
        what = "groups"
    _check_enough(len(units), what, len(cases), section)
    folds = _folds(cases, classes, units, section)
    parts = _parts_of_fold(folds, section.fold) if section.fold is not None else _parts(cases, classes, units, section)
    train, val, test, left_out = _cut_gaps(parts, section.gap) if by_block else (*parts, [])
    for name, part in (("train", train), ("val", val), ("test", test)):
        if not part:
            raise InputError(f"split.gap: found {section.gap}, which leaves no case in {name}; lower it or split.block")
    return Split(
        rule=_sentence(what, len(units), len(folds), by_block, section),
        seed=section.seed,
        train=ids_of(train),
        val=ids_of(val),
        test=ids_of(test),
        left_out=ids_of(left_out),
        folds=tuple(map(ids_of, folds)),
    )


def _is_one_volume(cases: Sequence[Case]) -> bool:
    return len({case.volume for case in cases}) == 1 and cases[0].volume is not None


def _block_keys(cases: Sequence[Case], block: int) -> list[str]:
    """The block of each slice: its volume, and its position divided by the block's size."""
    for case in cases:
        if case.volume is None or case.position is None:
            raise InputError(f"split.rule: found 'block', but case {case.id!r} is no slice of a volume; allowed: group")
    return [f"{case.volume} {int(case.position or 0) // block}" for case in cases]


def _check_enough(units: int, what: str, cases: int, section: schema.Split) -> None:
    if section.fold is None:
        if not (section.val and section.test):
            raise InputError(f"split.val, split.test: found {section.val:g} and {section.test:g}; both must exceed 0")
        if units < 3:
            raise InputError(
                f"split.rule: found {section.rule!r}, by which {cases} cases make {units} {what} to keep together; "
                "train, val and test need 3 or more (slices of one volume: rule block and a small enough split.block)"
            )
    elif section.folds < 3 or units < section.folds:
        raise InputError(
            f"split.folds: found {section.folds}, allowed with split.fold set: 3 (train, val, test) to {units} ({what})"
        )


def _parts(cases: Sequence[Case], classes: Sequence[str], units: Units, section: schema.Split) -> list[list[Case]]:
    shares = [1 - section.val - section.test, section.val, section.test]
    random = np.random.default_rng([section.seed, 0])
    return assign(cases, classes, units, shares, random)


def _folds(cases: Sequence[Case], classes: Sequence[str], units: Units, section: schema.Split) -> list[list[Case]]:
    """The `split.folds` folds, or one per unit where there are fewer units."""
    count = min(section.folds, len(units))
    random = np.random.default_rng([section.seed, 1])
    return assign(cases, classes, units, [1 / count] * count, random)


def _parts_of_fold(folds: Sequence[Sequence[Case]], fold: int) -> list[list[Case]]:
    """Train, val and test: fold `fold` is test, the next fold val, all others train."""
    after = (fold + 1) % len(folds)
    train = [case for number, cases in enumerate(folds) if number not in (fold, after) for case in cases]
    return [train, list(folds[after]), list(folds[fold])]


def _cut_gaps(parts: Sequence[Sequence[Case]], gap: int) -> tuple[list[Case], list[Case], list[Case], list[Case]]:
    """Train, val, test, and the cases cut to keep parts more than `gap` slices apart: of train first, of test never."""
    train, val, test = parts
    kept_val = _apart(val, test, gap)
    kept_train = _apart(train, [*test, *kept_val], gap)
    kept = {*ids_of(kept_val), *ids_of(kept_train)}
    return kept_train, kept_val, list(test), [case for case in [*train, *val] if case.id not in kept]


def _apart(cases: Iterable[Case], others: Iterable[Case], gap: int) -> list[Case]:
    """The cases that are more than `gap` slices from each of `others` in their volume."""
    near = {(other.volume, int(other.position or 0) + off) for other in others for off in range(-gap, gap + 1)}
    return [case for case in cases if (case.volume, case.position) not in near]


def _sentence(what: str, units: int, folds: int, by_block: bool, section: schema.Split) -> str:
    shares = f"val {section.val:g}, test {section.test:g} of the cases and of each class's pixels"
    use = shares if section.fold is None else f"test fold {section.fold} of {folds}, val the next one"
    gap = f"; slices within {section.gap} of another part are left out" if by_block else ""
    return f"{units} {what}, those with an equal image kept together; seed {section.seed}; {use}; the rest train{gap}"


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON, atomically."""
    values = asdict(split)
    if not split.warnings:  # as before there were any: a split that is the same has the same bytes
        del values["warnings"]
    write_json(path, values)


def read_split(path: Path) -> Split:
    """Read a split. Raises InputError naming the file when `write_split` did not write it."""
    values = read_json(path)
    try:
        parts = {name: tuple(values[name]) for name in ("train", "val", "test", "left_out")}
        folds = tuple(map(tuple, values["folds"]))
        warnings = tuple(values.get("warnings", ()))
        return Split(rule=values["rule"], seed=values["seed"], folds=folds, warnings=warnings, **parts)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a split that `split` wrote ({error!r})") from None
