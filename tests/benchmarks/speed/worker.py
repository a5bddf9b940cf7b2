"""The process of a way: it reads commands from its standard input, a line each, and writes a line of JSON for each.

`epoch` trains, validates and saves, and answers with seconds and page faults; `count` does so, slowly, and answers with
launches and reads by the host of a training step.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llm4seg.config import Config
from llm4seg.runtime.seeding import set_deterministic
from tests.benchmarks.default import PARAMS
from tests.benchmarks.speed.counts import counted, page_faults, peak_mb
from tests.benchmarks.speed.loops import Timed, build
from tests.benchmarks.speed.ways import WAYS


@contextmanager
def measured(device: torch.device, into: dict[str, float], part: str) -> Iterator[None]:
    """Puts the seconds of a part into a dictionary; of training also the processor's seconds and the page faults."""
    faults, processor, began = page_faults(), time.process_time(), time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    into[part] = time.perf_counter() - began
    if part == "train":
        into["processor"], into["faults"] = time.process_time() - processor, page_faults() - faults


@contextmanager
def counting(device: torch.device, into: dict[str, float], part: str) -> Iterator[None]:
    """Counts of training alone."""
    if part != "train":
        yield
        return
    with counted(device) as found:
        yield
    into.update(found)


def serve(order: dict[str, Any], reply: Any) -> None:
    way, device = WAYS[order["way"]], torch.device(order["device"])
    torch.set_num_threads(order["threads"])
    if way.loop != "ours":
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)  # which importing this project has set
        if order["deterministic"]:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            set_deterministic(device)
    config = Config.load(PARAMS).override(order["changes"])
    loop = build(way, config, Path(order["folder"]), device)
    reply({"ready": True})
    for number, line in enumerate(sys.stdin):
        found: dict[str, float] = {}
        part: Timed = partial(counting if line.strip() == "count" else measured, device, found)
        loop.epoch(number, part)
        reply(found | {"peak": peak_mb(device)})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def reply(found: dict[str, float]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(json.loads(sys.argv[1]), reply)


if __name__ == "__main__":
    main()
