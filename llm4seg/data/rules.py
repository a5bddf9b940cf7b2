"""`split_by_rule`: the split of prepared data by `split.rule`, with warnings of what makes its scores doubtful."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from llm4seg.config import schema
from llm4seg.data.leaks import doubts
from llm4seg.data.predefined import predefined_split
from llm4seg.data.prepared import FOLDER_TEST, Case, Prepared
from llm4seg.data.split import Split, make_split
from llm4seg.data.units import ids_of
from llm4seg.utils.errors import InputError

RELEASED_TEST = 0.3


def split_by_rule(data: Prepared, section: schema.Split) -> Split:
    """Split prepared data by `split.rule`.

    Raises InputError where the rule needs lists that the data have not, and as `make_split` and `predefined_split` do.
    """
    cases = list(data.cases.values())
    match section.rule:
        case "official":
            if data.official is None:
                raise InputError(
                    f"split.rule: found official, but {data.name} came without a published split (lists that the owner "
                    "publishes apart belong into the folder data.root: docs/datasets.md); allowed: auto, group, block, "
                    "random, or file with split.file"
                )
            name = f"official split ({data.official.source})"
            split = predefined_split(cases, data.classes, data.official, section, name)
        case "file":
            if data.split_file is None:
                raise InputError(
                    f"split.file: found {section.file}, which {data.folder} has no lists of; allowed: a file inside "
                    "data.root, which `dvc repro prepare` reads"
                )
            name = f"split.file ({data.split_file.source})"
            split = predefined_split(cases, data.classes, data.split_file, section, name)
        case "random":
            split = released_split(cases, section.seed)
        case _:
            split = make_split(cases, data.classes, section)
    warnings = [*_mixed_in(data, section.rule), *doubts(split, data.cases, data.classes, section.rule)]
    return replace(split, warnings=(*split.warnings, *warnings))


def _mixed_in(data: Prepared, rule: str) -> list[str]:
    """A line where a user has a folder of test images, but another rule than `official`."""
    if rule == "official" or data.official is None or not data.official.source.startswith(FOLDER_TEST):
        return []
    count = len(data.official.parts["test"])
    return [
        f"the {count} cases of {data.official.source} are split like all others, as split.rule is {rule}; "
        "official makes them the test part"
    ]


def released_split(cases: Sequence[Case], seed: int) -> Split:
    """The split of LLM4Seg's released code: 70 % of the cases for training, the others for validation and test alike.

    The same as scikit-learn's `train_test_split(sorted(ids), test_size=0.3, random_state=seed)`; the released code
    takes a random seed of 0 to 1024 without a record of it, and the file system's order.
    Raises InputError for one case.
    """
    if len(cases) < 2:
        raise InputError("split.rule: found random and 1 case; it needs 2 or more")
    ordered = sorted(cases, key=lambda case: case.id)
    order = np.random.RandomState(seed).permutation(len(ordered))
    chosen = {ordered[place].id for place in order[: ceil(RELEASED_TEST * len(ordered))]}
    test = ids_of(case for case in cases if case.id in chosen)
    return Split(
        rule=f"random, as LLM4Seg's released code: 70 % of the cases train, 30 % are val and test; seed {seed}",
        seed=seed,
        train=ids_of(case for case in cases if case.id not in chosen),
        val=test,
        test=test,
        left_out=(),
        folds=(),
        warnings=("validation is the test part, on which the best epoch is chosen: scores are optimistic",),
    )
