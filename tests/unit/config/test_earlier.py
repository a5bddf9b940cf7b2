"""What was called otherwise in 0.1.0 is read everywhere, and compared, shown and hashed as what it is called now."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.best import read_best
from llm4seg.config.earlier import current_sections
from llm4seg.config.schema import FolderData
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_json
from tests.import_graph import ROOT


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(ROOT / "params.yaml")


def settings(loss: str, position: str, preset: str) -> dict[str, Any]:
    """The renamed values in every place that can hold them."""
    positions = {"model.llm.position": ["native", position]}
    block = {"adapter": {"kind": "linear", "width": 8, "activation": "gelu", "norm": True}, "position": position}
    return {
        "training.loss": loss,
        "model.llm.position": position,
        "study.arms": {
            "cnn": {"preset": "none"},
            "exact": {"preset": preset, "training.loss": loss},
            "section": {"model.llm": {**BLOCK, **block}},
        },
        "study.references": ["cnn"],
        "search.space": positions | {"training.loss": {"choice": [loss], "when": {"model.llm.position": position}}},
        "presets": {"none": {}, preset: {"model.llm.position": position}},
    }


BLOCK = yaml.safe_load((ROOT / "params.yaml").read_text())["model"]["llm"]
WAS, NOW = settings("paper", "paper", "paper-exact"), settings("bce_dice", "released", "released")


def test_a_config_of_old_words_is_the_config_of_new_ones(config: Config) -> None:
    old, new = config.override(WAS), config.override(NOW)
    assert old == new
    assert old.plain() == new.plain()
    assert old.digest(*Config.model_fields) == new.digest(*Config.model_fields) != config.digest(*Config.model_fields)
    assert "paper" not in str(old.plain())
    assert old.arm("exact") == new.arm("exact")
    assert (old.arm("exact").model.llm.position, old.arm("section").model.llm.position) == ("released", "released")


def test_a_file_of_old_words_is_read(config: Config, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for dotted, value in WAS.items():
        *parents, name = dotted.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[name] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    loaded = Config.load(tmp_path / "params.yaml")
    same = ("model", "training", "search", "study", "presets")
    assert loaded.digest(*same) == config.override(NOW).digest(*same)


def test_a_preset_keeps_its_old_name(config: Config) -> None:
    assert config.preset("paper-exact") == config.preset("released") != config
    with pytest.raises(InputError, match=r"presets: found paper-exact and released, which is its name now"):
        config.override({"presets": {"paper-exact": {}, "released": {}}})


def test_what_an_earlier_search_found_is_read(config: Config, tmp_path: Path) -> None:
    write_json(tmp_path / "best.json", {"model.llm.position": "paper", "training.epochs": 3})
    assert read_best(tmp_path) == {"model.llm.position": "released", "training.epochs": 3}


def test_parameters_that_were_moved_are_read_where_they_were(config: Config) -> None:
    classes = {"cyst": [7]}
    new = config.override({"data.dataset": "folder", "data.root": "/mine", "data.classes": classes})
    dotted = {"data.dataset": "folder", "data.folder.path": "/mine", "data.folder.classes": classes}
    section = {"path": "/mine", "classes": classes, **dict.fromkeys(FolderData.model_fields)}
    assert config.override(dotted) == config.override({"data.dataset": "folder", "data.folder": section}) == new
    assert config.override({"presets": {"mine": dotted}}).preset("mine").data == new.data
    values = new.plain()
    del values["data"]["root"], values["data"]["classes"]
    values["data"]["folder"] = section
    assert Config.parse(values) == new
    assert current_sections(values)["data"] == new.plain()["data"]
    values["data"]["dataset"] = "phantom"  # which passed over them
    assert Config.parse(values).data.classes is None


def test_a_parameter_under_both_names_is_refused(config: Config) -> None:
    values = config.plain()
    values["data"]["folder"]["path"] = "/mine"  # as `dvc exp run -S +data.folder.path=/mine` adds it
    message = r"data: found data.folder.path and data.root, which is its name now; allowed: one of them"
    with pytest.raises(InputError, match=message):
        Config.parse(values)
    with pytest.raises(InputError, match=r"^found data.folder.path and data.root, which"):
        config.override({"data.folder.path": "/a", "data.root": "/b"})


def test_an_older_name_added_to_a_file_as_shipped_counts(config: Config) -> None:
    """As a script does that sets it, whatever else the file has."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"].update(dataset="folder")
    values["data"]["folder"].update(path="/mine", classes={"cyst": [7]})
    data = Config.parse(values).data
    assert (str(data.root), data.classes) == ("/mine", {"cyst": (7,)})


def test_the_same_word_elsewhere_stays(config: Config) -> None:
    changed = config.override({"report.title": "paper", "data.classes": {"paper": [1]}})
    assert (changed.report.title, list(changed.data.classes or ())) == ("paper", ["paper"])


def test_a_parameter_that_is_new_names_the_command(config: Config) -> None:
    values = config.plain()
    del values["paths"]["pictures"]
    with pytest.raises(
        InputError,
        match=r"^params: paths.pictures is missing; it is of an earlier version: python -m pipelines.upgrade$",
    ):
        Config.parse(values)
    del values["paths"]["report"]  # that no version lacked
    with pytest.raises(InputError, match=r"(?m)^params: paths.report is missing$"):
        Config.parse(values)


def test_sections_that_a_program_wrote_get_what_was_added_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a model.json of before a backbone or an option was added stays readable."""
    added = {"model.toy": ({"channels": 4}, ""), "training.dropout": (0.0, ""), "cluster.launcher": ("ray", "")}
    monkeypatch.setattr("llm4seg.config.earlier.ADDED", added)
    sections = {"model": {"backbone": "unet"}, "training": {"loss": "paper", "dropout": 0.5}}
    assert current_sections(sections) == {
        "model": {"backbone": "unet", "toy": {"channels": 4}},
        "training": {"loss": "bce_dice", "dropout": 0.5},
    }
