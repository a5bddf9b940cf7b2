"""`python -m llm4seg.tools.augmentations`: one change a picture, in 2-D and 3-D, gray and color."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from llm4seg.config import Config
from llm4seg.tools.augmentations import SHOWN, draw, draw_augmentations, main, most_changed, sections
from pipelines.prepare import prepare
from tests.lesion_volumes import lesion_config

FLAT = SimpleNamespace(size=(32, 32), channels=1)


def switched_on(config: Config, data: Any) -> dict[str, set[str]]:
    """The parameters that are on in each picture."""
    found = sections(config, data)
    return {title: {name for name in SHOWN if getattr(section, name)} for title, section in found.items()}


def test_each_picture_shows_one_change(config: Config) -> None:
    pictures = switched_on(config, FLAT)
    assert pictures.pop("as in params.yaml") == {"flip", "rotate", "scale", "shift", "intensity"}
    assert [*pictures.values()] == [{name} for name in SHOWN if name != "color"]
    assert {"rotate 15", "flip 1", "elastic 2"} <= set(pictures)  # a sixteenth of 32 pixels
    stronger = config.override({"training.augment.elastic": 5.0})
    assert "elastic 5" in switched_on(stronger, FLAT)


def test_pictures_are_those_that_the_images_allow(config: Config) -> None:
    color = switched_on(config, SimpleNamespace(size=(32, 48), channels=3))
    assert {"color"} in color.values()
    assert {"quarter_turns"} not in color.values()


@pytest.mark.parametrize("size", [(1, 24, 24), (3, 24, 24), (1, 24, 24, 8)])
def test_every_change_is_seen(config: Config, tmp_path: Path, size: tuple[int, ...]) -> None:
    image, labels = torch.rand(size), torch.zeros(size[1:], dtype=torch.uint8)
    labels[4:12, 4:12] = 1
    alone = sections(config, SimpleNamespace(size=size[1:], channels=size[0]))
    images = {title: most_changed(image, labels, section) for title, section in alone.items()}
    for title, (changed, _) in images.items():
        assert "blur" in title or abs(changed - image.numpy()).max() > 0.05, title
    draw(tmp_path / "sheet.png", images, ["lesion"])
    assert Image.open(tmp_path / "sheet.png").size[0] > 500


def test_the_command(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(config.plain()))
    options = ["--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "sheet.png")]
    monkeypatch.setattr(sys, "argv", ["augmentations", *options])
    main()
    assert (tmp_path / "sheet.png").exists()
    monkeypatch.setattr(sys, "argv", ["augmentations", *options, "--case", "nobody"])
    with pytest.raises(SystemExit, match="augmentations: --case: found nobody, allowed: a case of"):
        main()


def test_of_a_volume_at_a_spacing_a_patch_is_shown(tmp_path: Path) -> None:
    config = lesion_config(tmp_path, cases=3)
    prepare(config)
    draw_augmentations(config, "case-1", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] > 300
