"""Prediction for cases of prepared data: by the networks' grids, whatever those are, to the original image's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from llm4seg.config.schema import Evaluation
from llm4seg.data.prepared import Prepared
from llm4seg.inference.grid_logits import NetworkInput
from llm4seg.inference.mirroring import mirroring
from llm4seg.inference.predictor import Predictor
from llm4seg.inference.probabilities import mean_probabilities


@dataclass(frozen=True)
class Member:
    """A network, alone or of an ensemble, and the prepared data as it reads them."""

    network: nn.Module
    data: Prepared


class PreparedPredictor:
    """The networks of `members` in the section's way, before post-processing; the cases are the same for all members.

    Raises InputError for a region that `evaluation.tta` would mirror to none.
    """

    def __init__(self, members: Sequence[Member], section: Evaluation) -> None:
        self._members, data = tuple(members), members[0].data
        tta = mirroring(section.tta, data.paired, data.scheme)
        networks = [member.network for member in self._members]
        self._predictor = Predictor(networks, data.scheme, section.overlap, tta=tta)

    def labels(self, case_id: str) -> Tensor:
        """Labels uint8 (*shape) of a case at its original shape, on the CPU.

        Of data with a spacing, logits are computed by sliding windows on the volume's grid, which overlap by a share of
        the patch, and become labels in the part of the original volume that this grid covers; around it, there is
        background.
        """
        return self._predictor.labels(self._read(case_id))

    def probabilities(self, case_id: str) -> tuple[int, Iterator[Tensor]]:
        """Of a case at its original shape, the number of channels, and the probabilities of each in turn."""
        logits = self._predictor.logits(self._read(case_id))
        return logits[0].channels, mean_probabilities(logits, self._predictor.scheme)

    def _read(self, case_id: str) -> list[NetworkInput]:
        return [network_input(member.data, case_id) for member in self._members]


def network_input(data: Prepared, case_id: str) -> NetworkInput:
    """A case as a network reads it."""
    case = data.cases[case_id]
    image_CS, _ = data.resampled(case_id)
    left_right = data.left_right_axis(case_id)
    if case.grid is None:
        return NetworkInput(image_CS, case.shape, left_right=left_right)
    return NetworkInput(image_CS, case.shape, case.grid.crop, data.size, left_right)
