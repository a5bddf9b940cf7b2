"""Data without a known size of a pixel: every distance is in px, in the tables, the summary and the report's text."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llm4seg.data.prepared import Prepared
from llm4seg.models.saved import describe, describe_data
from llm4seg.utils.files import read_json, write_json
from pipelines.evaluate import write_evaluation
from pipelines.prepare import prepare
from pipelines.report import report
from pipelines.search import search
from pipelines.split import split
from pipelines.study import study
from pipelines.summary import table
from tests import layouts
from tests.finished_run import ByIntensity, config_at, write_history

MM = re.compile(r"\bmm\b|millimet", re.IGNORECASE)
SMALL = {"data.size": [16, 16], "model.bottleneck": "identity", "evaluation.bootstrap": 100, "split.rule": "group"}


def write_pictures(ending: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for number in range(8):
            layouts.save(root / f"images/{number}.{ending}", layouts.speckle(number, (20, 20)))
            layouts.save(root / f"masks/{number}.{ending}", layouts.disk(number, (20, 20)))

    return write


def write_nnunet(root: Path) -> None:
    about = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "lesion": 1}}
    root.mkdir()
    write_json(root / "dataset.json", {**about, "numTraining": 8, "file_ending": ".png"})
    for number in range(8):
        layouts.save(root / f"imagesTr/{number}_0000.png", layouts.speckle(number, (20, 20)))
        layouts.save(root / f"labelsTr/{number}.png", layouts.disk(number, (20, 20)).astype("uint8"))


CASES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **{name: (name, write) for name, write in layouts.WRITERS.items()},
    **{ending: ("folder", write_pictures(ending)) for ending in ("png", "jpg", "bmp", "tif")},
    "nnunet": ("nnunet", write_nnunet),
}
QUICK = ("kvasir-seg", "tnscui", "tif", "nnunet")


def words(page: str) -> str:
    """What a reader sees of a page, the texts of its charts included."""
    seen = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", seen))


@pytest.mark.parametrize("name", [pytest.param(one, marks=[] if one in QUICK else pytest.mark.slow) for one in CASES])
def test_pictures_have_distances_in_px(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, write = CASES[name]
    write(tmp_path / "raw")
    own = {"data.dataset": dataset, "data.root": str(tmp_path / "raw"), "paths.cache": str(tmp_path / "cache")}
    config = config_at(tmp_path / "run", {**SMALL, **own})
    for stage in (prepare, split, search, study):
        stage(config)
    data = Prepared(config.paths.prepared)
    assert {case.unit for case in data.cases.values()} == {"px"}
    assert {case.spacing for case in data.cases.values()} == {(1.0, 1.0)}
    write_json(config.paths.model / "model.json", describe(config, describe_data(data), "torch"))
    write_history(config.paths.history)
    write_evaluation(config, ByIntensity([0.0, 1.2]))
    report(config)
    metrics = read_json(config.paths.metrics)
    assert metrics["distance_unit"] == "px"
    tables = [pd.read_csv(path) for path in config.paths.evaluation.glob("*cases*.csv")]
    assert tables
    assert all(set(one["distance_unit"]) == {"px"} for one in tables)
    assert "HD95 px" in [str(column.header) for column in table(metrics).columns]
    page = words(config.paths.report.read_text(encoding="utf-8"))
    assert "not known: distances are in px" in page
    assert not MM.findall(page + capsys.readouterr().out)
