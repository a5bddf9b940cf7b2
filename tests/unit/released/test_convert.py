"""The command that turns checkpoints of the released code into trained models, and back."""

import io
import os
import pickle
import resource
import shutil
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
from llm4seg.models import Hybrid
from llm4seg.models.saved import WEIGHTS, load_trained, read_weights
from llm4seg.objectives.losses import build_loss
from llm4seg.released.architecture import RELEASED
from llm4seg.released.convert import main
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from pipelines.evaluate import evaluate
from tests.import_graph import ROOT
from tests.official import LAYER, official_state, official_store, read_fixture
from tests.official_reference import released_logits, released_state
from tests.tiny_llm import tiny_store

PARAMS = ROOT / "params.yaml"
LLAMA = {"heads": 6, "kv_heads": 2, "eps": 1e-5}  # of the fixture
LLM = "llm4seg.llm."


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return official_store(tmp_path_factory.mktemp("llm"))


class Workplace:
    """A folder with a checkpoint, in which the command is run."""

    def __init__(self, root: Path, store: LayerStore) -> None:
        self.root, self.store = root, store
        self.checkpoint, self.model, self.again = root / "official.pth", root / "model", root / "again.pth"

    def run(self, *words: str | Path) -> None:
        main([*map(str, words), "--store", str(self.store.folder), "--params", str(PARAMS)])

    def convert(self, state: Any, *words: str) -> Hybrid:
        """Save a checkpoint, convert it, and load what came of it."""
        torch.save(state, self.checkpoint)
        self.run(self.checkpoint, "--out", self.model, *words)
        return load_trained(self.model, self.store.folder)

    def back(self, *words: str) -> dict[str, Tensor]:
        """Convert the model back, and read the checkpoint that came of it."""
        self.run(self.model, "--back", "--out", self.again, *words)
        state: dict[str, Tensor] = torch.load(self.again, weights_only=True)
        return state

    def refusal(self, source: Path, *words: str) -> str:
        """The one line that the command ends with; it leaves nothing."""
        before = {path.name for path in self.root.iterdir()}
        with pytest.raises(SystemExit) as stopped:
            self.run(source, "--out", self.root / "out", *words)
        line = str(stopped.value.code)
        assert line.startswith("convert: ")
        assert "\n" not in line
        assert {path.name for path in self.root.iterdir()} == before
        return line

    def refused(self, state: Any, *words: str) -> str:
        """The one line that the command ends with for a checkpoint; it names it."""
        torch.save(state, self.checkpoint)
        line = self.refusal(self.checkpoint, *words)
        assert str(self.checkpoint) in line
        return line


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, store: LayerStore) -> Path:
    """The model folder of the fixture's network, to read only."""
    work = Workplace(tmp_path_factory.mktemp("converted"), store)
    work.convert(official_state())
    return work.model


@pytest.fixture
def work(tmp_path: Path, store: LayerStore) -> Workplace:
    return Workplace(tmp_path, store)


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def cnn_alone() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in official_state().items() if not name.startswith("llm4seg.")}


