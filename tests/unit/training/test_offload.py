"""Which tensors may leave the device, and where `auto` sends them."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.training.engines import offload
from llm4seg.training.engines.accelerator import import_for
from llm4seg.training.engines.offload import (
    Place,
    Sizes,
    nvme_block,
    offload_options,
    place_for,
    remarks,
    sizes,
    swap_folder,
)
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError

LARGE = Sizes(threshold=10, matrices=(10**9,), bytes=4 * 10**9, together=1, trained=100)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def free(monkeypatch: pytest.MonkeyPatch, **gigabytes: float) -> None:
    monkeypatch.setattr(offload, "free_bytes", lambda device: int(gigabytes[device.type] * 1e9))


def test_only_frozen_llm_matrices_move(config: Config) -> None:
    model = assemble(config, Prepared(config.paths.prepared))
    found = sizes(model)
    layer = model.bottleneck.core.layers[0]
    assert sorted(found.matrices) == sorted(one.numel() for one in layer.parameters() if one.ndim == 2)
    stays = [one.numel() for name, one in model.named_parameters() if not name.startswith("bottleneck.core.")]
    assert found.threshold == max(stays)
    assert all(entries > max(stays) for entries in found.moving)
    assert found.together == 7


def test_what_is_trained_of_the_llm_stays(config: Config) -> None:
    model = assemble(config.override({"model.llm.training": "full"}), Prepared(config.paths.prepared))
    assert sizes(model).matrices == ()


@pytest.mark.parametrize(
    ("memory", "place"),
    [({"cuda": 9.0, "cpu": 1.0}, "none"), ({"cuda": 7.0, "cpu": 9.0}, "cpu"), ({"cuda": 7.0, "cpu": 7.0}, "nvme")],
)
def test_auto_takes_the_nearest_place_with_room(
    monkeypatch: pytest.MonkeyPatch, memory: dict[str, float], place: Place
) -> None:
    free(monkeypatch, **memory)
    assert place_for("auto", LARGE, CUDA, Path("/nvme"), 1) == place
    (line,) = remarks("auto", place, LARGE, CUDA, 1)
    assert line.startswith(f"engine.offload: auto is {place}: 4.00 GB of LLM matrices over 1 workers, ")


def test_auto_shares_the_matrices_out_over_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, cuda=7.0, cpu=1.0)
    assert place_for("auto", LARGE, CUDA, None, 2) == "none"


def test_auto_without_room_names_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, cpu=1.0)
    with pytest.raises(InputError, match=r"cluster\.nvme: found null"):
        place_for("auto", LARGE, CPU, None, 1)


def test_matrices_smaller_than_the_cnns_tensors_are_named() -> None:
    mixed = Sizes(threshold=100, matrices=(50, 200), bytes=1000, together=2, trained=100)
    (line,) = remarks("cpu", "cpu", mixed, CPU, 1)
    assert "1 of 2 frozen LLM matrices stay" in line
    assert not list(remarks("cpu", "cpu", LARGE, CPU, 1))


def test_a_tensor_that_stays_is_smaller_than_what_goes_to_nvme() -> None:
    found = Sizes(threshold=3 * 2**20, matrices=(2**24,), bytes=2**26, together=7, trained=1)
    for workers in (1, 2, 64):
        assert 4 * -(-found.threshold // workers) < nvme_block(found, workers)
    options = offload_options(found, "nvme", Path("/nvme"), 2, CPU)["offload_param"]
    assert (options["buffer_size"], options["buffer_count"]) == (2**23, 7)


def test_only_a_gpu_wants_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is in the machine: a worker may be told to leave its GPU alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pinned = [offload_options(LARGE, "cpu", None, 1, on)["offload_param"]["pin_memory"] for on in (CPU, CUDA)]
    assert pinned == [False, True]


def test_each_process_has_its_own_folder_on_nvme_and_those_of_dead_ones_go(tmp_path: Path) -> None:
    """Two runs on one node would read each other's matrices."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine, others, theirs = swap_folder(tmp_path), tmp_path / "data", tmp_path / "llm4seg-another-node-1"
    left = mine.with_name(mine.name.replace(str(os.getpid()), str(dead.pid)))
    for folder in (mine, left, others, theirs):
        folder.mkdir()
    assert swap_folder(tmp_path) == mine
    assert sorted(tmp_path.iterdir()) == sorted([mine, others, theirs])


@pytest.mark.parametrize("place", ["cpu", "nvme", "auto"])
def test_offload_needs_zero_3(config: Config, place: str) -> None:
    with pytest.raises(InputError, match="needs name: auto or deepspeed, and zero: 3"):
        config.override({"engine.offload": place, "engine.zero": 1, "cluster.nvme": "/nvme"})


def test_deepspeed_is_told_the_device_whoever_imported_it_before() -> None:
    """As where an imported library has let it choose the machine's GPU, and this training is on the CPU."""
    from deepspeed.accelerator import get_accelerator, set_accelerator
    from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

    before = get_accelerator()
    set_accelerator(CUDA_Accelerator())
    try:
        import_for(CPU)
        assert get_accelerator().device_name() == "cpu"
    finally:
        set_accelerator(before)


@pytest.mark.parametrize(
    ("wanted", "understood"), [("9.0a", "9.0+PTX"), ("8.0 9.0a 10.0f+PTX", "8.0;9.0;10.0+PTX"), ("8.6", "8.6+PTX")]
)
def test_architectures_with_a_letter_are_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, wanted: str, understood: str
) -> None:
    """DeepSpeed's builder reads numbers alone."""
    from deepspeed.ops.op_builder.async_io import AsyncIOBuilder

    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", wanted)
    import_for(CPU)
    builder = AsyncIOBuilder()
    builder.jit_mode = True
    builder.compute_capability_args()
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == understood
