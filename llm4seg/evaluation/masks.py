"""`CaseMasks`: masks of prepared cases, predicted and post-processed."""

from collections.abc import Sequence

from torch import Tensor

from llm4seg.config.schema import Augment, Evaluation
from llm4seg.data.augment import check_flips, check_turned_mirroring, has_sides
from llm4seg.data.prepared import Prepared
from llm4seg.evaluation.volumes import are_slices, by_volume, not_whole, stacked, volume_name
from llm4seg.inference.mirroring import mirroring
from llm4seg.inference.postprocess import parse_steps, postprocess
from llm4seg.inference.prepared import Member, PreparedPredictor


def check_options(data: Prepared, section: Evaluation) -> None:
    """Raise InputError where `tta` or `postprocess` do not fit the data, before hours of training."""
    check_flips(data, [*data.cases], section.tta, "evaluation.tta")
    mirroring(section.tta, data.paired, data.scheme)
    parse_steps(section.postprocess, data.scheme)


def check_turned(data: Prepared, section: Evaluation, augmented: Augment | None) -> None:
    """Raise InputError where `tta` does not fit the turns of a network's training (see `check_turned_mirroring`).

    `augmented`: None where the training is not known.
    """
    if augmented is None:
        return
    sides = {data.left_right_axis(case_id) for case_id in data.cases} if has_sides(data) else set()
    check_turned_mirroring(section.tta, sides, augmented, data.spatial_dims, "evaluation.tta")


class CaseMasks:
    """Masks of some cases by one network or several, as the section says.

    `of_volumes`: whether the cases are slices of whole volumes; post-processing is of these then, else of each case.
    Raises InputError where the section's options do not fit the data.
    """

    def __init__(self, members: Sequence[Member], case_ids: Sequence[str], section: Evaluation) -> None:
        self._data, self._case_ids = members[0].data, tuple(case_ids)
        check_flips(self._data, case_ids, section.tta, "evaluation.tta")
        self._predictor = PreparedPredictor(members, section)
        self._steps = parse_steps(section.postprocess, self._data.scheme)
        self.of_volumes = are_slices(self._data, case_ids) and not_whole(self._data, case_ids) is None

    def of(self, case_ids: Sequence[str]) -> dict[str, Tensor]:
        """Labels uint8 (*shape) of all cases of one volume, or of some that are no slices."""
        masks = {case_id: self._predictor.labels(case_id) for case_id in case_ids}
        if not self._steps:
            return masks
        if not self.of_volumes or self._data.cases[case_ids[0]].volume_slices in (None, 1):
            return {case_id: postprocess(mask, self._steps, self._data.scheme) for case_id, mask in masks.items()}
        volume_S = postprocess(stacked(self._data, masks), self._steps, self._data.scheme)
        return {case_id: volume_S[..., self._data.cases[case_id].position].contiguous() for case_id in masks}

    def of_case(self, case_id: str) -> Tensor:
        """Labels uint8 (*shape) of a case, for which its whole volume is predicted where post-processing needs it."""
        members = [case_id]
        if self._steps and self.of_volumes:
            members = by_volume(self._data, self._case_ids)[volume_name(self._data.cases[case_id])]
        return self.of(members)[case_id]
