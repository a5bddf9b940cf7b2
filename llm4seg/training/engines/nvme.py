"""A check that DeepSpeed can move tensors to a folder and back here, before a training depends on it.

Where it cannot, its op ends the process with a signal: containers limit locked memory, some kernels have no
asynchronous I/O, some file systems no direct access. So it is tried in a subprocess.
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock

from llm4seg.training.engines.accelerator import import_for
from llm4seg.utils.errors import InputError

OPS = ("async_io", "pin_memory")
TRIAL = f"from {__name__} import trial; trial()"
TRIED = 2**20  # bytes written and read; as many bytes are locked as in training


def check(folder: Path, size: int, device: torch.device) -> None:
    """Build DeepSpeed's op, lock `size` bytes of memory and move some of them to this process's folder and back.

    Raises InputError if that cannot be done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", TRIAL, str(folder), str(size), device.type]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        reason = _reason(result.returncode, result.stderr, size)
        raise InputError(f"engine.offload: nvme does not work in {folder.parent}: {reason}; allowed: cpu, or none")


def _reason(code: int, stderr: str, size: int) -> str:
    if "mlock failed" in stderr:
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        allowed = "any amount" if limit == resource.RLIM_INFINITY else f"{limit / 1e6:.3g} MB"
        return (
            f"{size / 1e6:.0f} MB of memory are to be locked, and `ulimit -l` allows {allowed} (a container "
            "gets more by `--ulimit memlock=-1`, a pod by the capability IPC_LOCK)"
        )
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"DeepSpeed's reader ended with {how}: {last.strip()}"


def trial() -> None:
    """The subprocess. Arguments: the folder, the bytes to lock, the type of device."""
    folder, size, device = Path(sys.argv[1]), int(sys.argv[2]), torch.device(sys.argv[3])
    file = folder / f"trial-{os.getpid()}"
    import_for(device)
    handle = _op().aio_handle()
    locked = handle.new_cpu_locked_tensor(max(size, TRIED), torch.empty(0, dtype=torch.uint8))[:TRIED]
    wanted = torch.arange(TRIED, dtype=torch.int64).remainder(251).to(torch.uint8)
    try:
        wrote = handle.sync_pwrite(locked.copy_(wanted), str(file), 0)
        read = handle.sync_pread(locked.zero_(), str(file), 0)
    finally:
        file.unlink(missing_ok=True)
    if (wrote, read) != (1, 1) or not torch.equal(locked.to(device).cpu(), wanted):
        raise SystemExit("what was read is not what was written")


def _op() -> Any:
    """DeepSpeed's op, built by one process at a time."""
    from deepspeed.ops.op_builder import AsyncIOBuilder
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "llm4seg.lock"):
        unlock(root)
        return AsyncIOBuilder().load(verbose=False)


def unlock(root: Path) -> None:
    """Delete the locks of builds that were killed, for which torch would wait forever; running builds keep theirs."""
    running = {process.info["cwd"] for process in psutil.process_iter(["cwd"])}
    for lock in root.rglob("lock"):
        if lock.parent.name in OPS and str(lock.parent) not in running:
            lock.unlink(missing_ok=True)
