"""Splits over many seeds and made-up case lists: nothing crosses, nothing is lost, the shares are near."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.config.schema import Split as Section
from llm4seg.data.prepared import Case
from llm4seg.data.split import Split, make_split, read_split, write_split
from llm4seg.utils.errors import InputError
from tests.tiny import PARAMS

CONFIG = Config.load(PARAMS)
CLASSES = ("organ", "lesion")
SEEDS = range(15)


def section(**changes: Any) -> Section:
    return CONFIG.override({f"split.{name}": value for name, value in changes.items()}).split


def case(name: str, group: str, **changes: Any) -> Case:
    values = {"source": name, "volume": None, "position": None, "shape": (8, 8), "spacing": (1.0, 1.0)}
    pixels = {"organ": 10, "lesion": 3}
    return Case(**({"id": name, "group": group, "pixels": pixels, "sha256": name} | values | changes))


def pictures(seed: int) -> list[Case]:
    """Patients of uneven size and content, and some images that turn up again under another patient."""
    random = np.random.default_rng(seed)
    cases = []
    for patient in range(random.integers(12, 40)):
        for number in range(random.integers(1, 6)):
            name = f"{patient}-{number}"
            same = random.choice(cases).sha256 if cases and random.random() < 0.05 else name
            pixels = {"organ": int(random.lognormal(5)), "lesion": int(random.integers(0, 2) * random.lognormal(3))}
            cases.append(case(name, f"patient {patient}", sha256=same, pixels=pixels))
    return cases


def slices(seed: int, volumes: int = 1) -> list[Case]:
    """Slices of volumes, some positions missing, the very first and last slice equal."""
    random = np.random.default_rng(seed)
    cases = []
    for volume in range(volumes):
        positions = np.flatnonzero(random.random(random.integers(90, 200)) < 0.9)
        for position in positions:
            name = f"v{volume}-{position}"
            pixels = {"organ": int(1000 * np.sin(position / 60) ** 2), "lesion": int(20 < position < 50)}
            cases.append(case(name, f"v{volume}", volume=f"v{volume}", position=int(position), pixels=pixels))
    cases[-1] = case(
        cases[-1].id, cases[-1].group, volume=cases[-1].volume, position=cases[-1].position, sha256=cases[0].id
    )
    return cases


def parts(split: Split) -> dict[str, tuple[str, ...]]:
    return {"train": split.train, "val": split.val, "test": split.test}


def check_complete(cases: list[Case], split: Split) -> None:
    ids = sorted(one.id for one in cases)
    assert sorted([*split.train, *split.val, *split.test, *split.left_out]) == ids
    assert sorted(case_id for fold in split.folds for case_id in fold) == ids
    assert all(parts(split).values())
    assert all(split.folds)


def check_together(cases: list[Case], together: Iterator[set[str]] | list[set[str]], split: Split) -> None:
    """No such set of ids has members in two parts, or in two folds."""
    for ids in together:
        for several in (parts(split).values(), split.folds):
            assert sum(bool(ids & set(part)) for part in several) <= 1


def sharing(cases: list[Case], attribute: str) -> list[set[str]]:
    values = {getattr(one, attribute) for one in cases}
    return [{one.id for one in cases if getattr(one, attribute) == value} for value in values]


@pytest.mark.parametrize("fold", [None, 0, 4])
def test_no_group_and_no_equal_image_crosses(fold: int | None) -> None:
    for seed in SEEDS:
        cases = pictures(seed)
        split = make_split(cases, CLASSES, section(seed=seed, fold=fold))
        check_complete(cases, split)
        check_together(cases, sharing(cases, "group") + sharing(cases, "sha256"), split)
        assert not split.left_out, f"seed {seed}"
        assert len(split.folds) == 5, f"seed {seed}"


@pytest.mark.parametrize(
    ("block", "gap", "fold", "volumes"), [(6, 1, None, 1), (10, 3, 2, 1), (5, 0, None, 2), (4, 2, 0, 3)]
)
def test_blocks_stay_whole_and_apart(block: int, gap: int, fold: int | None, volumes: int) -> None:
    for seed in SEEDS:
        cases = slices(seed, volumes)
        split = make_split(cases, CLASSES, section(seed=seed, rule="block", block=block, gap=gap, fold=fold))
        check_complete(cases, split)
        blocks = [
            {one.id for one in cases if (one.volume, int(one.position or 0) // block) == key}
            for key in {(one.volume, int(one.position or 0) // block) for one in cases}
        ]
        check_together(cases, blocks + sharing(cases, "sha256"), split)
        assert nearest_across(cases, split) >= gap + 1, f"seed {seed}"
        assert bool(split.left_out) == bool(gap), f"seed {seed}"


def nearest_across(cases: list[Case], split: Split) -> int:
    """How many slices apart the closest two slices of a volume in different parts are."""
    at = {one.id: (one.volume, int(one.position or 0)) for one in cases}
    places = [[at[case_id] for case_id in ids] for ids in parts(split).values()]
    return min(
        abs(one_at - other_at)
        for part, others in ((0, 1), (0, 2), (1, 2))
        for one_volume, one_at in places[part]
        for other_volume, other_at in places[others]
        if one_volume == other_volume
    )


def test_only_what_is_near_another_part_is_left_out_and_never_of_test() -> None:
    """Worked by hand: test stays whole; val gives way to test; train gives way to both; nothing else is lost."""
    for seed in SEEDS:
        cases = slices(seed)
        split = make_split(cases, CLASSES, section(seed=seed, gap=2))
        uncut = make_split(cases, CLASSES, section(seed=seed, gap=0))
        assert split.test == uncut.test
        at = {one.id: int(one.position or 0) for one in cases}
        for case_id in split.left_out:
            others = split.test if case_id in uncut.val else split.test + split.val
            assert min(abs(at[case_id] - at[other]) for other in others) <= 2


def test_parts_and_folds_get_their_share_of_everything() -> None:
    """Cases, and pixels of either class, over lists without giants."""
    worst = 0.0
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        several = [
            case(
                str(k), f"patient {k // 2}", pixels={"organ": int(random.integers(50, 150)), "lesion": int(k % 7 == 0)}
            )
            for k in range(140)
        ]
        split = make_split(several, CLASSES, section(seed=seed, val=0.1, test=0.3))
        for share, ids in (
            (0.6, split.train),
            (0.1, split.val),
            (0.3, split.test),
            *((0.2, ids) for ids in split.folds),
        ):
            worst = max(worst, *(abs(part - share) for part in fractions(several, ids)))
    assert worst < 0.06


def fractions(cases: list[Case], ids: tuple[str, ...]) -> list[float]:
    """What part of the cases and of each class's pixels these ids hold."""
    chosen = [one for one in cases if one.id in ids]
    pixels = [sum(one.pixels[name] for one in chosen) / sum(one.pixels[name] for one in cases) for name in CLASSES]
    return [len(chosen) / len(cases), *pixels]


