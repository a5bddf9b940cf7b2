"""The plan's arithmetic; what a step really takes is checked in tests/integration/test_plan.py."""

from pathlib import Path

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.objectives.losses import build_loss
from llm4seg.tools.memory_estimate import tables
from llm4seg.tools.memory_model import decided, images_per_worker, llm_config, memory_needs, model_sizes, saved_bytes
from llm4seg.training.engines import offload
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError
from tests.tiny_vision import encoder_store


def test_sizes_are_those_of_the_real_model(config: Config) -> None:
    sizes = model_sizes(config, llm_config(config), 1, LabelScheme(("a", "b")))
    model = assemble(config, Prepared(config.paths.prepared))
    whole = [*model.parameters(), *model.buffers()]
    assert sizes.trained + sizes.frozen + sizes.rest == sum(tensor.nbytes for tensor in whole)
    assert sizes.trained == 4 * model.parameter_counts()["trained"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_what_autograd_keeps(config: Config, precision: str) -> None:
    config = config.override({"engine.precision": precision})
    sizes = model_sizes(config, llm_config(config), 1, LabelScheme(("a", "b")))
    model = assemble(config, Prepared(config.paths.prepared)).train()
    model.mixed_precision = precision == "bf16"
    for images in (2, 8):
        with saved_bytes([*model.parameters(), *model.buffers()]) as saved:
            logits = model(torch.randn(images, 1, 32, 32))
            build_loss("dice_ce")(logits, torch.zeros(images, 32, 32, dtype=torch.int64))
        assert sizes.activations + images * sizes.activations_per_image == pytest.approx(saved(), rel=0.05)


def test_a_vision_layer_counts_as_an_llms_and_is_left_as_it_was(config: Config, tmp_path: Path) -> None:
    """Its positions are computed on fake tensors here, of which a real forward pass must find none."""
    config = config.override({"paths.llm_used": str(encoder_store(tmp_path, "dinov3_vit", layers=(1,)).folder)})
    sizes = model_sizes(config, llm_config(config), 1, LabelScheme(("a", "b")))
    model = assemble(config, Prepared(config.paths.prepared)).train()
    whole = [*model.parameters(), *model.buffers()]
    assert sizes.trained + sizes.frozen + sizes.rest == sum(tensor.nbytes for tensor in whole)
    with saved_bytes(whole) as saved:
        build_loss("dice_ce")(model(torch.randn(8, 1, 32, 32)), torch.zeros(8, 32, 32, dtype=torch.int64))
    assert sizes.activations + 8 * sizes.activations_per_image == pytest.approx(saved(), rel=0.05)


def test_zero_3_shares_out_and_offload_takes_away(config: Config) -> None:
    sizes = model_sizes(config, llm_config(config), 1, LabelScheme(("a", "b")))
    stages = [config.override({"engine.zero": zero}).engine for zero in (1, 3)]
    alone, shared = memory_needs(sizes, stages[0], 1, 1), memory_needs(sizes, stages[0], 4, 1)
    assert shared.optimizer == pytest.approx(alone.optimizer / 4, abs=8)
    kept = memory_needs(sizes, stages[1], 4, 1)
    moved = memory_needs(sizes, stages[1].model_copy(update={"offload": "cpu"}), 4, 1)
    assert moved.host > 0
    assert moved.device == kept.device - moved.host


def test_batches_that_cannot_be_shared_out(config: Config) -> None:
    assert [images_per_worker(config, workers) for workers in (1, 2, 4, 8)] == [4, 2, 1, None]


def test_without_a_store_the_source_itself_tells_or_the_stage_is_named(config: Config, tmp_path: Path) -> None:
    empty = config.override({"paths.llm": str(tmp_path / "no"), "paths.llm_used": str(tmp_path / "no")})
    assert llm_config(empty)["hidden_size"] == 48
    with pytest.raises(InputError, match="run `dvc repro fetch_llm`"):
        llm_config(empty.override({"llm.source": "package://a==1/b.gguf"}))


def test_auto_is_what_the_engine_would_choose(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what is free may go to the LLM's matrices. With half of their bytes free, four workers have room."""
    config = config.override({"engine.zero": 3, "engine.offload": "auto", "cluster.nvme": "/nvme"})
    sizes = model_sizes(config, llm_config(config), 1, LabelScheme(("a", "b")))
    monkeypatch.setattr(offload, "free_bytes", lambda device: int(sizes.frozen / 2))
    assert [decided(config, sizes, workers).offload for workers in (1, 4)] == ["nvme", "none"]
    own, _ = tables(config)
    assert list(own.columns[0].cells) == ["ZeRO 3, offload nvme"] * 2 + ["ZeRO 3"] * 5
    assert "ZeRO 3, offload auto; auto goes by what is free here" in str(own.title)
    with pytest.raises(InputError, match=r"cluster\.nvme: found null"):
        list(tables(config.override({"cluster.nvme": None})))


def test_auto_is_torch_on_one_worker_and_zero_on_several(config: Config) -> None:
    own, _ = tables(config)
    assert list(own.columns[0].cells) == ["torch"] + ["ZeRO 1"] * 6
    assert "auto, ZeRO 1" in str(own.title)
    sizes = model_sizes(config, llm_config(config), 1, LabelScheme(("a", "b")))
    for workers, name in ((1, "torch"), (2, "deepspeed")):
        named = config.engine.model_copy(update={"name": name})
        assert memory_needs(sizes, config.engine, workers, 1) == memory_needs(sizes, named, workers, 1)


def test_two_tables(config: Config) -> None:
    own, every = tables(config)
    assert own.row_count == 7
    assert every.row_count == 7 * 7
