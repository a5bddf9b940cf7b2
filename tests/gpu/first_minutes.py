"""Steps of first_minutes.sh, each of which prints what it found as one line."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

NO_GPU = "no GPU"
# of tests/gpu/test_offload_on_gpu.py: an LLM layer of seven matrices of 64 MiB, trained with ZeRO 3
WIDE: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
ZERO_3 = {"engine.zero": 3, "optimizer.name": "sgd", "optimizer.lr": 0.01, "training.epochs": 1}
# size, epochs and steps of the benchmark of speed
SPEED = {"cuda": ("small", "2", "24"), "cpu": ("2x32", "1", "3")}
LOCKED = 2**26  # bytes: one of those matrices


def machine(device: str) -> str:
    """The device, its driver, torch and CUDA."""
    import torch

    if not torch.cuda.is_available():
        return f"{NO_GPU}, torch {torch.__version__}"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[:1]
    count = torch.cuda.device_count()
    return (
        f"{count} x {torch.cuda.get_device_name()}, driver {' '.join(driver) or 'unknown'}, "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def memory(device: str) -> str:
    """The most that a training with a wide LLM layer holds on the GPU, with and without offload."""
    if device == "cpu":
        return NO_GPU
    from tests.gpu.peak import fit_on_gpu
    from tests.tiny import prepare_workspace
    from tests.tiny_llm import tiny_store

    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = tiny_store(folder / "wide", (1,), **WIDE, head_dim=128, num_hidden_layers=2)
        changes = {"paths.llm_used": str(store.folder), "model.llm.weights": "random"}
        config = prepare_workspace(folder / "workspace").override(ZERO_3 | changes)
        for place in ("none", "cpu"):
            _, peak = fit_on_gpu(config.override({"engine.offload": place}), folder / place)
            peaks[place] = f"offload {place}: {peak / 2**20:.0f} MiB"
    return ", ".join(peaks.values())


def speed(device: str) -> str:
    """Images a second and launches a step of `fit` and of the naive loop, by the benchmark of speed."""
    size, rounds, steps = SPEED[device]
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "speed.json"
        command = [sys.executable, "-m", "tests.benchmarks.speed", "--device", device, "--ways", "naive", "ours"]
        command += ["--size", size, "--rounds", rounds, "--steps", steps, "--json", str(file)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise InputError(_last(done.stderr))
        (result,) = json.loads(file.read_text())["results"]
    return _compared(result["ways"])


def _compared(ways: dict[str, Any]) -> str:
    fit, naive = ways["ours"], ways["naive"]
    return (
        f"{fit['images_s']:.1f} and {naive['images_s']:.1f} images/s ({fit['times']:.2f} times), "
        f"{fit['launches']:.0f} and {naive['launches']:.0f} launches a step, "
        f"{fit['syncs']:.0f} and {naive['syncs']:.0f} waits"
    )


def launches(device: str) -> str:
    """The launches of a forward pass, loss and backward pass as on CUDA, and how many are allowed."""
    import torch

    from llm4seg.training.run import start_group_of_one
    from tests.benchmarks.launches import BUDGET, count_default

    start_group_of_one(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name:
        return f"{count_default(Path(name)).launches().total()}, allowed: {BUDGET}"


def nvme(device: str) -> str:
    """Whether DeepSpeed moves tensors to a file and back, which the trial before a training tells."""
    import torch

    from llm4seg.training.engines.nvme import check

    with tempfile.TemporaryDirectory() as name:
        check(Path(name) / "nvme", LOCKED, torch.device(device))
    return f"moved to a file and back, from {device}"


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing was said")


STEPS = {"machine": machine, "memory": memory, "speed": speed, "launches": launches, "nvme": nvme}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.first_minutes",
        description=__doc__,
        epilog="example: python -m tests.gpu.first_minutes speed --device cpu",
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="(default: %(default)s)")
    given = parser.parse_args()
    try:
        print(STEPS[given.step](given.device), flush=True)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
