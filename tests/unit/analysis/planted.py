"""Networks whose block does something known to the features, and images that show their masks to it alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.analysis.subject import Subject
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split
from llm4seg.models import Hybrid
from tests.finished_run import config_at, raw_case, write_cases

SIDE, CELL, WIDTH = 32, 4, 6  # pixels of an image, pixels of a token, features of a token
POOL: dict[int, Callable[..., Tensor]] = {2: functional.avg_pool2d, 3: functional.avg_pool3d}


class NoiseEncoder(nn.Module):
    """Features of the first channel, noise, at a quarter of the resolution; the second is kept for the block."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_NS: Tensor | None = None

    def forward(self, images_NCS: Tensor) -> list[Tensor]:
        pool = POOL[images_NCS.ndim - 2]
        self.mask_NS = pool(images_NCS[:, 1:], CELL)
        noise = [images_NCS[:, :1] ** power for power in range(1, WIDTH + 1)]
        return [images_NCS, torch.cat([pool(one, CELL) for one in noise], dim=1)]


class CopiesMask(nn.Module):
    """A block that adds the mask to one of its features."""

    def __init__(self, encoder: NoiseEncoder) -> None:
        super().__init__()
        self._encoder = [encoder]  # a list, so that it is no part of the block

    def forward(self, features_NCS: Tensor) -> Tensor:
        mask_NS = self._encoder[0].mask_NS
        assert mask_NS is not None
        return torch.cat([features_NCS[:, :-1], features_NCS[:, -1:] + 10 * mask_NS], dim=1)


class ShufflesTokens(nn.Module):
    """A block that then permutes the tokens, in each image otherwise."""

    def __init__(self, encoder: NoiseEncoder) -> None:
        super().__init__()
        self.copies = CopiesMask(encoder)

    def forward(self, features_NCS: Tensor) -> Tensor:
        tokens_NCT = self.copies(features_NCS).flatten(2)
        seed = int(1e6 * features_NCS.detach().abs().sum().item()) % 2**31
        order = torch.randperm(tokens_NCT.shape[2], generator=torch.Generator().manual_seed(seed))
        return tokens_NCT[..., order].reshape(features_NCS.shape)


class NoDecoder(nn.Module):
    """Two channels of logits from the coarsest features."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[2:]
        return self.scale * functional.interpolate(features[-1][:, :2], size=tuple(size))


def planted(block: type[CopiesMask | ShufflesTokens] | None) -> Hybrid:
    """A network with this block; None: without one."""
    encoder = NoiseEncoder()
    bottleneck = nn.Identity() if block is None else block(encoder)
    return Hybrid(encoder, bottleneck, NoDecoder(), (CELL, CELL)).eval()


def labels(number: int) -> np.ndarray:
    """Labels in whole cells: `round` in every image, `rare` in every third one."""
    random, whole = np.random.default_rng(number), np.zeros((SIDE, SIDE), np.uint8)
    row, column = (CELL * random.integers(0, 5, 2)).tolist()
    whole[row : row + 2 * CELL, column : column + 3 * CELL] = 1
    if number % 3 == 0:
        whole[row + 2 * CELL : row + 3 * CELL, column : column + 2 * CELL] = 2
    return whole


def planted_data(root: Path, cases: int = 40) -> tuple[Config, Prepared, Split]:
    """Images of as many patients, the first half to train on; one test image has nothing labeled."""
    few = {"analysis.shifts": 20, "evaluation.bootstrap": 100}
    config = config_at(root, {"data.size": [SIDE, SIDE], "data.intensity": "unit", **few})
    written = []
    for number in range(cases):
        own = np.zeros((SIDE, SIDE), np.uint8) if number == cases - 1 else labels(number)
        noise = np.random.default_rng(1000 + number).uniform(size=(SIDE, SIDE))
        written.append(raw_case(f"c{number}", own, np.stack([noise, own > 0]).astype(np.float32)))
    data = write_cases(config, written, ["round", "rare"])
    names = [f"c{number}" for number in range(cases)]
    half = cases // 2
    split = Split("by hand", 0, tuple(names[:half]), (), tuple(names[half:]), (), ())
    return config, data, split


def subject(model: Hybrid, data: Prepared) -> Subject:
    return Subject(model, data, (), 6)
