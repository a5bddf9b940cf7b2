"""Everything that version 0.1.0 wrote is read, in the words of this one.

tests/fixtures/0.1.0 was written by that version: a tiny model, trained with loss `paper` around a block with position
`paper`, its data and LLM layer, a search, a study, and the logits that it computed.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.results import read_cases
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.models.check_data import check_data
from llm4seg.models.saved import load_trained, read_metadata
from llm4seg.report.page import architecture
from llm4seg.search import results as search_results
from llm4seg.study import results as study_results
from llm4seg.study.run_store import RunStore
from llm4seg.training.history import read_history
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

OLD = ROOT / "tests" / "fixtures" / "0.1.0"


@pytest.fixture
def store(config: Config, tmp_path: Path) -> Path:
    """The layer store after `dvc repro fetch_llm`, which finds nothing else to do than to judge the layers."""
    folder = Path(shutil.copytree(OLD / "llm_used", tmp_path / "llm"))
    before = (folder / "layer_1.safetensors").stat().st_mtime_ns
    section = config.override({"llm.source": str(OLD / "llama"), "llm.sha256": None}).llm
    fill_store(folder, section, [1], tmp_path / "cache")
    assert (folder / "layer_1.safetensors").stat().st_mtime_ns == before
    return folder


def test_a_layer_store_names_its_remedy() -> None:
    with pytest.raises(InputError, match=r"has no layer_specs, an earlier version wrote it; run `dvc repro fetch_llm`"):
        load_trained(OLD / "model", OLD / "llm_used")


def test_a_trained_model_computes_what_it_computed(store: Path) -> None:
    data = Prepared(OLD / "prepared")
    check_data(OLD / "model", data)
    image, labels = data.resampled("case-0000")
    assert data.original("case-0000")[0].shape[1:] == (20, 18)
    assert labels.shape == (16, 16)
    with torch.no_grad():
        logits = load_trained(OLD / "model", store)(image[None])
    torch.testing.assert_close(logits, load_file(OLD / "logits.safetensors")["logits"], rtol=1e-5, atol=1e-6)


def test_a_models_description() -> None:
    description, section = read_metadata(OLD / "model")
    assert (section.llm.position, description["config"]["model"]["llm"]["position"]) == ("released", "released")
    assert description["config"]["training"]["loss"] == "bce_dice"
    assert architecture(description) == "CMUNeXt with the frozen layer 1 of llama"


def test_a_model_to_begin_from(config: Config, store: Path) -> None:
    """Its bottleneck is the same, whatever its position was called then."""
    here = {"paths.prepared": str(OLD / "prepared"), "paths.llm_used": str(store)}
    model = read_metadata(OLD / "model")[1].model_dump(mode="json")
    lines: list[str] = []
    begun = config.override(here | {"model": model, "data.size": [16, 16], "training.loss": "bce_dice"})
    assemble(begun.override({"training.init_from": str(OLD / "model")}), Prepared(OLD / "prepared"), lines.append)
    assert lines[0].endswith("new ones: none")


def test_a_search() -> None:
    result = search_results.read(OLD / "search")
    assert result is not None
    assert result.best["model.llm.position"] == "released"
    assert result.section.space["model.llm.position"].values == ("native", "released")
    assert list(result.trials["model.llm.position"]) == ["released", "native"]


def test_a_study(config: Config) -> None:
    result = study_results.read(OLD / "study")
    assert result is not None
    assert set(result.cases["arm"]) == {"cnn", "exact"}
    record = RunStore(config.override({"paths.study_runs": str(OLD / "study_runs")})).read("run-0123456789ab")
    assert study_results.finished(record)


def test_tables_and_the_split() -> None:
    assert len(read_history(OLD / "history.csv")) == 2
    assert set(read_cases(OLD / "evaluation")["case"]) == set(read_split(OLD / "split.json").test)
