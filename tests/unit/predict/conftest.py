"""A model of pictures and one of volumes, with random weights, for tests of files in and out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llm4seg.config import Config
from pipelines.prepare import prepare
from pipelines.search import search
from pipelines.split import split as split_stage
from tests.lesion_volumes import VOLUMES, write_lesions
from tests.saved_model import save_random_model
from tests.tiny import tiny_config

SLICES: dict[str, Any] = {"data.spatial_dims": 2, "data.grid": "resize", "data.size": [32, 32]}
SLICES |= {"data.intensity": "zscore", "model.bottleneck": "identity", "search.trials": 0}


def saved_model(config: Config) -> Path:
    for stage in (prepare, split_stage, search):
        stage(config)
    return save_random_model(config)


@pytest.fixture(scope="session")
def slices_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of axial slices, with the classes `dark` and `bright`; raw/images beside it has volumes."""
    folder = tmp_path_factory.mktemp("slices")
    write_lesions(folder / "raw", 4)
    changes = VOLUMES | SLICES | {"data.root": str(folder / "raw")}
    return saved_model(tiny_config(folder).override(changes))


@pytest.fixture(scope="session")
def pictures_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of gray pictures, with the class `lesion`; raw/images beside it has some."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros((30, 36), np.uint8)
        labels[5 + number : 15 + number, 8:20] = 255
        image = (labels // 2 + random.integers(0, 60, labels.shape)).astype(np.uint8)
        for kind, values in (("images", image), ("masks", labels)):
            (folder / "raw" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / "raw" / kind / f"{number}.png")
    changes = {"data.dataset": "folder", "data.root": str(folder / "raw"), "data.classes": {"lesion": [255]}}
    changes |= {"data.size": [32, 32], "model.bottleneck": "identity", "search.trials": 0}
    return saved_model(tiny_config(folder).override(changes))
