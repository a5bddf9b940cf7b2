"""What another dataset must have in common with a study's own to be measured by its models."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm4seg.config import Config
from llm4seg.study import runner as study
from llm4seg.utils.errors import InputError

OWN: dict[str, Any] = {
    "name": "own",
    "spatial_dims": 2,
    "channels": 1,
    "classes": ("lesion", "cyst"),
    "intensity": "zscore",
    "window": None,
}
OTHER = OWN | {"name": "other"}


def check(config: Config, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = config.override({"study.other_data": "/other"})
    there = {config.paths.prepared: OWN, Path("/other"): other}
    monkeypatch.setattr(study, "Prepared", lambda folder: SimpleNamespace(**there[folder]))
    study._check_other_data(config)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"channels": 3}, "channels 3, allowed: 1"),
        ({"intensity": "window", "window": (-100.0, 400.0)}, "intensity window, allowed: zscore"),
        ({"window": (-100.0, 400.0)}, r"window \(-100.0, 400.0\), allowed: None"),
        ({"classes": ("a",)}, "other with the classes a, allowed: another dataset than own, with .* lesion, cyst, in"),
        ({"classes": ("cyst", "lesion")}, "other with the classes cyst, lesion, allowed: .* lesion, cyst, in this"),
        ({"classes": ("lesion", "tumor")}, "other with the classes lesion, tumor, allowed: .* lesion, cyst, in this"),
        ({"name": "own"}, "own with the classes lesion, cyst, allowed: another dataset"),
    ],
)
def test_another_dataset_that_the_models_cannot_take_is_refused(
    config: Config, change: dict[str, Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=f"study.other_data: found {found}"):
        check(config, OTHER | change, monkeypatch)


def test_a_dataset_from_before_its_intensities_were_written_down_is_taken(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(config, OTHER | {"intensity": None}, monkeypatch)
    check(config, OTHER, monkeypatch)
