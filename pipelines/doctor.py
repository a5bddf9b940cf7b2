"""Check that this machine has what the parameters need, before any work is done."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil

from llm4seg.cluster.local_ray import LAUNCHER, private_folders
from llm4seg.config import Config
from llm4seg.data.prepared import MANIFEST, Prepared
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.registry import PACKAGED, open_dataset
from llm4seg.datasets.spacing import in_array_order
from llm4seg.datasets.volume_grid import check_memory
from llm4seg.datasets.volume_headers import check_volumes
from llm4seg.project.code_file import is_project, write_code_file
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import install, installed, require
from pipelines.stage import ANOTHER_DISK, check_outputs, run_stage

BF16_SINCE = 8  # the compute capability's first number: Ampere's
# the most memory of the default job on a CPU, each process with its part of what it shares (PSS): of those beside the
# workers, of a worker, and of cluster.launcher: process in all
RAY_GB, WORKER_GB, PROCESS_GB = 1.8, 0.9, 0.9
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
FREE_GB = 2  # the default job's downloads, shards, checkpoints and DVC cache


def problems(config: Config) -> Iterator[str]:
    """One line for each thing that is missing, with its remedy."""
    if shutil.which("git") is None:
        yield "git is missing: apt-get install git"
    yield from _refused(lambda: check_outputs(config))
    yield from _disk(config.paths.model)
    if config.model.backbone == "smp" and not installed("segmentation_models_pytorch"):
        yield f"model.backbone: smp: {install('segmentation_models_pytorch')} beside the CUDA build of torch"
    if config.data.dataset == "lung-ct":
        yield from _refused(lambda: require("pydicom", "data.dataset: lung-ct"))
    if config.cluster.launcher == "ray":
        yield from _refused(lambda: require("ray", LAUNCHER))
    if config.cluster.data == "pull":
        yield from _refused(lambda: require("dvc", "cluster.data: pull"))
    yield from _volumes(config)
    yield from _refused(lambda: _data_sets(config))
    if config.cluster.address is not None:
        return  # the rest is the cluster's business
    if config.cluster.launcher == "ray":
        yield from _refused(private_folders)
    if config.engine.resolve(config.cluster.most).name == "deepspeed":
        yield from _refused(lambda: require("deepspeed", "engine.name: deepspeed"))
        yield from _home()
    if config.engine.compile:
        yield from _compiler("engine.compile: true", "engine.compile: false")
    if config.engine.offload == "nvme":  # DeepSpeed compiles its asynchronous file reader on first use
        yield from _compiler("engine.offload: nvme", "engine.offload: cpu")
        yield from _libaio()
    if config.cluster.device == "cuda":
        yield from _cuda()


def _data_sets(config: Config) -> None:
    """Raise InputError for a folder of `study.data` that is no data set, or that an arm cannot be trained on."""
    if config.study.repeats and config.study.data:
        from llm4seg.study.data_sets import configs_of_data  # here: torch takes seconds

        configs_of_data(config)


def _volumes(config: Config) -> Iterator[str]:
    """The first volume that is larger at data.spacing than memory: by files' headers, and of data prepared before."""
    prepared, spacing = config.paths.prepared, config.data.spacing
    if config.data.grid != "spacing":
        return
    dataset = _dataset_in_files(config)
    if dataset and (too_large := list(_refused(partial(check_volumes, dataset, config.data)))):
        yield from too_large
        return
    if isinstance(spacing, str) or not (prepared / MANIFEST).is_file():
        return
    for case in Prepared(prepared).cases.values():
        if len(case.shape) != len(spacing):  # slices that were prepared before: volumes will take their place
            return
        too_large = list(_refused(partial(check_memory, case, in_array_order(spacing))))
        if too_large and case.unit == "mm":
            yield too_large[0]
            return


def _dataset_in_files(config: Config) -> Dataset | None:
    """The dataset, where it lies in a folder; what is wrong with it is up to `prepare`. Archives are not unpacked."""
    if config.data.dataset in PACKAGED or not config.data.root.is_dir():
        return None
    try:
        return open_dataset(config.data, config.paths.cache)
    except InputError:
        return None


def _disk(path: Path) -> Iterator[str]:
    there = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < FREE_GB:
        yield f"{there}: {free:.1f} GB are free and {FREE_GB} GB are needed: make room; {ANOTHER_DISK}"


