"""What `dvc exp run -S` makes of params.yaml, and that README's experiments do not add up."""

import json
import re
import shutil
from itertools import permutations
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from llm4seg.config import Config
from pipelines.preset import options
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
MEANT = {  # what each line of README's block trains, as changes of the shipped values
    "default) -S model.llm.layer=7": {"model.llm.layer": 7},
    "default none)": {"model.bottleneck": "identity"},
    "default random)": {"model.llm.weights": "random", "model.llm.training": "full"},
    "default) -S model.backbone=unet": {"model.backbone": "unet"},
    "default released)": {"model.llm.position": "released", "model.llm.attention": "causal"},
    "default busi recipe-2d frozen)": {},
}


def experiments() -> dict[str, list[str]]:
    """The overrides of each `dvc exp run` in README with presets."""
    command = r"^dvc exp run \$\(python -m pipelines\.preset (([\w -]+)\)(?: -S (\S+))?)"
    lines = re.finditer(command, (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    words = {line[1]: (options(PARAMS, line[2].split()).split(), line[3]) for line in lines}
    return {line: [*presets[1::2], *([option] if option else [])] for line, (presets, option) in words.items()}


def test_each_experiment_of_the_readme_trains_the_same_after_any_other(tmp_path: Path) -> None:
    lines, path = experiments(), tmp_path / "params.json"  # JSON: DVC is quicker with it
    values, trained = yaml.safe_load(PARAMS.read_text()), {}
    for before, line in permutations(lines, 2):
        path.write_text(json.dumps(values))
        for one in (before, line):
            apply_overrides(path, lines[one])
        trained[before, line] = Config.load(path)
    shipped = Config.load(PARAMS)
    meant = {line: shipped.override(changes) for line, changes in MEANT.items()}
    assert list(lines) == list(MEANT)
    for (before, line), config in trained.items():
        assert config.model == meant[line].model, f"{line} after {before}"


@pytest.mark.parametrize(
    "option", ["model.llm.layer=7", "optimizer.clip_norm=1.5", "training.init_from=models/lung", "model.bottleneck=mlp"]
)
def test_an_experiment_changes_one_line(tmp_path: Path, option: str) -> None:
    """params.yaml has the form that DVC writes: `-S` rewrites the whole file."""
    path = Path(shutil.copy(PARAMS, tmp_path))
    apply_overrides(path, [option])
    before, after = PARAMS.read_text().splitlines(), path.read_text().splitlines()
    assert len(after) == len(before)
    (changed,) = [new for old, new in zip(before, after, strict=True) if old != new]
    name, _, value = option.partition("=")
    assert changed.split("#")[0].strip() == f"{name.rsplit('.', 1)[-1]}: {value}"
