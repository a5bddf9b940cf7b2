"""`LabelScheme`: what the labels of a mask mean: classes, overlapping regions, and pixels that count nowhere."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:  # torch is needed by no stage before training
    from torch import Tensor

IGNORE = 255  # the label of ignored pixels, in every mask


@dataclass(frozen=True)
class LabelScheme:
    """The classes of a mask of labels uint8 and the labels that each covers; as nnU-Net's LabelManager.

    Without `regions`, class k (from 0) is the label k + 1. With them, class k is the pixels of the labels
    `regions[k]`; regions may overlap, are predicted by a sigmoid each, and become labels in the order of the classes:
    where region k is predicted, `regions_class_order[k]` is written over what is there. `ignore`: whether masks may
    hold IGNORE, whose pixels count in no loss and no metric.

    Raises ValueError where a perfect prediction of the regions would not become labels of the same regions.
    """

    classes: tuple[str, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    regions_class_order: tuple[int, ...] = ()
    ignore: bool = False

    def __post_init__(self) -> None:
        for label in sorted({label for region in self.regions for label in region}):
            ordered = zip(self.regions_class_order, self.regions, strict=True)
            last = [order for order, region in ordered if label in region][-1]
            own, written = self._regions_of(label), self._regions_of(last)
            if own != written:
                raise ValueError(
                    f"a pixel of {' and '.join(own)} would become one of {' and '.join(written)}, as later regions "
                    "overwrite earlier ones"
                )

    def _regions_of(self, label: int) -> list[str]:
        return [name for name, region in zip(self.classes, self.regions, strict=True) if label in region]

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Of what `plain` gives, and of what files of earlier versions have: classes alone."""
        regions = tuple(tuple(region) for region in values.get("regions", ()))
        order = tuple(values.get("regions_class_order", ()))
        return cls(tuple(values["classes"]), regions, order, values.get("ignore", False))

    def plain(self) -> dict[str, Any]:
        """Entries for a JSON file; regions and ignore only where there are any."""
        entries: dict[str, Any] = {"classes": list(self.classes)}
        if self.regions:
            entries["regions"] = [list(region) for region in self.regions]
            entries["regions_class_order"] = list(self.regions_class_order)
        return entries | ({"ignore": True} if self.ignore else {})

    @property
    def labels(self) -> int:
        """The number of labels beside background; they are 1 to this number."""
        return max(label for region in self.regions for label in region) if self.regions else len(self.classes)

    def covered(self, place: int) -> tuple[int, ...]:
        """The labels that the class at this place covers."""
        return self.regions[place] if self.regions else (place + 1,)

    def counts(self, labels_S: np.ndarray) -> dict[str, int]:
        """The pixels of each class."""
        # row by row: bincount makes integers of 8 bytes of what it counts, which of a volume would be two of float32
        of_label = np.sum([np.bincount(row.ravel(), minlength=IGNORE + 1) for row in labels_S], axis=0)
        return {name: int(of_label[[*self.covered(place)]].sum()) for place, name in enumerate(self.classes)}

    def masks(self, labels_NS: "Tensor") -> "list[Tensor]":
        """The pixels of each class, boolean."""
        masks = []
        for place in range(len(self.classes)):
            first, *others = self.covered(place)
            mask_NS = labels_NS == first  # comparisons: labels for `isin` would be copied from the host in each step
            for label in others:
                mask_NS = mask_NS | (labels_NS == label)
            masks.append(mask_NS)
        return masks

    def without_ignored(self, predicted_NS: "Tensor", labels_NS: "Tensor") -> "tuple[Tensor, Tensor]":
        """A prediction and its reference with background in both where the reference is ignored."""
        if not self.ignore:
            return predicted_NS, labels_NS
        ignored_NS = labels_NS == IGNORE
        return predicted_NS.masked_fill(ignored_NS, 0), labels_NS.masked_fill(ignored_NS, 0)

    def drawn(self, labels_S: np.ndarray) -> np.ndarray:
        """For pictures: at each pixel the place of its class from 1 on, of several the last; 0 where there is none."""
        classes_S = np.zeros_like(labels_S)
        for place in range(len(self.classes)):
            classes_S[np.isin(labels_S, self.covered(place))] = place + 1
        return classes_S


def foreground(labels: "np.ndarray | Tensor") -> Any:
    """Where a mask has a label that is neither background nor ignored, boolean."""
    return (labels > 0) & (labels != IGNORE)
