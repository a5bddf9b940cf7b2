"""A training on the GPU in a process of its own, and the most that it ever held there."""

import json
import subprocess
import sys
from pathlib import Path

from llm4seg.config import Config
from llm4seg.training.run import Row
from tests.import_graph import ROOT


def fit_on_gpu(config: Config, folder: Path) -> tuple[list[Row], int]:
    """The history, and the peak of bytes on the device, counted from before the model is built."""
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(config.plain()))
    command = [sys.executable, "-m", "tests.gpu.peak", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    history, peak = json.loads(done.stdout.splitlines()[-1])
    return history, peak


def main() -> None:
    """Trains as ordered; prints history and peak as the last line."""
    import torch

    from llm4seg.training.run import LocalRun, start_group_of_one
    from llm4seg.training.trainer import fit

    folder, device = Path(sys.argv[1]), torch.device("cuda", 0)
    config = Config.parse(json.loads((folder / "params.json").read_text()))
    start_group_of_one(device)
    torch.cuda.reset_peak_memory_stats()
    history = fit(config, LocalRun(folder / "run", device))
    print(json.dumps([history, torch.cuda.max_memory_allocated()]), flush=True)


if __name__ == "__main__":
    main()
