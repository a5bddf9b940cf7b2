"""What the command that converts released checkpoints refuses, in one line, leaving nothing behind."""

import io
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.config import Config
from llm4seg.released.architecture import RELEASED
from llm4seg.released.convert import main
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from pipelines.evaluate import evaluate
from tests.converting import PARAMS, Workplace
from tests.official import official_state
from tests.official_reference import released_state
from tests.tiny_llm import tiny_store

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
