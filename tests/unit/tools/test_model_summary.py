"""`python -m llm4seg.tools.model_summary`: every backbone's size and cost, alone and with the block."""

import re
import sys
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.tools.model_summary import main
from llm4seg.tools.profile_model import Cost, describe
from tests.import_graph import ROOT
from tests.tiny_llm import tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def params(folder: Path, **changes: Any) -> Path:
    """A copy of params.yaml whose tiny LLM is in `folder`."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["paths"]["llm_used"] = str(folder)
    values["model"]["llm"] |= {"layer": 1, **changes}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path, *options: str
) -> tuple[dict[str, list[str]], str]:
    """The table's rows by their first cell, and all of the output."""
    monkeypatch.setattr(sys, "argv", ["model_summary", "--params", str(path), *options])
    main()
    text = capsys.readouterr().out
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) == 7}, text


def test_the_blocks_operations_are_the_hand_count(store: LayerStore) -> None:
    """A multiply-add counts as two."""
    config = Config.load(ROOT / "params.yaml").override({"model.llm.layer": 1})
    found = describe(config, store, 1, 2)
    assert (found.strides, found.channels, found.tokens) == ((16, 16), 128, 64)
    adapters = 2 * 128 * 64  # between 128 channels and a hidden size of 64
    matrices = sum(tensor.numel() for tensor in store.load(1).values() if tensor.ndim == 2)
    attention = 2 * 4 * 16 * 64  # queries with keys, weights with values: 4 heads of 16, 64 tokens, for each token
    assert found.bottleneck == Cost(
        trained=adapters + 64 + 128,
        frozen=sum(tensor.numel() for tensor in store.load(1).values()),
        flops=2 * 64 * (adapters + matrices + attention),
    )


def test_the_network_costs_the_same_whatever_its_bottleneck(store: LayerStore) -> None:
    config = Config.load(ROOT / "params.yaml").override({"model.llm.layer": 1})
    alone = describe(config.override({"model.bottleneck": "identity"}), None, 1, 2)
    assert alone.bottleneck == Cost(0, 0, 0)
    for block in ({}, {"model.llm.position": "axial"}, {"model.llm.training": "lora"}, {"model.bottleneck": "mlp"}):
        found = describe(config.override(block), store, 1, 2)
        assert found.network == alone.network
        assert found.bottleneck.flops > 0


def test_fewer_bits_are_as_many_parameters_and_operations(store: LayerStore) -> None:
    config = Config.load(ROOT / "params.yaml").override({"model.llm.layer": 1})
    assert describe(config.override({"model.llm.dtype": "int8"}), store, 1, 2) == describe(config, store, 1, 2)


def test_tokens_are_counted_after_pooling(store: LayerStore) -> None:
    config = Config.load(ROOT / "params.yaml").override({"model.llm.layer": 1, "model.llm.pool": 2})
    assert describe(config, store, 1, 2).tokens == 16


def test_a_row_for_each_backbone_and_preset(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, text = printed(monkeypatch, capsys, params(store.folder), "--channels", "3", "--outputs", "1")
    monai = ["unet", "attention-unet", "unet++", "segresnet", "dynunet", "unetr", "swin-unetr"]
    assert {"cmunext", *monai, "preset cmunext-s", "preset cmunext", "preset cmunext-l"} <= set(rows)
    assert rows["preset cmunext"] == ["16", "256", "64", "3,149,185", "0", "3.62"]
    assert "a multiply-add counts as two" in text
    assert "128 x 128 images, 3 in, 1 out" in text


def test_chosen_rows_in_three_dimensions(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--size",
        "32",
        "--spatial-dims",
        "3",
        "--backbone",
        "cmunext",
        "--backbone",
        "swin-unetr",
        "--backbone",
        "smp",
    )
    rows, text = printed(monkeypatch, capsys, params(store.folder), *options)
    assert set(rows) == {"backbone", "cmunext", "preset cmunext", "+ LLM block"}
    assert rows["+ LLM block"][2] == "8"
    assert "swin-unetr: override: data.size: found [32, 32, 32], allowed: above 32" in text
    assert "smp: override: model.backbone: found smp, allowed: any other" in text


def test_images_a_second_are_of_the_fastest_step_after_the_first(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of steps that take 1, 5, 2 and 4 s, in batches of 4; the forward and backward passes are real."""
    moments = chain.from_iterable((10 * step, 10 * step + took) for step, took in enumerate([1, 5, 2, 4] * 2))
    monkeypatch.setattr("llm4seg.tools.profile_model.time", SimpleNamespace(perf_counter=partial(next, moments)))
    options = ("--backbone", "cmunext-s", "--size", "32", "--speed")
    _, text = printed(monkeypatch, capsys, params(store.folder), *options)
    assert re.search(r"stride .* GFLOPs +images/s", text)
    assert re.search(r"preset cmunext-s .* 2\.0\s+\+ LLM block .* 2\.0\s", text)
    assert re.search(r"images/s: in training, .* in batches of 4, fp32, the fastest of 3, on ", text)


def test_without_a_layer_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, text = printed(monkeypatch, capsys, params(tmp_path), "--backbone", "cmunext-s")
    assert set(rows) == {"backbone", "preset cmunext-s"}
    assert re.search(r"without the LLM block: no layer store in .*; run `dvc repro fetch_llm`", text)


def test_an_unknown_backbone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^models: --backbone: found unet9, allowed: cmunext, unet, .*, cmunext-l$"):
        printed(monkeypatch, capsys, params(tmp_path), "--backbone", "unet9")


def test_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["models", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "example: python -m llm4seg.tools.model_summary" in capsys.readouterr().out


def test_an_automatic_patch_has_no_size_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool reads no volumes; a size on the command line goes before."""
    path = params(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["data"] |= {"spatial_dims": 3, "grid": "spacing"}
    values["training"]["patch"]["size"] = "auto"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit, match=r"^models: training\.patch\.size: found auto, allowed .*: three numbers$"):
        printed(monkeypatch, capsys, path, "--backbone", "cmunext-s")
    rows, _ = printed(monkeypatch, capsys, path, "--backbone", "cmunext-s", "--size", "32")
    assert "preset cmunext-s" in rows
