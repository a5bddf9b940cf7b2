"""What `dvc exp run -S` makes of params.yaml."""

import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"


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
