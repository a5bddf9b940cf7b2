"""The stage `split` after `prepare`, by lists beside the data and as the released code, up to the report."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.report.inputs import read_inputs
from llm4seg.report.page import render
from llm4seg.study.arms import write_splits
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from pipelines.prepare import prepare
from pipelines.split import split
from tests.finished_run import config_at, finished_run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Six pictures of three patients, the last one equal to the first, and no list yet."""
    for number in range(6):
        patient, image = "abc"[number // 2], np.full((16, 16), 10 * (number % 5), dtype=np.uint8)
        for kind in ("images", "masks"):
            path = tmp_path / "raw" / kind / f"{patient}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image if kind == "images" else np.eye(16, dtype=np.uint8)).save(path)
    raw = {"data.root": str(tmp_path / "raw"), "data.classes": {"line": [1]}, "data.folder.group": "^(.)_"}
    changes = {"data.dataset": "folder", **raw, "data.size": [16, 16], "model.bottleneck": "identity"}
    return config_at(tmp_path, changes | {"split.rule": "file", "split.file": "lists/val.txt"})


def write_list(config: Config, *ids: str) -> None:
    path = config.data.root / "lists" / "val.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(ids))


def test_a_list_of_other_data_is_left_out_unless_it_is_to_split(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC leaves split.file in params.yaml; the rule can be changed without preparing again."""
    prepare(config.override({"split.rule": "random"}))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "split.file" in line)
    assert line.startswith("warning: split.file is left out, as split.rule is random: split.file: found ")
    split(config.override({"split.rule": "random"}))
    with pytest.raises(InputError, match=r"^split\.file: found lists/val\.txt, which .* has no lists of; allowed: a f"):
        split(config)
    write_list(config, "c_5")
    prepare(config.override({"split.rule": "random"}))
    split(config)
    assert read_split(config.paths.split).test == ("c_5",)


@pytest.mark.parametrize("around", [False, True])
def test_a_list_in_an_archive(config: Config, tmp_path: Path, around: bool) -> None:
    write_list(config, "c_5")
    where = {"root_dir": str(tmp_path), "base_dir": "raw"} if around else {"root_dir": str(config.data.root)}
    config = config.override({"data.root": shutil.make_archive(str(tmp_path / "own"), "zip", **where)})
    prepare(config)
    split(config)
    assert read_split(config.paths.split).test == ("c_5",)
    prepare(config.override({"split.file": "raw/lists/val.txt"} if around else {}))
    split(config)
    assert read_split(config.paths.split).test == ("c_5",)


def test_a_list_beside_the_data_makes_the_test_part(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^split\.file: found .*/raw/lists/val\.txt, which is no file"):
        prepare(config)
    assert not config.paths.prepared.exists()
    write_list(config, "c_5", "b_3")
    prepare(config)
    split(config)
    made = read_split(config.paths.split)
    assert made.test == ("b_3", "c_5")
    assert sorted((*made.train, *made.val)) == ["a_0", "a_1", "b_2", "c_4"]
    assert made.rule == "split.file (lists/val.txt); val 0.2 of its train, groups kept together; seed 0"
    printed = capsys.readouterr().err
    assert "warning: groups (a patient, volume or video) in more than one part: 2, such as that of 'b_2' in " in printed
    assert "warning: images, equal in every pixel, in more than one part: 1, such as that of 'a_0' in " in printed
    write_list(config, "c_5.png", "b_3.png")
    prepare(config)
    message = (
        r"^split\.file \(lists/val\.txt\): found 2 of 2 ids that no case has, the first 'c_5\.png' in test; "
        r"allowed: ids such as 'a_0'$"
    )
    with pytest.raises(InputError, match=message):
        split(config)
    assert read_split(config.paths.split) == made


def test_a_study_uses_the_folds_of_a_file(config: Config) -> None:
    folds = [{"train": [*"ab"], "val": ["c"]}, {"train": [*"bc"], "val": ["a"]}]
    ids = {"a": ["a_0", "a_1"], "b": ["b_2", "b_3"], "c": ["c_4", "c_5"]}
    named = [{part: [one for name in names for one in ids[name]] for part, names in fold.items()} for fold in folds]
    (config.data.root / "lists").mkdir()
    write_json(config.data.root / "lists" / "splits_final.json", named)
    changes = {"split.file": "lists/splits_final.json", "split.fold": 0, "study.folds": [0, 1], "study.repeats": 1}
    config = config.override(changes)
    prepare(config)
    split(config)
    assert read_split(config.paths.split).test == ("c_4", "c_5")
    write_splits(config)
    tests = {read_split(path).test for path in config.paths.study_runs.glob("split-*.json")}
    assert tests == {("c_4", "c_5"), ("a_0", "a_1")}
    with pytest.raises(InputError, match=r"study\.folds: found 7, allowed: 0 to 1, the folds of split\.file \("):
        write_splits(config.override({"study.folds": [7]}))


def test_folds_that_test_the_same_cases_are_no_folds_of_a_study(config: Config) -> None:
    folds = [{"train": ["a_0", "b_2"], "test": ["c_4", "c_5"]}, {"train": ["a_1", "b_3"], "test": ["c_4"]}]
    write_list(config)
    write_json(config.data.root / "lists" / "folds.json", folds)
    config = config.override({"split.file": "lists/folds.json", "study.folds": [0, 1], "study.repeats": 1})
    prepare(config)
    with pytest.raises(InputError, match=r"^study\.folds: found \[0, 1\], whose test parts share 1 cases; allowed: "):
        write_splits(config)
    assert not config.paths.study_runs.exists()


def test_random_is_evaluated_and_flagged_in_the_report(tmp_path: Path) -> None:
    config = finished_run(tmp_path, {"split.rule": "random", "data.phantom.patients": 10})
    assert read_json(config.paths.metrics)["cases"] == 9
    page = " ".join(render(read_inputs(config)).split())
    warnings = read_split(config.paths.split).warnings
    assert len(warnings) == 2
    assert "About the split:</strong> <ul><li>validation is the test part, on which the best epoch is chosen" in page
    assert "<li>groups (a patient, volume or video) in more than one part: " in page
    assert "random, as LLM4Seg&#39;s released code: 70 % of the cases train" in page
    assert Prepared(config.paths.prepared).official is None