def with_other_llm() -> dict[str, Tensor]:
    """As the released "random" control: the norms are the layer's, the matrices are not."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(tensor.shape, generator=generator) if LLM in name and tensor.ndim == 2 else tensor
        for name, tensor in official_state().items()
    }


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


WRONG = {
    "encoder9.bias": (torch.zeros(1), "encoder9.bias has no place in this network"),
    "llm4seg.llm.self_attn.q_proj.bias": (torch.zeros(48), "equals no layer"),
    "encoder3.up.conv.0.weight": (None, "encoder3.up.conv.0.weight is missing, so this is no released CMUNeXt"),
    "encoder4.block.1.0.fn.2.bias": (None, "encoder4.block.1.0.fn.2.bias is missing"),
    "Up3.up.1.weight": (torch.zeros(8, 15, 3, 3), "Up3.up.1.weight: found shape [8, 15, 3, 3], allowed: [8, 16, 3, 3]"),
    "stem.conv.0.weight": (torch.zeros(4, 3, 3), "stem.conv.0.weight: found shape [4, 3, 3], allowed: the four sides"),
    "Conv_1x1.weight": (torch.zeros(0, 4, 1, 1), "Conv_1x1.weight: found shape [0, 4, 1, 1], allowed: the four sides"),
    "encoder2.block.0.0.fn.0.weight": (torch.zeros(4, 1, 4, 4), "found a kernel of 4, allowed: odd ones"),
    "Conv_1x1.bias": (torch.tensor([float("nan")]), "Conv_1x1.bias holds values that are not finite"),
    "stem.conv.0.bias": (torch.zeros(4, dtype=torch.int8), "found torch.int8, allowed: torch.float32"),
    "llm4seg.adapter1.weight": (torch.zeros(40, 32), "found shape [40, 32], allowed: [48, 32]"),
    "Up2.up.1.bias": ("text", "'Up2.up.1.bias': found str, allowed: a tensor"),
    "Up2.up.2.bias": (torch.zeros(4).to_sparse(), "'Up2.up.2.bias': found Tensor, allowed: a tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_weight_that_is_not_as_it_must_be(work: Workplace, name: str) -> None:
    value, reason = WRONG[name]
    state = {one: tensor for one, tensor in official_state().items() if one != name}
    assert reason in work.refused(state if value is None else state | {name: value})


class Malicious:
    """Runs a command when it is unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {**official_state(), "stem.conv.0.bias": evil}])
def test_a_malicious_checkpoint_runs_nothing(work: Workplace, wrap: Callable[[Any], Any]) -> None:
    line = work.refused(wrap(Malicious(work.root / "owned")))
    assert "holds posix.system, which is no tensor, and was not opened" in line
    assert not (work.root / "owned").exists()


def checkpoint_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save(official_state(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"words", b"\x80\x04\x95", checkpoint_bytes()[:5000], pickle.dumps({"a": 1}), checkpoint_bytes()[200:]],
)
def test_a_file_that_is_no_checkpoint(work: Workplace, content: bytes) -> None:
    work.checkpoint.write_bytes(content)
    assert f"{work.checkpoint}: cannot be read as a checkpoint of torch" in work.refusal(work.checkpoint)


@pytest.mark.parametrize(("value", "kind"), [({}, "nothing"), ([1], "list"), (torch.zeros(1), "Tensor")])
def test_a_checkpoint_of_something_else(work: Workplace, value: Any, kind: str) -> None:
    assert f"found {kind}, allowed: a network's weights by name" in work.refused(value)


def test_no_file_no_folder_and_no_store(work: Workplace, tmp_path: Path) -> None:
    torch.save(official_state(), work.checkpoint)
    with pytest.raises(SystemExit, match=r"^convert: /.*/nowhere/config.json: no such file; run the stage"):
        main([str(work.checkpoint), "--params", str(PARAMS), "--store", str(tmp_path / "nowhere")])
    assert "No such file" in work.refusal(work.root / "nothing.pth")
    assert "no such file" in work.refusal(work.root / "nothing", "--back")


