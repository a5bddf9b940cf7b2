"""Whether a worker's training fits the memory of a cluster's GPUs."""

from collections.abc import Iterable, Iterator

from infra.planning.prices import MachineType
from llm4seg.config import Config
from llm4seg.engines.__main__ import engines, name
from llm4seg.engines.plan import Sizes, images_a_worker, llm_config, measure, needs
from llm4seg.errors import InputError

USABLE = 0.85  # of a GPU: CUDA itself, and memory that kernels borrow, take the rest


def memory(config: Config, machines: Iterable[MachineType]) -> Iterator[str]:
    """A line for each kind of GPU."""
    kinds = sorted({(one.gpu, one.gpu_gib) for one in machines if one.gpus})
    if not kinds:
        return
    try:
        sizes = _sizes(config)
    except InputError as error:
        yield f"Memory is not known yet: {error}"
        return
    for gpu, gib in kinds:
        yield _fits(config, sizes, gpu, gib * 2**30 * USABLE)


def _sizes(config: Config) -> Sizes:
    from llm4seg.data.prepared import Prepared

    data = Prepared(config.paths.prepared)
    return measure(config, llm_config(config), data.channels, len(data.classes))


def _fits(config: Config, sizes: Sizes, gpu: str, room: float) -> str:
    """The engine of the config if it fits, else the first that does."""
    workers = config.cluster.most
    images = images_a_worker(config, workers) or 1
    engine = config.engine if config.engine.offload != "auto" else config.engine.model_copy(update={"offload": "none"})
    takes = needs(sizes, engine, workers, images).device
    usable = f"{room / 1e9:.1f} GB usable on one {gpu}"
    said = f"Memory: a worker with {images} images takes about {takes / 1e9:.2f} GB of {usable}"
    if takes <= room:
        return f"{said}: it fits."
    for other in engines(config.engine):
        if needs(sizes, other, workers, images).device <= room:
            return f"{said}: it does not fit; {name(other)} would."
    return f"{said}: it does not fit; take smaller batches, engine.accumulation, or a larger GPU."
