"""Models at addresses: pushed to a server that answers as the hub does, and to a bucket; loaded from there."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import llm4seg
from llm4seg import cli
from llm4seg.config import Config
from llm4seg.export.model_card import model_card
from llm4seg.utils.files import read_json, write_json
from tests.import_graph import ROOT
from tests.saved_model import save_random_model
from tests.servers import BUCKET, S3, HubServer

IMAGE = np.random.default_rng(0).integers(0, 200, (40, 36)).astype(np.uint8)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub without a repository, and a machine with a home of its own."""
    (tmp_path / "hub").mkdir()
    server = HubServer(tmp_path / "hub", "", {})
    address = f"http://127.0.0.1:{server.port}"  # what HF_ENDPOINT sets, which is read on import
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("LLM4SEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.token = "secret"
    yield server
    server.close()


@pytest.fixture
def model(config: Config) -> Path:
    """A model that needs no layer, but names an LLM by a path, with the default job's metrics beside its folder."""
    folder = save_random_model(config.override({"model.llm.train_only": True}))
    write_json(folder.parent / "metrics.json", read_json(ROOT / "outputs" / "metrics.json"))
    return folder


def test_a_pushed_model_is_loaded_at_its_commit(
    model: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["push", str(model), "hf://acme/seg", "--license", "cc-by-4.0"])
    address = f"hf://acme/seg@{hub.commits['main']}"
    assert f'llm4seg.load("{address}")' in capsys.readouterr().out
    assert hub.visibility == "private"
    pushed = tmp_path / "hub" / hub.commits["main"]
    assert {file.name for file in pushed.iterdir()} == {
        "README.md",
        "metrics.json",
        "model.json",
        "weights.safetensors",
    }
    assert read_json(model / "model.json")["llm"]["address"].startswith("/")
    assert read_json(pushed / "model.json")["llm"]["address"] is None
    assert str(tmp_path.parent) not in (pushed / "model.json").read_text() + (pushed / "README.md").read_text()
    expected = llm4seg.load(model).predict(IMAGE)
    assert expected.any()
    for name in (address, "hf://acme/seg"):
        assert np.array_equal(llm4seg.load(name).predict(IMAGE), expected)
    fetched = [path for path in hub.requests if path.startswith("/cdn/") and "weights" in path]
    assert fetched
    hub.requests.clear()
    llm4seg.load(address)
    assert not [path for path in hub.requests if "weights" in path and path.startswith("/cdn/")]


def test_the_card_has_data_classes_metrics_and_the_llms_license(model: Path) -> None:
    description, metrics = read_json(model / "model.json"), read_json(ROOT / "outputs" / "metrics.json")
    description["llm"]["licence"] = "Apache-2.0"
    card = model_card(description, metrics, "hf://acme/seg", "cc-by-4.0")
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["license"], header["pipeline_tag"]) == ("cc-by-4.0", "image-segmentation")
    dice = metrics["classes"]["cortex"]["dice"]
    row = re.search(r"\| cortex \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \|", card)
    assert row
    assert [float(value) for value in row.groups()] == [round(dice[key], 3) for key in ("mean", "low", "high")]
    assert "- trained on: phantom" in card
    assert "- lesion 2: 2 in masks" in card
    assert "License of the LLM: Apache-2.0." in card
    assert 'llm4seg.load("hf://acme/seg")' in card
    without = model_card(description, None, "hf://acme/seg", None)
    assert "license" not in yaml.safe_load(without.split("---\n")[1])
    assert "The license of these weights is not stated" in without


def test_a_bucket(model: Path, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("LLM4SEG_HOME", str(tmp_path / "home"))
    address = f"s3://{BUCKET}/models/one"
    cli.main(["push", str(model), address])
    assert np.array_equal(llm4seg.load(address).predict(IMAGE), llm4seg.load(model).predict(IMAGE))
    with pytest.raises(llm4seg.InputError, match=r"/two: found no model\.json, allowed: the folder of a trained model"):
        llm4seg.load(f"s3://{BUCKET}/models/two")


def test_what_is_refused(model: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, said in {
        "ftp://host/folder": r"push: found ftp://host/folder, allowed: hf://ORG/NAME, ",
        "hf://acme/seg@v1": r"push: found hf://acme/seg@v1, allowed: hf://ORG/NAME, ",
    }.items():
        with pytest.raises(SystemExit, match=said):
            cli.main(["push", str(model), address])
    monkeypatch.setenv("HF_TOKEN", "other")
    with pytest.raises(SystemExit, match=r"hf://acme/seg: the server answered 403, not allowed; log in with a token"):
        cli.main(["push", str(model), "hf://acme/seg"])
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(llm4seg.InputError, match=r"^model: found ftp://x/y, allowed: a folder, hf://"):
        llm4seg.load("ftp://x/y")
    with pytest.raises(llm4seg.InputError, match=r"hf://acme/none: no such repository or revision"):
        llm4seg.load("hf://acme/none")
