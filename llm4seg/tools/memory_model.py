"""The memory model of a training: bytes on each device, in the host's memory and on NVMe.

The model runs with fake tensors, which have a shape and no memory, so that a layer of any size costs nothing here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call

from llm4seg.config import Config
from llm4seg.config.schema import EngineConfig
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.llm.architecture import final_norm, layer_list, meta_model
from llm4seg.llm.layer_inputs import LayerSpec
from llm4seg.llm.store import CONFIG, LayerStore
from llm4seg.llm_sources.sources import open_source
from llm4seg.llm_sources.supported import check_supported
from llm4seg.models import Hybrid, build_model
from llm4seg.objectives.deep_supervision import supervised_loss
from llm4seg.objectives.losses import build_loss, out_channels
from llm4seg.runtime.device import default_device
from llm4seg.tools.torch_internals import FakeTensorMode, storage_id
from llm4seg.training.engines.offload import NVME_BLOCK, movable, nearest, together
from llm4seg.utils.errors import InputError

OPTIMIZER_STATE = {"adamw": 2, "sgd": 1}  # tensors of the optimizer for each trained parameter


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's tensors, and of what one worker's forward pass keeps for the backward pass."""

    trained: int
    matrices: tuple[int, ...]  # each frozen LLM matrix
    together: int  # of these, how many are used at a time
    rest: int  # frozen vectors and buffers
    optimizer_state: int  # as multiples of `trained`
    threshold: int  # the largest tensor that stays on the device
    activations: int  # for any number of images
    activations_per_image: int

    @property
    def frozen(self) -> int:
        return sum(self.matrices)


@dataclass(frozen=True)
class Needs:
    """Bytes of a worker: on its device, by purpose, and elsewhere."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    host: int = 0
    nvme: int = 0

    @property
    def device(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Architecture:
    """A stand-in for LayerStore where no weights are needed: its tensors are on the meta device."""

    config: dict[str, Any]
    source: str = "llm.source"

    def spec(self, layer: int) -> LayerSpec:
        model = meta_model(self.config)
        if layer >= (count := len(layer_list(model)[1])):
            raise InputError(f"model.llm.layer: found {layer}, allowed: 0 to {count - 1} ({self.source})")
        return check_supported(model, [layer])[layer]

    def load(self, layer: int) -> dict[str, Tensor]:
        return dict(layer_list(meta_model(self.config))[1][layer].state_dict())

    def load_norm(self) -> dict[str, Tensor]:
        return dict(final_norm(meta_model(self.config))[1].state_dict())

    def path(self, layer: int) -> str:
        return self.source

    norm_path = source


def model_sizes(config: Config, llm: dict[str, Any] | None, channels: int, scheme: LabelScheme) -> Sizes:
    """The sizes of a config's model on images of some channels and labels; `llm`: transformers' config."""
    model = _model(config, llm, channels, out_channels(config.training.loss, scheme))
    # with a single image, BatchNorm would refuse a grid of one token
    two = _saved_activations(model, config, scheme, channels, images=2)
    three = _saved_activations(model, config, scheme, channels, images=3)
    named = list(model.named_parameters())
    matrices = tuple(_bytes(one) for name, one in named if movable(name, one))
    trained = sum(_bytes(one) for _, one in named if one.requires_grad)
    total = sum(map(_bytes, [*model.parameters(), *model.buffers()]))
    return Sizes(
        trained=trained,
        matrices=matrices,
        together=together(name for name, one in named if movable(name, one)),
        rest=total - trained - sum(matrices),
        optimizer_state=OPTIMIZER_STATE[config.optimizer.name],
        threshold=max(_bytes(one) for name, one in named if not movable(name, one)),
        activations=max(0, 3 * two - 2 * three),
        activations_per_image=three - two,
    )


def _model(config: Config, llm: dict[str, Any] | None, channels: int, outputs: int) -> Hybrid:
    """The config's model on the meta device; the source of its LLM weights and positions changes no size."""
    section = config.override({"model.llm.weights": "pretrained", "model.llm.position": "native"}).model
    store = cast(LayerStore, Architecture(llm)) if llm else None
    with torch.device("meta"):
        model = build_model(
            section,
            store,
            spatial_dims=config.data.spatial_dims,
            in_channels=channels,
            out_channels=outputs,
            seed=0,
            size=config.input_size,
            deep_supervision=config.training.deep_supervision,
        )
    model.mixed_precision = config.engine.precision in ("bf16", "fp16")  # of equal size
    return model.train()


