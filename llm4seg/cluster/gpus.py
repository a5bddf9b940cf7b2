"""GPUs of this machine that a run may use: `cluster.gpus`, as CUDA_VISIBLE_DEVICES of this process and its children."""

import os
import re
import subprocess
from collections.abc import Mapping

from llm4seg.config.schema import Cluster
from llm4seg.utils.errors import InputError

DEVICES = "CUDA_VISIBLE_DEVICES"
# lines of `nvidia-smi -L`: a GPU with its index, or a part of the GPU above it (MIG) without one
LISTED = re.compile(r"(?:GPU (?P<index>\d+)|\s+MIG .*):.*\(UUID: (?P<uuid>(?:GPU|MIG)-[^)]+)\)")
SECONDS = 60  # for nvidia-smi to answer, which loads the driver where nothing else uses a GPU


def choose_gpus(section: Cluster) -> None:
    """Show CUDA, in this process and all that it starts, only `cluster.gpus`; call it before CUDA is initialised.

    Where CUDA_VISIBLE_DEVICES is set, only devices in it may be chosen. Does nothing where `cluster.gpus` is null, or
    `cluster.device` is cpu. Raises InputError naming `cluster.gpus`.
    """
    if section.gpus is None or section.device == "cpu":
        return
    allowed = _visible(listed_gpus())
    found = {wanted: _match(wanted, allowed) for wanted in section.gpus}
    if missing := [wanted for wanted, uuid in found.items() if uuid is None]:
        within = f" of {DEVICES}={os.environ[DEVICES]}" if DEVICES in os.environ else ""
        raise InputError(
            f"cluster.gpus: found {', '.join(map(str, missing))}, allowed: "
            + (f"{', '.join(allowed.values())}{within}" if allowed else f"null, since nvidia-smi lists no GPU{within}")
        )
    if len({*found.values()}) < len(found):
        raise InputError(f"cluster.gpus: found {', '.join(map(str, found))}, allowed: each GPU once")
    # CUDA reads all names as the first: behind an index it takes no UUID
    mixed = len({type(wanted) for wanted in found}) > 1
    names = map(str, found.values() if mixed else found)
    # by default CUDA counts the fastest first, nvidia-smi by the bus
    os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", DEVICES: ",".join(names)}


def listed_gpus() -> dict[str, str]:
    """Each GPU of `nvidia-smi -L`, and each part of one (MIG): UUID and index; a part has its UUID for an index."""
    command = ["nvidia-smi", "-L"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):  # no driver here
        return {}
    found = [match for match in map(LISTED.match, lines) if match is not None]
    return {match["uuid"]: match["index"] or match["uuid"] for match in found}


def _visible(there: Mapping[str, str]) -> Mapping[str, str]:
    """Those that CUDA_VISIBLE_DEVICES shows; all where it is not set."""
    if DEVICES not in os.environ:
        return there
    named = [_match(name.strip(), there) for name in os.environ[DEVICES].split(",")]
    return {uuid: there[uuid] for uuid in named if uuid is not None}


def _match(name: int | str, there: Mapping[str, str]) -> str | None:
    """The UUID of the device of this index, or whose UUID begins so, as CUDA takes it; None: none or several."""
    found = [uuid for uuid, index in there.items() if str(name) == index or (name and uuid.startswith(str(name)))]
    return found[0] if len(found) == 1 else None