def test_seeds_give_different_splits_and_one_seed_the_same() -> None:
    cases = pictures(0)
    made = [make_split(cases, CLASSES, section(seed=seed)) for seed in SEEDS]
    assert len({split.test for split in made}) > 12
    assert make_split(cases, CLASSES, section(seed=3)) == made[3]


def test_a_fold_is_the_test_part_and_the_next_one_val() -> None:
    cases = pictures(1)
    for fold in range(5):
        split = make_split(cases, CLASSES, section(fold=fold))
        assert split.test == split.folds[fold]
        assert split.val == split.folds[(fold + 1) % 5]
    assert Counter(case_id for fold in split.folds for case_id in fold) == Counter(one.id for one in cases)


def test_auto_takes_blocks_for_one_volume_and_groups_otherwise() -> None:
    assert "blocks of 6 slices" in make_split(slices(0), CLASSES, section()).rule
    assert "groups" in make_split(slices(0, volumes=4), CLASSES, section()).rule
    assert "groups" in make_split(pictures(0), CLASSES, section()).rule


def test_few_patients_still_make_three_parts() -> None:
    several = [case(f"{patient}{number}", patient) for patient in "abcd" for number in range(10)]
    for seed in SEEDS:
        split = make_split(several, CLASSES, section(seed=seed))
        assert (len(split.train), len(split.val), len(split.test)) == (20, 10, 10)
        assert len(split.folds) == 4  # no more than there are patients


MISTAKES: dict[str, tuple[list[Case], dict[str, Any]]] = {
    r"split\.rule: found 'auto', by which 2 cases make 1 groups": ([case("1", "a"), case("2", "a")], {}),
    r"found 'group', by which \d+ cases make 1 groups.*rule block": (slices(0), {"rule": "group"}),
    r"found 'auto', by which \d+ cases make 2 groups": (slices(0, volumes=2)[:-1], {}),
    r"make [12] blocks of 150 slices": (slices(0), {"block": 150}),
    r"split\.rule: found 'block', but case '0-0' is no slice": (pictures(0), {"rule": "block"}),
    r"split\.val, split\.test: found 0 and 0\.2; both must exceed 0": (pictures(0), {"val": 0}),
    r"split\.folds: found 2, allowed with split\.fold set: 3": (pictures(0), {"folds": 2, "fold": 0}),
    r"split\.folds: found 50, .* to \d+ \(groups\)": (pictures(0), {"folds": 50, "fold": 0}),
    r"split\.gap: found 40, which leaves no case in train": (slices(0), {"gap": 40}),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_what_cannot_be_split_is_said(message: str) -> None:
    cases, changes = MISTAKES[message]
    with pytest.raises(InputError, match=message):
        make_split(cases, CLASSES, section(**changes))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    split = make_split(slices(0), CLASSES, section())
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split
    (tmp_path / "split.json").write_text('{"train": ["a"]}')
    with pytest.raises(InputError, match=r"split\.json: not a split that `split` wrote"):
        read_split(tmp_path / "split.json")
