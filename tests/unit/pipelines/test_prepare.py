"""The stage `prepare`: what it prints and leaves beside the arrays."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from pipelines.prepare import prepare
from tests.finished_run import config_at


def pictures(root: Path, tiny_in: int, kept_in: int = 0, cases: int = 8) -> Config:
    """Pictures of 64 x 64 pixels for a grid of 16 x 16: "tiny" is one pixel between its nodes, or on them."""
    for folder in ("images", "masks"):
        (root / "raw" / folder).mkdir(parents=True)
    for number in range(cases):
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[16:40, 20:40] = 1
        mask[4:8, 4:8] = 2 * (number < kept_in)
        mask[0, 0] = 2 * (number < tiny_in)
        image = np.random.default_rng(number).integers(0, 255, mask.shape, dtype=np.uint8)
        Image.fromarray(image).save(root / "raw" / "images" / f"c{number}.png")
        Image.fromarray(mask).save(root / "raw" / "masks" / f"c{number}.png")
    data = {"data.dataset": "folder", "data.root": str(root / "raw"), "data.size": [16, 16]}
    return config_at(root, data | {"data.classes": {"[big]": [1], "tiny": [2]}})


def test_counts_pixels_on_the_grid_and_names_the_contact_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = pictures(tmp_path, tiny_in=0, kept_in=5)
    prepare(config)
    out, warnings = capsys.readouterr()
    rows = [line.split("\u2502")[1:-1] for line in out.splitlines() if line.startswith("\u2502")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [["[big]", "8", "8", "3,840", "240"], ["tiny", "5", "5", "80", "5"]]
    assert warnings == ""
    assert out.endswith("prepare: a look at the data: outputs/data.png\n")
    assert config.paths.contact_sheet.read_bytes().startswith(b"\x89PNG")


def test_a_class_that_vanishes_on_the_grid_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = pictures(tmp_path, tiny_in=8, kept_in=6)
    prepare(config)
    where = "class 'tiny' has no pixel on the network's grid of 16 x 16"
    assert f"warning: {where} in 2 of the 8 cases with it: a larger data.size keeps it\n" in capsys.readouterr().err


def test_up_to_a_tenth_of_the_cases_may_lose_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(pictures(tmp_path, tiny_in=10, kept_in=9, cases=10))
    assert "warning" not in capsys.readouterr().err


def test_a_class_that_is_nowhere_on_the_grid_is_refused_and_nothing_replaced(tmp_path: Path) -> None:
    config = pictures(tmp_path, tiny_in=8)
    config.paths.prepared.mkdir(parents=True)
    (config.paths.prepared / "before").touch()
    message = (
        "raw: class 'tiny' has no pixel on the network's grid of 16 x 16 in any of the 8 cases with it; allowed: a l"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        prepare(config)
    assert [path.name for path in config.paths.prepared.iterdir()] == ["before"]