def test_nothing_is_overwritten(work: Workplace) -> None:
    work.model.mkdir()
    (work.model / "mine.txt").write_text("mine")
    torch.save(official_state(), work.checkpoint)
    with pytest.raises(SystemExit, match=r"model is there already, and is not overwritten"):
        work.run(work.checkpoint, "--out", work.model)
    assert [path.name for path in work.model.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("back", [False, True])
def test_a_disk_that_gets_full_leaves_nothing(work: Workplace, converted: Path, back: bool) -> None:
    torch.save(official_state(), work.checkpoint)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        line = work.refusal(converted, "--back") if back else work.refusal(work.checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in line


INEXPRESSIBLE = [
    ("bottleneck", "mlp", "model.bottleneck: found mlp, allowed: identity or llm"),
    ("llm.training", "lora", "model.llm.training: found lora, allowed: frozen or full"),
    ("llm.layer", [0, 2], "model.llm.layer, how many: found 2, allowed: 1"),
    ("cmunext", {"dims": [4, 8], "depths": [1, 1], "kernels": [3, 3]}, "model.cmunext.dims, how many: found 2"),
    ("llm.position", "native", "model.llm.position: found native, allowed: released"),
    ("llm.attention", "bidirectional", "model.llm.attention: found bidirectional, allowed: causal"),
    ("llm.adapter.kind", "bottleneck", "model.llm.adapter.kind: found bottleneck, allowed: linear"),
    ("llm.residual", "gate", "model.llm.residual: found gate, allowed: none"),
    ("llm.norm", True, "model.llm.norm: found True, allowed: False"),
    ("llm.pool", 2, "model.llm.pool: found 2, allowed: 1"),
    ("llm.dtype", "bf16", "model.llm.dtype: found bf16, allowed: fp32"),
    ("llm.train_only", True, "model.llm.train_only: found True, allowed: False"),
    ("llm.typo", 1, "not a model that this version can read: llm.typo"),
]


@pytest.mark.parametrize(("dotted", "value", "reason"), INEXPRESSIBLE)
def test_what_the_released_code_cannot_express(
    work: Workplace, converted: Path, dotted: str, value: Any, reason: str
) -> None:
    shutil.copytree(converted, work.model)
    described = read_json(work.model / "model.json")
    section = described["config"]["model"]
    *parents, name = dotted.split(".")
    for parent in parents:
        section = section[parent]
    section[name] = value
    write_json(work.model / "model.json", described)
    for options in ((), ("--drop-llm",)):
        assert reason in work.refusal(work.model, "--back", *options)


def test_the_released_code_has_no_third_dimension(work: Workplace, converted: Path) -> None:
    shutil.copytree(converted, work.model)
    described = read_json(work.model / "model.json")
    described["data"]["spatial_dims"] = 3
    write_json(work.model / "model.json", described)
    assert "data.spatial_dims: found 3, allowed: 2" in work.refusal(work.model, "--back")


def test_the_released_code_knows_two_families(tmp_path: Path) -> None:
    work = Workplace(tmp_path, tiny_store(tmp_path, kind="mistral"))
    work.convert(released_state(work.store.load(1)))
    assert "model_type: found mistral, allowed: llama or qwen2" in work.refusal(work.model, "--back")


def test_every_option_that_the_released_block_fixes_is_tested_above() -> None:
    assert {f"model.{dotted}" for dotted, _, _ in INEXPRESSIBLE} >= RELEASED.keys()


def test_the_preset_released_is_what_the_released_block_computes() -> None:
    assert Config.load(PARAMS).presets["released"] == RELEASED


def test_evaluate_works_on_a_converted_model(config: Config) -> None:
    work = Workplace(config.paths.model.parent, LayerStore(config.paths.llm_used))
    work.model = config.paths.model
    work.convert(released_state(work.store.load(1), channels=1, outputs=3))
    evaluate(config)
    assert read_json(config.paths.metrics)["cases"] > 0


def test_evaluate_refuses_images_of_another_kind(work: Workplace, converted: Path, config: Config) -> None:
    shutil.copytree(converted, work.model)
    config = config.override({"paths.model": str(work.model), "paths.llm_used": str(work.store.folder)})
    with pytest.raises(InputError, match=r"prepared: found 1 channels, allowed: 3, those of the model in .*model"):
        evaluate(config)
    described = read_json(work.model / "model.json")
    described["data"]["channels"] = 1
    write_json(work.model / "model.json", described)
    with pytest.raises(InputError, match=r"prepared: found the classes lesion 1, lesion 2, allowed: 1, as the model"):
        evaluate(config)


@pytest.mark.parametrize(
    "words",
    [
        *[("--back", "--keep-llm", "random"), ("--back", "--size", "256"), ("--back", "--intensity", "unit")],
        *[("--layer", "1"), ("--keep-llm", "random", "--drop-llm")],
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["some.pth", *words])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_shows_examples() -> None:
    command = [sys.executable, "-m", "llm4seg.released.convert", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "python -m llm4seg.released.convert official.pth --out outputs/model-official" in shown
