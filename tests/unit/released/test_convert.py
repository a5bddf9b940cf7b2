"""The command that turns checkpoints of the released code into trained models, and back."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.models.saved import WEIGHTS, load_trained, read_weights
from llm4seg.objectives.losses import build_loss
from llm4seg.released.architecture import RELEASED
from llm4seg.released.convert import main
from llm4seg.utils.files import read_json
from pipelines.evaluate import evaluate
from tests.converting import LLM, PARAMS, Workplace, cnn_alone, same, with_other_llm
from tests.import_graph import ROOT
from tests.official import LAYER, official_state, official_store, read_fixture
from tests.official_reference import released_logits, released_state
from tests.tiny_llm import tiny_store

LLAMA = {"heads": 6, "kv_heads": 2, "eps": 1e-5}  # of the fixture


def test_the_converted_model_computes_what_the_released_code_did(
    work: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tensors = read_fixture()
    model = work.convert(official_state())
    with torch.no_grad():
        assert torch.allclose(model(tensors["x"]), tensors["eval_logits"], rtol=0, atol=1e-5)
        loss = build_loss("bce_dice")(model.train()(tensors["x"]), tensors["y"].squeeze(1).long())
    assert float(loss) == pytest.approx(float(tensors["train_losses"][0]), abs=2e-6)  # here the LLM layer matters
    assert not [name for name in read_weights(work.model) if "core" in name]
    table = " ".join(capsys.readouterr().out.split())
    assert f"layer {LAYER} of source, verified: sha256 {work.store.sha256(LAYER)[:12]}" in table
    assert "dims 4-8-16-20-32, depths 1-1-1-3-1, kernels 3-3-7-7-7" in table
    assert "BGR" in table


def test_the_reference_computes_what_the_released_code_did() -> None:
    """So that it can stand for the released code where the fixture says nothing."""
    _, tensors = read_fixture()
    logits = released_logits(official_state(), tensors["x"], **LLAMA)
    assert torch.allclose(logits, tensors["eval_logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_both_families_of_llms(tmp_path: Path, kind: str) -> None:
    work = Workplace(tmp_path, tiny_store(tmp_path, kind=kind, rms_norm_eps=1e-3))
    state = released_state(work.store.load(2))
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    assert (f"{LLM}self_attn.q_proj.bias" in state) == (kind == "qwen2")

    def reference(state: dict[str, Tensor], images: Tensor) -> Tensor:
        return released_logits(state, images, heads=4, kv_heads=2, eps=1e-3)

    model = work.convert(state)
    with torch.no_grad():
        assert torch.allclose(model(images), reference(state, images), rtol=0, atol=1e-5)
        exact = reference({name: tensor.double() for name, tensor in state.items()}, images.double())
        assert torch.allclose(model.double()(images.double()), exact, rtol=0, atol=1e-6)
    name = f"{LLM}self_attn.{'q_proj.bias' if kind == 'qwen2' else 'q_proj.weight'}"
    without = reference(state | {name: -state[name]}, images)
    assert (reference(state, images) - without).abs().max() > 1e-3  # the layer is heard
    assert same(work.back(), state)


def test_the_cnn_alone_needs_no_store(tmp_path: Path) -> None:
    torch.save(cnn_alone(), tmp_path / "cnn.pth")
    main([str(tmp_path / "cnn.pth"), "--params", str(PARAMS), "--store", str(tmp_path / "nowhere")])
    model, images = load_trained(tmp_path / "cnn", tmp_path / "nowhere"), read_fixture()[1]["x"]
    with torch.no_grad():
        assert torch.allclose(model(images), released_logits(cnn_alone(), images, **LLAMA), rtol=0, atol=1e-5)
    (tmp_path / "cnn").rename(tmp_path / "again")
    main([str(tmp_path / "again"), "--back", "--params", str(PARAMS), "--store", str(tmp_path / "nowhere")])
    assert same(torch.load(tmp_path / "again.pth", weights_only=True), cnn_alone())


def test_what_the_checkpoint_does_not_say_is_null(work: Workplace) -> None:
    work.convert(released_state(work.store.load(LAYER), channels=1, outputs=4))
    described = read_json(work.model / "model.json")
    assert described["data"] == {
        "name": None,
        "sha256": None,
        "spatial_dims": 2,
        "channels": 1,
        "classes": [None, None, None],
        "size": None,
        "intensity": None,
        "window": None,
        "view": None,
    }
    training = described["config"]["training"]
    assert training.pop("loss") == "dice_ce"
    assert {*training.values(), *described["config"]["optimizer"].values()} == {None}
    assert described["llm"]["layers"] == [{"layer": LAYER, "sha256": work.store.sha256(LAYER)}]
    assert described["converted"]["from"] == "official.pth"


def test_a_converted_network_wants_images_as_the_released_code_makes_them(work: Workplace) -> None:
    work.convert(released_state(work.store.load(LAYER), channels=3))
    assert read_json(work.model / "model.json")["data"]["intensity"] == "released"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_wrapped_checkpoints(work: Workplace, wrap: Callable[[Any], Any]) -> None:
    work.convert(wrap(official_state()))
    assert same(work.back(), official_state())


def test_heads_for_deep_supervision_are_left_out(work: Workplace) -> None:
    """The released network has no place for them, and predicts without them."""
    work.convert(cnn_alone())
    heads = {"decoder.supervised.0.weight": torch.ones(1, 2, 1, 1), "decoder.supervised.0.bias": torch.ones(1)}
    save_file(read_weights(work.model) | heads, work.model / WEIGHTS)
    assert same(work.back(), cnn_alone())


def test_a_store_in_half_precision_verifies_what_was_computed_in_single(tmp_path: Path) -> None:
    """The released code turned the LLM's bfloat16 weights to float32."""
    work = Workplace(tmp_path, official_store(tmp_path, torch.bfloat16))
    state = {name: t.bfloat16().float() if LLM in name else t for name, t in official_state().items()}
    work.convert(state)
    assert same(work.back(), state)


