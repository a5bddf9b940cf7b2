"""The subject of an analysis: a trained model, its data, and what is needed to read its features."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm4seg.analysis.images import Piece
from llm4seg.analysis.places import Features, features_of
from llm4seg.analysis.units import Units
from llm4seg.data.prepared import Prepared
from llm4seg.models import Hybrid


@dataclass(frozen=True)
class Subject:
    """A trained model and the data as it reads them; `layers`: the numbers of its LLM layers; `block`: slices that are
    resampled together.
    """

    model: Hybrid
    data: Prepared
    layers: tuple[int, ...]
    block: int

    def features(self, piece: Piece) -> Features:
        """The features of an image, or a patch."""
        return features_of(self.model, piece.image, self.layers)

    def units(self, case_ids: Sequence[str]) -> Units:
        """The units of cases."""
        return Units.of(self.data, case_ids, self.block)
