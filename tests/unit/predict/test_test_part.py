"""The files of the test part, through `llm4seg predict`: the masks on disk, scored by hand, have evaluate's metrics."""

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from llm4seg import cli
from llm4seg.config import Config
from llm4seg.data.split import read_split
from llm4seg.utils.files import read_json
from pipelines.evaluate import evaluate
from tests.lesion_volumes import VOLUMES, lesion_volume
from tests.tiny import tiny_config
from tests.unit.predict.conftest import SLICES, saved_model
from tests.volume_layouts import CODES, save

CASES = 6
KINDS: dict[str, dict[str, Any]] = {
    "slices": SLICES,
    "resized volumes": {"data.grid": "resize", "data.size": [16, 16, 8], "data.intensity": "zscore"},
    "volumes in patches": {"data.intensity": "zscore"},
}


def write_two_channels(root: Path) -> None:
    """Images of two contrasts, a file each, of which the first hardly shows a lesion; each in its own orientation."""
    for number in range(CASES):
        image, labels, affine = lesion_volume(number)
        random, codes = np.random.default_rng(100 + number), CODES[number % len(CODES)]
        first = (random.normal(60, 25, image.shape) + image // 20).round().astype(np.int16)
        for channel, values in enumerate((first, image)):
            save(root / "images" / f"case-{number}_{channel:04d}.nii.gz", values, codes, affine)
        save(root / "masks" / f"case-{number}.nii.gz", labels, codes, affine)


@pytest.fixture(scope="module", params=KINDS)
def config(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Config:
    """Two channels, with a model of random weights that `evaluate` has measured."""
    root = tmp_path_factory.mktemp("channels")
    write_two_channels(root / "raw")
    changes = VOLUMES | {"data.root": str(root / "raw"), "search.trials": 0, "split.val": 0.34, "split.test": 0.34}
    config = tiny_config(root).override(changes | {"model.bottleneck": "identity"} | KINDS[request.param])
    saved_model(config)
    config.paths.llm_used.mkdir(parents=True, exist_ok=True)
    evaluate(config)
    return config


def of_patients(ids: tuple[str, ...]) -> list[str]:
    """The volumes that cases are of: `case-1` of its slice `case-1-005`."""
    return sorted({"-".join(case_id.split("-")[:2]) for case_id in ids})


def scan(config: Config, kind: str, name: str) -> Path:
    return config.data.root / kind / f"{name}.nii.gz"


def test_masks_of_the_test_part_have_the_metrics_of_evaluate(config: Config, tmp_path: Path) -> None:
    names = of_patients(read_split(config.paths.split).test)
    assert len(names) == 2
    for name in names:
        for channel in ("0000", "0001"):
            path = scan(config, "images", f"{name}_{channel}")
            (tmp_path / "scans").mkdir(exist_ok=True)
            shutil.copy2(path, tmp_path / "scans")
    cli.main(["predict", str(config.paths.model), "-i", str(tmp_path / "scans"), "-o", str(tmp_path / "masks")])

    metrics = read_json(config.paths.metrics)
    metrics = metrics["volumes"] if config.data.spatial_dims == 2 else metrics
    for value, label in enumerate(("dark", "bright"), start=1):
        pairs = []
        for name in names:
            mask, reference = (
                nibabel.load(path) for path in (tmp_path / "masks" / f"{name}.nii.gz", scan(config, "masks", name))
            )
            assert np.array_equal(mask.affine, reference.affine)
            pairs.append((np.asarray(mask.dataobj) == value, np.asarray(reference.dataobj) == value))
        counts = np.array([[np.sum(a & b), np.sum(a), np.sum(b)] for a, b in pairs])
        assert counts[:, 1:].all()
        found = metrics["classes"][label]
        assert found["dice"]["n"] == len(names)
        assert found["dice"]["mean"] == pytest.approx(np.mean(2 * counts[:, 0] / counts[:, 1:].sum(axis=1)), abs=1e-6)
        assert found["precision"]["mean"] == pytest.approx(np.mean(counts[:, 0] / counts[:, 1]), abs=1e-6)
        pooled = 2 * counts[:, 0].sum() / counts[:, 1:].sum()
        assert pooled > 0
        assert found["pooled_dice"] == pytest.approx(pooled, abs=1e-6)


def test_swapped_channels_are_other_masks(config: Config, tmp_path: Path) -> None:
    """What the test above would not see if both channels were read from one file."""
    (name, *_) = of_patients(read_split(config.paths.split).test)
    for folder, order in (("right", (0, 1)), ("swapped", (1, 0))):
        (tmp_path / folder).mkdir()
        for channel, source in enumerate(order):
            path = scan(config, "images", f"{name}_{source:04d}")
            shutil.copy2(path, tmp_path / folder / f"{name}_{channel:04d}.nii.gz")
        cli.main(["predict", str(config.paths.model), "-i", str(tmp_path / folder), "-o", str(tmp_path / "o" / folder)])
    right, swapped = (
        np.asarray(nibabel.load(tmp_path / "o" / folder / f"{name}.nii.gz").dataobj) for folder in ("right", "swapped")
    )
    assert right.shape == swapped.shape
    assert not np.array_equal(right, swapped)