def _saved_activations(model: Hybrid, config: Config, scheme: LabelScheme, channels: int, images: int) -> int:
    """Bytes that a forward pass and its loss save for the backward pass, without parameters."""
    with FakeTensorMode():  # tensors that behave as on the CPU, unlike those of the meta device
        tensors = {
            name: torch.empty(one.shape, dtype=one.dtype, requires_grad=one.requires_grad)
            for name, one in [*model.named_parameters(), *model.named_buffers()]
        }
        labels_NS = torch.zeros(images, *config.input_size, dtype=torch.int64)
        with saved_bytes(tensors.values()) as saved:
            outputs = functional_call(model, tensors, torch.zeros(images, channels, *config.input_size))
            supervised_loss(build_loss(config.training.loss, scheme, config.training), outputs, labels_NS)
        return saved()


@contextmanager
def saved_bytes(known: Iterable[Tensor]) -> Iterator[Callable[[], int]]:
    """Context manager of a function: the bytes that autograd has saved so far, without those of `known` tensors."""
    storages = {storage_id(tensor) for tensor in known}
    kept: dict[int, Tensor] = {}  # keeps the tensors alive, so that no storage's id is reused

    def pack(tensor: Tensor) -> Tensor:
        if storage_id(tensor) not in storages:
            kept[storage_id(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def memory_needs(sizes: Sizes, engine: EngineConfig, workers: int, images: int) -> Needs:
    """The peak memory of each worker in a step, for micro-batches of `images`."""
    engine = engine.resolve(workers)
    activations = sizes.activations + images * sizes.activations_per_image
    match engine.name, engine.zero:
        case ("torch", _) | (_, 0):  # gradients, and their copy in one tensor or in buckets
            return Needs(_all_tensors(sizes), 2 * sizes.trained, sizes.optimizer_state * sizes.trained, activations)
        case _, 1 | 2:  # a copy of its share, on which the optimizer works; a bucket, and its share of the mean
            share = -(-sizes.trained // workers)
            return Needs(_all_tensors(sizes) + share, sizes.trained + share, sizes.optimizer_state * share, activations)
        case _:
            return _zero_3(sizes, engine, workers, activations)


def _all_tensors(sizes: Sizes) -> int:
    return sizes.trained + sizes.frozen + sizes.rest


def _zero_3(sizes: Sizes, engine: EngineConfig, workers: int, activations: int) -> Needs:
    """Small tensors are unpartitioned on each device, beside its partitions; of the LLM's matrices, the one in use."""
    share = -(-sizes.trained // workers)
    shared = [-(-matrix // workers) for matrix in sizes.matrices if matrix > sizes.threshold]
    stays = sum(matrix for matrix in sizes.matrices if matrix <= sizes.threshold)
    in_use = max((matrix for matrix in sizes.matrices if matrix > sizes.threshold), default=0)
    if workers == 1 and engine.offload == "none":
        in_use = 0  # a share is the complete tensor, so nothing is copied to gather it
    assert engine.offload != "auto", "which `decided` replaces"
    gathered = sizes.trained if workers > 1 else 0
    here = gathered + 2 * share + sizes.rest + stays + in_use
    # a bucket and its share of the mean; while the optimizer steps, a copy of that takes the place of gathered weights
    gradients = sizes.trained + share + max(0, share - gathered)
    optimizer = sizes.optimizer_state * share
    match engine.offload:
        case "cpu":
            return Needs(here, gradients, optimizer, activations, host=sum(shared))
        case "nvme":
            moved = [one for one in shared if one >= NVME_BLOCK]
            buffers = sizes.together * max(shared, default=0)
            host = sum(shared) - sum(moved) + buffers
            return Needs(here, gradients, optimizer, activations, host=host, nvme=sum(moved))
        case _:
            return Needs(here + sum(shared), gradients, optimizer, activations)


def decided(config: Config, sizes: Sizes, workers: int) -> EngineConfig:
    """The engine section with `auto` replaced: name and offload for a number of workers on a machine like this.

    Raises InputError where the engine would.
    """
    engine = config.engine.resolve(workers)
    if engine.offload != "auto":
        return engine
    place = nearest(sizes.frozen, workers, default_device(config.cluster), config.cluster.nvme)
    return engine.model_copy(update={"offload": place})


def images_per_worker(config: Config, workers: int) -> int | None:
    """The micro-batch of a worker; None where the workers do not divide the global batch."""
    share, remainder = divmod(config.training.batch_size, workers * config.engine.accumulation)
    return None if remainder else share


def llm_config(config: Config) -> dict[str, Any] | None:
    """The LLM's config: from the layer store if it is filled, else from `llm.source` if that is on this machine."""
    if config.model.bottleneck == "identity":
        return None
    for folder in (config.paths.llm_used, config.paths.llm):
        if (folder / CONFIG).exists():
            return LayerStore(folder).config
    if Path(config.llm.source).exists():
        return open_source(config.llm.model_copy(update={"sha256": None}), config.paths.cache).checkpoint.config
    raise InputError(f"{config.paths.llm}: no layer store, so the LLM's shape is not known; run `dvc repro fetch_llm`")
