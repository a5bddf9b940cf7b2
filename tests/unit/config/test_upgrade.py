"""An earlier params.yaml brought up: it computes the same, and every byte stays that need not change."""

import difflib
import re
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.earlier import ADDED, MOVED, current, moved
from llm4seg.config.upgrade import upgraded
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

EARLIER = (ROOT / "tests" / "fixtures" / "0.1.0" / "params.yaml").read_text()
CURRENT = (ROOT / "params.yaml").read_text()


def changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


def dotted(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Every parameter that the types name."""
    names = set()
    for name, value in values.items():
        names.add(prefix + name)
        if isinstance(value, dict) and name not in ("classes", "space", "arms", "presets", "layer_sha256"):
            names |= dotted(value, f"{prefix}{name}.")
    return names


def test_it_computes_what_it_computed_before() -> None:
    text, done = upgraded(EARLIER)
    config, before = Config.parse(yaml.safe_load(text)), moved(yaml.safe_load(EARLIER))
    for name, (value, _) in ADDED.items():
        *parents, last = name.split(".")
        section = before
        for parent in parents:
            section = section[parent]
        assert section.setdefault(last, value) == value
    assert config == Config.parse(before)
    assert yaml.safe_load(text)["presets"]["released"] == current(before["presets"]["paper-exact"])
    assert done[:2] == [
        "presets.paper-exact: now called released",
        "presets.released.model.llm.position: paper is now called released",
    ]


def test_every_parameter_that_is_new_is_known() -> None:
    """One in params.yaml that 0.1.0 had not goes into `earlier.ADDED`, with the value that changes nothing."""
    new = dotted(yaml.safe_load(CURRENT)) - dotted(yaml.safe_load(EARLIER))
    assert [name for name in new if not any(f"{name}.".startswith(f"{one}.") for one in ADDED)] == []
    assert [name for name in ADDED if name not in new] == []


def test_only_what_must_change_does() -> None:
    changed = changed_lines(EARLIER, upgraded(EARLIER)[0])
    assert "+  pictures: outputs/pictures   # of search and study, as SVG" in changed
    path, classes, preset = [line for line in changed if line[0] == "-"]
    assert path == "-    path: data/raw"
    assert classes.startswith("-    classes: {lesion: [255]}")
    renamed = preset.replace("-  paper-exact: {model.llm.position: paper", "+  released: {model.llm.position: released")
    assert renamed in changed
    nested = sum(len(value) for value, _ in ADDED.values() if isinstance(value, dict))  # a line for each entry
    assert len(changed) == 2 + len(MOVED) + len(ADDED) + nested


FOLDERS = (
    "  folder:\n    path: data/mine\n    classes:   # of mine\n      cyst:\n      - 255\n      - 3\n    group: null\n",
    "  folder: {path: data/mine, classes: {cyst: [255, 3]}, group: null}\n",
)


@pytest.mark.parametrize("dataset", ["folder", "lung-ct"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_keeps_its_path_and_mask_values(dataset: str, folder: str) -> None:
    """What the mask values of a folder mean says nothing of other datasets, which passed over them."""
    text = re.sub(r"  folder:.*?(?=  phantom:)", folder, EARLIER, count=1, flags=re.DOTALL)
    after, done = upgraded(text.replace("dataset: brain-mri", f"dataset: {dataset}"))
    data = Config.parse(yaml.safe_load(after)).data
    assert (str(data.root), data.folder.group) == ("data/mine", None)
    assert data.classes == ({"cyst": (255, 3)} if dataset == "folder" else None)
    how = "" if dataset == "folder" else ", null for this data.dataset"
    assert done[2:4] == ["data.folder.path: now data.root", f"data.folder.classes: now data.classes{how}"]


def test_a_second_time_there_is_nothing_to_do() -> None:
    text, _ = upgraded(EARLIER)
    assert upgraded(text) == (text, [])
    assert upgraded(CURRENT) == (CURRENT, [])


RENAMED = """\
training:
  patch: {}
  patience:
  validate_every: 1
  focal_gamma: 2.0
  tversky: {alpha: 0.3, beta: 0.7}
  class_weights: null
  deep_supervision: false
  loss: "paper"   # the paper's
model: {llm: {source: default, position: 'paper', note: paper}}
tracking: {to: none}
search:
  screen: false
  space:
    # which one
    model.llm.position: [native, paper]
    training.loss:
      choice:
        - dice_ce
        - paper   # one class
      when: {model.llm.position: paper}
study:
  per: case
  keep: none
  analyze: false
  looks: null
  only:
  arms:
    exact: {preset: paper-exact}
  data: []
analysis: {enabled: false}
presets:
  "paper-exact": {}
"""


def test_words_are_replaced_where_they_stand() -> None:
    text, done = upgraded(RENAMED)
    assert changed_lines(RENAMED, text) == [
        '-  loss: "paper"   # the paper\'s',
        "-model: {llm: {source: default, position: 'paper', note: paper}}",
        '+  loss: "bce_dice"   # the paper\'s',
        "+model: {llm: {source: default, position: 'released', note: paper}}",
        "-    model.llm.position: [native, paper]",
        "+    model.llm.position: [native, released]",
        "-        - paper   # one class",
        "-      when: {model.llm.position: paper}",
        "+        - bce_dice   # one class",
        "+      when: {model.llm.position: released}",
        "-    exact: {preset: paper-exact}",
        "+    exact: {preset: released}",
        '-  "paper-exact": {}',
        '+  "released": {}',
    ]
    assert len(done) == 7
    assert "search.space.training.loss.when.model.llm.position: paper is now called released" in done


@pytest.mark.parametrize(
    ("parameter", "value", "before", "after"),
    [
        (  # before the one that follows it, and before that one's comment
            "optimizer.lr",
            0.1,
            "optimizer:\n  name: sgd   # sgd\n            # or not\n  # how small\n  weight_decay: 0\n",
            "optimizer:\n  name: sgd   # sgd\n            # or not\n  lr: 0.1   # new\n"
            "  # how small\n  weight_decay: 0\n",
        ),
        (  # none follows: before the last
            "paths.runs",
            "a b",
            "paths:\n  report: r\n  cache: c\n\nllm: {}\n",
            "paths:\n  report: r\n  runs: a b   # new\n  cache: c\n\nllm: {}\n",
        ),
        ("split.gap", None, "split: {folds: 5, fold: 1}\n", "split: {gap: null, folds: 5, fold: 1}\n"),
        (  # a section of its own
            "model.unet",
            {"channels": [8, 16], "residual_units": 2},
            "model:\n    backbone: unet\n    segresnet: {filters: 8}\n",
            "model:\n    backbone: unet\n    unet:   # new\n      channels: [8, 16]\n      residual_units: 2\n"
            "    segresnet: {filters: 8}\n",
        ),
        ("report", {"title": "T"}, "llm: {}\npresets: {}\n", "llm: {}\nreport:   # new\n  title: T\npresets: {}\n"),
    ],
)
def test_a_new_parameter_has_its_place(
    monkeypatch: pytest.MonkeyPatch, parameter: str, value: Any, before: str, after: str
) -> None:
    monkeypatch.setattr("llm4seg.config.upgrade.ADDED", {parameter: (value, "new")})
    text, done = upgraded(before)
    assert text == after
    assert done == [f"{parameter}: new, {value} as before"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "found CommentedSeq, allowed: the sections paths, llm"),
        ("training:\n  loss: &it paper\n", "line 2: found paper, which cannot be changed here; write bce_dice instead"),
    ],
)
def test_what_cannot_be_changed_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        upgraded(text)