def _refused(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except InputError as error:
        yield str(error)


def _home() -> Iterator[str]:
    """DeepSpeed compiles operators on first use."""
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR", "~/.cache/torch_extensions")).expanduser()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        yield f"{folder}: cannot be written, where DeepSpeed compiles its operators: set TORCH_EXTENSIONS_DIR"


def _compiler(option: str, instead: str) -> Iterator[str]:
    if shutil.which("g++") is None:
        yield f"{option} needs a C++ compiler: apt-get install g++, or {instead}"


def _libaio() -> Iterator[str]:
    if not Path("/usr/include/libaio.h").exists():
        yield "engine.offload: nvme needs libaio: apt-get install libaio-dev, or engine.offload: cpu"


def _cuda() -> Iterator[str]:
    import torch

    if torch.version.cuda is None:
        yield "cluster.device: cuda, but torch is the CPU build: make repro TORCH=cuda, or cluster.device: auto"
    elif not torch.cuda.is_available():
        yield "cluster.device: cuda, but torch sees no GPU: check `nvidia-smi`, or cluster.device: auto"


def remarks(config: Config) -> Iterator[str]:
    """One line for each thing that works here, but slowly or not for certain."""
    yield from _short_of_memory(config)
    yield from _slow_precision(config)


def _short_of_memory(config: Config) -> Iterator[str]:
    cluster = config.cluster
    needed, free = RAY_GB + cluster.most * WORKER_GB, _free_memory() / 1e9
    if cluster.launcher != "ray" or cluster.address is not None or free >= needed:
        return
    instead = "fewer cluster.workers take less"
    if cluster.most == 1 and not config.search.trials:
        instead = f"cluster.launcher: process takes {PROCESS_GB:.1f} GB"
    yield (
        f"{free:.1f} GB of memory are free, and Ray with cluster.workers: {cluster.most} takes {needed:.1f} GB in the "
        f"default job, and ends workers where memory is full; {instead} (docs/gpu-box.md)"
    )


def _free_memory() -> int:
    """Bytes of memory that can be used here without swapping, also in a container with a limit of its own."""
    if not MEMORY_LIMIT.is_file() or MEMORY_LIMIT.read_text().strip() == "max":
        return int(psutil.virtual_memory().available)
    import torch

    from llm4seg.runtime.device import free_bytes  # here: torch takes seconds

    return free_bytes(torch.device("cpu"))


def _slow_precision(config: Config) -> Iterator[str]:
    wanted, cluster = config.engine.precision, config.cluster
    if wanted not in ("bf16", "fp16") or cluster.address is not None:
        return
    if cluster.device == "cpu":
        yield from _slow_on_a_cpu(config)
        return
    import torch

    if not torch.cuda.is_available():
        yield from _slow_on_a_cpu(config)
        return
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if wanted == "bf16" and major < BF16_SINCE:
        yield (
            f"engine.precision: bf16 is only emulated by {name} (compute capability {major}.{minor}, of {BF16_SINCE}.0 "
            "that have it): fp16 is right there, by engine.name: torch, or fp32"
        )
    if wanted == "fp16" and major >= BF16_SINCE:
        yield f"engine.precision: fp16 is for GPUs without bf16; {name} has bf16, which needs no scaled loss"


def _slow_on_a_cpu(config: Config) -> Iterator[str]:
    if config.engine.precision == "bf16" and config.data.spatial_dims == 3:
        yield (
            "engine.precision: bf16 is slow for volumes on a CPU, where a step took ten times as long as in fp32 "
            "(docs/notes/benchmarks.md)"
        )


def check(config: Config) -> None:
    """Print remarks, and raise InputError with a line for each problem.

    In a project of `llm4seg init`, bring its code.json up to date.
    """
    if is_project(Path.cwd()):
        write_code_file(Path.cwd())
    for line in remarks(config):
        print(f"doctor: {line}", flush=True)
    if found := list(problems(config)):
        raise InputError("\ndoctor: ".join(found))


def main(words: Sequence[str] | None = None, prog: str = "python -m pipelines.doctor") -> None:
    """Exit 1 with a line for each problem."""
    run_stage("doctor", __doc__ or "", check, in_dvc=False, words=words, prog=prog)


if __name__ == "__main__":
    main()
