"""What is seen of a training while it runs, beside the rows of its epochs: each class's Dice, and pictures of cases."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from llm4seg.data.label_scheme import foreground
from llm4seg.data.prepared import Prepared
from llm4seg.objectives.losses import labels_from_logits

PICTURED = 2  # cases


@dataclass(frozen=True)
class Step:
    """A step that is done: the `step`-th of `steps` of an epoch (both from 1), with its loss over `images` images."""

    epoch: int
    step: int
    steps: int
    loss: float
    images: int


@dataclass(frozen=True)
class Snapshot:
    """A validation case as the network sees it, with what it predicts there; of a volume, the slice with most labels.

    `arrays`: image float16 (C, H, W), reference and predicted uint8 (H, W), as `pack` writes them: text, since Ray
    writes what workers report as JSON.
    """

    case: str
    arrays: str

    @classmethod
    def pack(cls, case: str, image: np.ndarray, reference: np.ndarray, predicted: np.ndarray) -> Self:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, image=image, reference=reference, predicted=predicted)
        return cls(case, base64.b64encode(buffer.getvalue()).decode("ascii"))

    def unpack(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        with np.load(io.BytesIO(base64.b64decode(self.arrays)), allow_pickle=False) as arrays:
            return dict(arrays)


@dataclass(frozen=True)
class Live:
    """What a validation tells beside its row: `epoch` from 1, the Dice by class (NaN: never occurs), some cases."""

    epoch: int
    dice: dict[str, float]
    snapshots: tuple[Snapshot, ...] = ()

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Of `dataclasses.asdict`."""
        return cls(values["epoch"], values["dice"], tuple(Snapshot(**one) for one in values["snapshots"]))


def snapshots(data: Prepared, cases: Sequence[str], logits_NKS: Tensor, labels_NS: Tensor) -> Iterator[Snapshot]:
    """Snapshots of the cases of a batch in which anything is labeled."""
    for place, case in enumerate(cases):
        logits_1KS, labels_S = logits_NKS[place : place + 1], labels_NS[place]
        labeled_S = foreground(labels_S)
        if not labeled_S.any():
            continue
        image_CS = data.resampled(case)[0]
        if labels_S.ndim == 3:  # of logits the slice alone: the labels of a whole volume's take as much memory again
            fullest = int(labeled_S.sum((0, 1)).argmax())
            image_CS, labels_S, logits_1KS = image_CS[..., fullest], labels_S[..., fullest], logits_1KS[..., fullest]
        yield Snapshot.pack(
            case,
            image=image_CS.cpu().numpy().astype(np.float16),
            reference=labels_S.cpu().numpy().astype(np.uint8),
            predicted=labels_from_logits(logits_1KS, data.scheme)[0].cpu().numpy(),
        )
