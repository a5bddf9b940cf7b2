"""Predefined splits: somebody's lists of ids, the owner's of the data or a user's, made into parts and folds."""

from collections.abc import Mapping, Sequence

import numpy as np

from llm4seg.config import schema
from llm4seg.data.prepared import Case, SplitLists
from llm4seg.data.split import Split
from llm4seg.data.units import Ids, assign, ids_of, units_by
from llm4seg.utils.errors import InputError

Lists = Mapping[str, Ids]  # ids by part


def predefined_split(
    cases: Sequence[Case], classes: Sequence[str], lists: SplitLists, section: schema.Split, name: str
) -> Split:
    """The split that lists of ids make. `name`: what they are, for the rule's sentence and for errors.

    Without a list of test, that of val is the test part. Without a list of val, then, it is taken from train: a share
    `split.val` of its cases, groups and equal images kept together. A missing train or test is what no list names.

    Raises InputError for ids that are unknown or in two parts, for an empty part, and for a fold that there is not.
    """
    chosen = _chosen(lists, section.fold, name)
    said = [name if section.fold is None else f"{name}, fold {section.fold} of {len(lists.folds)}"]
    said += ["its list of val is the test part"] if "test" not in chosen and "val" in chosen else []
    parts = _parts(chosen, cases, name)
    if "val" not in parts:
        parts["train"], parts["val"] = _held_out(parts["train"], classes, section, name)
        said.append(f"val {section.val:g} of its train, groups kept together; seed {section.seed}")
    used = {case.id for part in parts.values() for case in part}
    left_out = [case for case in cases if case.id not in used]
    said += [f"left out, as in no list: {len(left_out)}"] if left_out else []
    return Split(
        rule="; ".join(said),
        seed=section.seed,
        train=ids_of(parts["train"]),
        val=ids_of(parts["val"]),
        test=ids_of(parts["test"]),
        left_out=ids_of(left_out),
        folds=tuple(ids_of(_parts(_of_fold(lists, fold), cases, name)["test"]) for fold in range(len(lists.folds))),
    )


def _chosen(lists: SplitLists, fold: int | None, name: str) -> Lists:
    """The lists of a fold, or those that belong to none."""
    count = len(lists.folds)
    if fold is None and not lists.parts:
        raise InputError(f"split.fold: found null, allowed: 0 to {count - 1}, the folds of {name}")
    if fold is not None and fold >= count:
        allowed = f"0 to {count - 1}, the folds of {name}" if count else f"null: {name} has no folds"
        raise InputError(f"split.fold, study.folds: found {fold}, allowed: {allowed}")
    return lists.parts if fold is None else _of_fold(lists, fold)


def _of_fold(lists: SplitLists, fold: int) -> Lists:
    """The lists of a fold, with the test part of all folds where it has none of its own."""
    return {part: ids for part, ids in lists.parts.items() if part == "test"} | lists.folds[fold]


def _parts(lists: Lists, cases: Sequence[Case], name: str) -> dict[str, list[Case]]:
    """The cases of each part, in the dataset's order: train, test, and val where it is listed beside test."""
    part_of = _part_of(lists, cases, name)
    missing = "train" if "train" not in lists else None if {"val", "test"} & set(lists) else "test"
    parts = [*lists, *([missing] if missing else [])]
    found = {part: [case for case in cases if part_of.get(case.id, missing) == part] for part in parts}
    for part, own in found.items():
        if not own:
            why = "the others list every case" if part == missing else "its list is empty"
            raise InputError(f"{name}: found no case in {part}, as {why}; allowed: one or more")
    if "test" not in found:
        found["test"] = found.pop("val")
    return found


def _part_of(lists: Lists, cases: Sequence[Case], name: str) -> dict[str, str]:
    """The part of each listed case by its id."""
    named: dict[str, list[str]] = {}  # an id of a list: the ids of its cases
    for case in cases:
        named.setdefault(case.volume or case.id, []).append(case.id)
    named |= {case.id: [case.id] for case in cases}
    _check_known(lists, cases, named, name)
    part_of: dict[str, str] = {}
    for part, ids in lists.items():
        for case_id in (one for listed in ids for one in named[listed]):
            if part_of.setdefault(case_id, part) != part:
                raise InputError(f"{name}: found {case_id!r} in {part_of[case_id]} and in {part}, allowed: one of them")
    return part_of


def _check_known(lists: Lists, cases: Sequence[Case], known: Mapping[str, object], name: str) -> None:
    listed = [(one, part) for part, ids in lists.items() for one in ids]
    if unknown := [(one, part) for one, part in listed if one not in known]:
        first, part = unknown[0]
        of_volumes = f", or of volumes such as {cases[0].volume!r}" if cases[0].volume else ""
        raise InputError(
            f"{name}: found {len(unknown)} of {len(listed)} ids that no case has, the first {first!r} in {part}; "
            f"allowed: ids such as {cases[0].id!r}{of_volumes}"
        )


def _held_out(
    train: Sequence[Case], classes: Sequence[str], section: schema.Split, name: str
) -> tuple[list[Case], list[Case]]:
    """Train and val, of a train without a list of val."""
    units = units_by(train, [case.group for case in train])
    if not section.val or len(units) < 2:
        raise InputError(
            f"split.val: found {section.val:g}, to be taken from the {len(units)} groups in train, as {name} lists no "
            "val; allowed: above 0, from 2 groups or more"
        )
    random = np.random.default_rng([section.seed, 2])
    kept, val = assign(train, classes, units, [1 - section.val, section.val], random)
    return kept, val
