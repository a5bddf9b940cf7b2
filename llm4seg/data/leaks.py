"""Doubts about a split: a patient, a video or an image in two parts, a class that is absent from training."""

from collections.abc import Mapping, Sequence

from llm4seg.data.prepared import Case
from llm4seg.data.split import Split
from llm4seg.data.units import Ids


def doubts(split: Split, cases: Mapping[str, Case], classes: Sequence[str], rule: str) -> list[str]:
    """A line each for groups in two parts, for images in two parts, and for classes absent from training."""
    parts = {"train": split.train, "test": split.test}
    if split.val != split.test:
        parts["val"] = split.val
    group_of = {name: case.group for name, case in cases.items()}
    image_of = {name: case.sha256 for name, case in cases.items()}
    lines = []
    # cutting the only volume into blocks is no choice: the rule's sentence and the evaluation say so themselves
    if rule not in ("auto", "block") or len(set(group_of.values())) > 1:
        lines += _shared(parts, group_of, "groups (a patient, volume or video)")
    lines += _shared(parts, image_of, "images, equal in every pixel,")
    for name in classes:
        if not any(cases[case_id].pixels[name] for case_id in split.train):
            lines.append(f"class {name!r} is in no case of train, so it cannot be learned")
    return lines


def _shared(parts: Mapping[str, Ids], key_of: Mapping[str, str], what: str) -> list[str]:
    """A line on the keys (groups, images) of more than one part, with an example and the number of test cases."""
    seen: dict[str, dict[str, str]] = {}  # key: a case of each part
    for part, ids in parts.items():
        for case_id in ids:
            seen.setdefault(key_of[case_id], {}).setdefault(part, case_id)
    shared = [case_of_part for case_of_part in seen.values() if len(case_of_part) > 1]
    if not shared:
        return []
    trained = {key_of[case_id] for case_id in parts["train"]}
    known = sum(key_of[case_id] in trained for case_id in parts["test"])
    example = " and ".join(f"{case_id!r} in {part}" for part, case_id in list(shared[0].items())[:2])
    return [
        f"{what} in more than one part: {len(shared)}, such as that of {example}; {known} of the {len(parts['test'])} "
        "test cases have theirs in train"
    ]