def test_an_llm_layer_that_is_none_of_the_stores(work: Workplace) -> None:
    line = work.refused(with_other_llm())
    assert "llm4seg.llm.* (sha256 " in line
    assert "equals no layer of source" in line
    assert f"(tried: 0, {LAYER})" in line
    assert "--keep-llm" in line


@pytest.mark.parametrize("began_as", ["pretrained", "random"])
def test_a_trained_or_random_llm_layer_is_kept(work: Workplace, began_as: str) -> None:
    state, images = with_other_llm(), read_fixture()[1]["x"]
    model = work.convert(state, "--keep-llm", began_as, "--layer", str(LAYER))
    with torch.no_grad():
        assert torch.allclose(model(images), released_logits(state, images, **LLAMA), rtol=0, atol=1e-5)
    section = read_json(work.model / "model.json")["config"]["model"]["llm"]
    assert (section["weights"], section["training"], section["layer"]) == (began_as, "full", [LAYER])
    assert torch.equal(
        model.state_dict()["bottleneck.core.layers.0.mlp.up_proj.weight"], state[f"{LLM}mlp.up_proj.weight"]
    )
    assert same(work.back(), state)


def test_an_llm_layer_that_is_not_verified(work: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    work.convert(with_other_llm(), "--drop-llm", "--layer", str(LAYER))
    assert f"layer {LAYER} of source, NOT verified" in capsys.readouterr().out
    assert same(work.back(), official_state())


def test_a_checkpoint_without_its_llm_layer(work: Workplace) -> None:
    """As `--back --drop-llm` leaves one, which holds nothing of the LLM's license."""
    work.convert(official_state())
    without = work.back("--drop-llm")
    assert same(without, {name: t for name, t in official_state().items() if LLM not in name})
    work.model = work.root / "second"
    assert "found no llm4seg.llm.* to verify; --drop-llm" in work.refused(without)
    assert "found no llm4seg.llm.* to keep" in work.refused(without, "--keep-llm", "random", "--layer", str(LAYER))
    assert "model.llm.layer: found 1, allowed: 0, 2" in work.refusal(work.again, "--drop-llm", "--layer", "1")
    work.convert(without, "--drop-llm", "--layer", str(LAYER))
    work.again.unlink()
    assert same(work.back(), official_state())


def test_a_round_trip_is_exact_and_the_file_no_larger(work: Workplace) -> None:
    work.convert(official_state())
    assert same(work.back(), official_state())
    assert work.again.stat().st_size < 1.1 * work.checkpoint.stat().st_size


def test_the_preset_released_is_what_the_released_block_computes() -> None:
    assert Config.load(PARAMS).presets["released"] == RELEASED


def test_evaluate_works_on_a_converted_model(config: Config) -> None:
    work = Workplace(config.paths.model.parent, LayerStore(config.paths.llm_used))
    work.model = config.paths.model
    work.convert(released_state(work.store.load(1), channels=1, outputs=3))
    evaluate(config)
    assert read_json(config.paths.metrics)["cases"] > 0


def test_help_shows_examples() -> None:
    command = [sys.executable, "-m", "llm4seg.released.convert", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "python -m llm4seg.released.convert official.pth --out outputs/model-official" in shown
