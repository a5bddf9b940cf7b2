"""Units: what a bootstrap resamples and what the probe's folds keep together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from llm4seg.data.prepared import Prepared
from llm4seg.evaluation.summary import ENOUGH_GROUPS


@dataclass(frozen=True)
class Units:
    """The unit of each case: as in a study, a patient (`group`) where there are five or more; else a block of
    neighboring slices, which resemble each other, where all cases are slices; else a case.
    """

    kind: str  # group | block | case
    by_case: dict[str, str]
    groups: int
    block: int  # slices in a block

    @classmethod
    def of(cls, data: Prepared, case_ids: Sequence[str], block: int) -> Self:
        cases = [data.cases[case_id] for case_id in case_ids]
        groups = {case.group for case in cases}
        if len(groups) >= ENOUGH_GROUPS:
            return cls("group", {case.id: case.group for case in cases}, len(groups), block)
        if all(case.volume is not None and case.position is not None for case in cases):
            blocks = {case.id: f"{case.volume} {int(case.position or 0) // block}" for case in cases}
            return cls("block", blocks, len(groups), block)
        return cls("case", {case.id: case.id for case in cases}, len(groups), block)

    @property
    def words(self) -> str:
        """What a unit is called."""
        return {"group": "patients", "block": f"blocks of {self.block} neighboring slices", "case": "images"}[self.kind]

    def caution(self) -> str | None:
        """A warning where intervals are not about other patients."""
        if self.kind == "group" or self.groups == len(self.by_case):
            return None
        whose = "one patient or volume" if self.groups == 1 else f"{self.groups} patients or volumes"
        return (
            f"All {len(self.by_case)} images are of {whose}: the intervals are over {self.words}, and say nothing of "
            "other patients."
        )
