"""The contact sheet: which cases are on it, and what it shows of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from llm4seg.data.prepared import Case
from llm4seg.datasets.overlays import MOST_CASES, choose_cases, write_contact_sheet
from llm4seg.utils.drawing import colors
from tests.finished_run import config_at, raw_case, write_cases


def case(number: int, *pixels: int) -> Case:
    counts = {f"class {k}": count for k, count in enumerate(pixels)}
    return Case(f"c{number}", "g", "s", None, None, (4, 4), (1.0, 1.0), counts, "0")


def chosen(cases: list[Case]) -> list[int]:
    return [int(one.id[1:]) for one in choose_cases(cases, list(cases[0].pixels))]


def test_cases_are_spread_over_the_dataset() -> None:
    assert chosen([case(number, 1) for number in range(24)]) == list(range(1, 24, 2))
    assert chosen([case(number, 1) for number in range(5)]) == list(range(5))


def test_labeled_cases_come_first_and_blank_ones_fill_up() -> None:
    found = chosen([case(number, int(number >= 90)) for number in range(100)])
    assert (len(found), found[2:]) == (MOST_CASES, list(range(90, 100)))
    assert chosen([case(number, int(number % 5 == 0)) for number in range(60)]) == list(range(0, 60, 5))


def test_each_class_is_seen_also_where_it_is_rare() -> None:
    rare = [case(number, 1, int(number == 7), int(number in (50, 51))) for number in range(200)]
    assert {7, 51} <= set(chosen(rare))
    each = [case(number, *(int(number % 10 == k) for k in range(10))) for number in range(100)]
    seen = {number % 10 for number in chosen(each)}
    assert (seen, len(chosen(each))) == (set(range(10)), MOST_CASES)


def sheet(folder: Path, monkeypatch: pytest.MonkeyPatch, classes: list[str], *cases: Any, **data: Any) -> list[str]:
    """Write a sheet of these cases; returns its texts."""
    figures: list[Figure] = []
    save = Figure.savefig

    def savefig(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    changes = {"data.spatial_dims": cases[0].labels.ndim, "data.size": [16] * cases[0].labels.ndim, **data}
    write_contact_sheet(folder / "data.png", write_cases(config_at(folder, changes), cases, classes))
    return [text.get_text() for text in figures[-1].findobj(Text)]


SQUARES = np.zeros((16, 20), dtype=int)
SQUARES[2:9, 3:10], SQUARES[11:15, 4:18] = 1, 2


def test_shows_classes_in_their_colors_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [raw_case("c0", SQUARES, spacing=(1.5, 0.75)), raw_case("c1", SQUARES, unit="px", notices=("c1 is odd",))]
    texts = sheet(tmp_path, monkeypatch, ["a", "b"], *cases)
    assert {"drawn", "a", "98", "b", "112", "c0", "16 \u00d7 20 px, 1.5 \u00d7 0.75 mm"} <= set(texts)
    assert {"c1", "16 \u00d7 20 px, pixel size not known", "c1 is odd"} <= set(texts)
    png = (tmp_path / "data.png").read_bytes()
    found = {color for _, color in Image.open(tmp_path / "data.png").convert("RGB").getcolors(1 << 24)}
    assert {tuple(bytes.fromhex(hue[1:])) for hue in colors(2)} <= found
    sheet(tmp_path, monkeypatch, ["a", "b"], *cases)
    assert (tmp_path / "data.png").read_bytes() == png


def test_a_volume_is_shown_at_its_fullest_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.stack([SQUARES * 0, SQUARES, (SQUARES == 1) * 2], axis=-1)
    texts = sheet(tmp_path, monkeypatch, ["a", "b"], raw_case("v", volume))
    assert any(text.endswith("16 \u00d7 16 \u00d7 16; shown is the slice with most labels") for text in texts)
    found = {color for _, color in Image.open(tmp_path / "data.png").convert("RGB").getcolors(1 << 24)}
    assert len(found) > 20  # both classes, where the other slices have none or one


def test_names_are_drawn_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [r"a$\frac$b", "a$_$"]
    assert {*names, "$x$"} <= set(sheet(tmp_path, monkeypatch, names, raw_case("$x$", SQUARES)))


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 1)])
def test_images_a_pixel_high_or_wide_are_drawn(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = np.ones(shape, np.uint8)
    labels.flat[: labels.size // 2] = 0
    prepared = write_cases(config_at(tmp_path, {}), [raw_case("a", labels)], ["lesion"])
    write_contact_sheet(tmp_path / "sheet.png", prepared)
    assert (tmp_path / "sheet.png").stat().st_size
