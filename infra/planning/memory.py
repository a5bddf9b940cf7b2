"""Whether a worker's training fits the memory of a cluster's GPUs."""

from dataclasses import dataclass

from infra.planning.prices import MachineType
from llm4seg.config import Config
from llm4seg.tools.memory_estimate import engines, name
from llm4seg.tools.memory_model import Needs, Sizes, images_per_worker, llm_config, memory_needs, model_sizes

USABLE = 0.85  # of a GPU: CUDA itself, and memory that kernels borrow, take the rest


@dataclass(frozen=True)
class Fit:
    """What a worker needs on its GPU, as the engine of params.yaml has it, and what it may need there."""

    gpu: str
    usable: float  # bytes
    images: int  # of a worker's micro-batch
    engine: str
    needs: Needs
    other: str | None  # the first engine that fits where that of params.yaml does not; "": none does

    @property
    def fits(self) -> bool:
        return self.needs.device <= self.usable


def sizes_of(config: Config) -> Sizes:
    """The model's. Raises InputError as long as the data or the LLM's config are not there."""
    from llm4seg.data.patch_size import resolve_auto
    from llm4seg.data.prepared import Prepared

    data = Prepared(config.paths.prepared)
    config = resolve_auto(config, data)
    return model_sizes(config, llm_config(config), data.channels, data.scheme)


def fit(config: Config, sizes: Sizes, machine: MachineType) -> Fit:
    """A worker of as many as a run has at most, on this machine's GPU or its share of it."""
    workers = config.cluster.most
    usable = machine.gpu_gib * 2**30 * USABLE * config.cluster.gpus_per_worker
    images = images_per_worker(config, workers) or 1
    engine = config.engine.resolve(workers)
    if engine.offload == "auto":
        engine = engine.model_copy(update={"offload": "none"})
    found = memory_needs(sizes, engine, workers, images)
    others = (name(one) for one in engines(config.engine) if memory_needs(sizes, one, workers, images).device <= usable)
    other = None if found.device <= usable else next(others, "")
    return Fit(machine.gpu, usable, images, name(engine), found, other)
