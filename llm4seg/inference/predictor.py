"""`Predictor`: from network inputs to labels and probabilities at the images' own resolution, by one network or more.

Labels of one network are those of its logits; of several, those of the mean of their probabilities.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.grid_logits import GridLogits, NetworkInput, SliceLogits
from llm4seg.inference.mirroring import Mirroring
from llm4seg.inference.probabilities import labels_of, mean_probabilities
from llm4seg.inference.sliding_window import sliding_window_logits

Slice = Sequence[NetworkInput] | None  # a slice as each network reads it; None: it is background


@torch.no_grad()
def network_logits(network: nn.Module, read: Sequence[NetworkInput], overlap: float = 0.5) -> list[Tensor]:
    """The logits (K, *size) float32 of images of one size, which pass the network together.

    With a patch, image after image in windows, which overlap by a share of it. The network is set to evaluation mode
    and runs on the device of its weights.
    """
    if network.training:  # eval() visits all modules: some percent of a small network's time
        network.eval()
    if read[0].patch is not None:
        return [sliding_window_logits(network, one.image, one.patch, overlap) for one in read if one.patch]
    device = next(network.parameters()).device
    images_NCS = torch.stack([one.image for one in read]).to(device)
    return [*network(images_NCS).float()]


class Predictor:
    """One network, or an ensemble of networks with equal channels of logits, which `scheme` explains.

    Images are given as each network reads them, in the order of the networks. `overlap`: of windows; `batch`: slices of
    a volume that pass a network together, which lie alike; `tta`: see `Mirrored`.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        scheme: LabelScheme | None = None,
        overlap: float = 0.5,
        batch: int = 1,
        tta: Mirroring | None = None,
    ) -> None:
        self.networks, self.scheme, self.overlap, self.batch, self.tta = tuple(networks), scheme, overlap, batch, tta

    def labels(self, read: Sequence[NetworkInput]) -> Tensor:
        """Labels uint8 (*shape) of an image, on the CPU."""
        return self.labels_of(self.logits(read))

    def logits(self, read: Sequence[NetworkInput]) -> list[GridLogits]:
        """The logits of an image by each network."""
        return self._logits([read])[0]

    def probabilities(self, read: Sequence[NetworkInput]) -> Iterator[Tensor]:
        """Of an image, the probabilities of each channel of the logits in turn (see `mean_probabilities`)."""
        return mean_probabilities(self.logits(read), self.scheme)

    def slice_labels(self, slices: Iterable[Slice], shape: Sequence[int]) -> Tensor:
        """Labels uint8 (*shape) of a volume from its slices across the last axis, on the CPU."""
        labels_S = torch.zeros(tuple(shape), dtype=torch.uint8)
        for position, logits in self._slice_logits(slices):
            if logits is not None:
                labels_S[..., position] = self.labels_of(logits)
        return labels_S

    def slice_probabilities(self, slices: Iterable[Slice], shape: Sequence[int], channels: int) -> Iterator[Tensor]:
        """Of a volume, the probabilities of each channel of the logits, in turn; logits are kept at their size."""
        by_position = dict(self._slice_logits(slices))
        networks = []
        for place in range(len(self.networks)):
            own = {position: logits[place] for position, logits in by_position.items() if logits is not None}
            networks.append(SliceLogits(own, tuple(shape), channels, self.scheme))
        return mean_probabilities(networks, self.scheme)

    def _slice_logits(self, slices: Iterable[Slice]) -> Iterator[tuple[int, list[GridLogits] | None]]:
        """The position of each slice, and its logits by each network."""
        waiting: list[tuple[int, Sequence[NetworkInput]]] = []
        for position, read in enumerate(slices):
            if read is None:
                yield position, None
                continue
            waiting.append((position, read))
            if len(waiting) == self.batch:
                yield from self._of_batch(waiting)
                waiting = []
        yield from self._of_batch(waiting)

    def _of_batch(
        self, slices: Sequence[tuple[int, Sequence[NetworkInput]]]
    ) -> Iterator[tuple[int, list[GridLogits] | None]]:
        logits = self._logits([read for _, read in slices])
        yield from zip((position for position, _ in slices), logits, strict=True)

    def _logits(self, images: Sequence[Sequence[NetworkInput]]) -> list[list[GridLogits]]:
        """The logits of each image by each network."""
        by_network = []
        for place, network in enumerate(self.networks if images else ()):
            read = [image[place] for image in images]
            run = network if self.tta is None else self.tta.of(network, read[0].left_right)
            logits = network_logits(run, read, self.overlap)
            by_network.append([GridLogits(one, its, self.scheme) for one, its in zip(logits, read, strict=True)])
        return [list(of_image) for of_image in zip(*by_network, strict=True)]

    def labels_of(self, logits: Sequence[GridLogits]) -> Tensor:
        """Labels uint8 (*shape) of an image's logits by each network, on the CPU."""
        if len(logits) == 1:
            return logits[0].labels()
        return labels_of(mean_probabilities(logits, self.scheme), logits[0].channels, self.scheme)


def predict_case(
    model: nn.Module,
    image_CS: Tensor,
    shape: Sequence[int],
    scheme: LabelScheme | None = None,
    patch: Sequence[int] | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """Labels uint8 (*shape) of one normalized image (C, *size) by one network, on the CPU (see `Predictor`)."""
    read = NetworkInput(image_CS, tuple(shape), patch=None if patch is None else tuple(patch))
    return Predictor([model], scheme, overlap).labels([read])
