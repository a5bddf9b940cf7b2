"""Patches of volumes: where the patch of each sample lies.

A patch follows from (seed, epoch, sample) alone, never from a worker's random state, so that it is the same on every
number of workers and after a resume.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llm4seg.config.schema import Patch
from llm4seg.data.loader import to_device
from llm4seg.data.prepared import Prepared

HOST = torch.device("cpu")
STREAM = 100  # of random numbers; those below are the augmentations'


def patch_start(data: Prepared, case_id: str, section: Patch, random: np.random.Generator) -> tuple[int, ...]:
    """Where a patch of the size `data.size` begins on a case's grid, along each axis.

    With the chance `section.share`, the patch is around a labeled voxel, moved inside the volume where it would hang
    over, as by MONAI's RandCropByPosNegLabel; else, and where nothing is labeled, anywhere inside. Along an axis
    shorter than the patch, the volume is in the middle.
    """
    shape = data.cases[case_id].on_grid.shape
    room = [side - length for side, length in zip(shape, data.size, strict=True)]
    anywhere = [int(random.integers(most + 1)) if most > 0 else -(-most // 2) for most in room]
    on_foreground = bool(random.random() < section.share) and section.foreground != "none"
    voxel = _labeled_voxel(data, case_id, section, random) if on_foreground else None
    if voxel is None:
        return tuple(anywhere)
    around = (place - length // 2 for place, length in zip(voxel, data.size, strict=True))
    return tuple(
        min(max(start, 0), most) if most > 0 else middle
        for start, most, middle in zip(around, room, anywhere, strict=True)
    )


def _labeled_voxel(data: Prepared, case_id: str, section: Patch, random: np.random.Generator) -> list[int] | None:
    """Any labeled voxel of a case, all as likely; or by `class` one of a class, all classes of the case as likely."""
    counts = data.cases[case_id].on_grid.voxels
    labels = list(counts)
    if not labels:
        return None
    if section.foreground == "class":
        scheme = data.scheme
        covered = [set(scheme.covered(place)) & counts.keys() for place in range(len(scheme.classes))]
        present = [sorted(one) for one in covered if one]
        labels = present[int(random.integers(len(present)))]
    weights = np.array([counts[label] for label in labels], dtype=float)
    label = labels[int(random.choice(len(labels), p=weights / weights.sum()))]
    voxels_V3 = data.labeled_voxels(case_id)[label]
    place: list[int] = voxels_V3[int(random.integers(len(voxels_V3)))].tolist()
    return place


def load_patches(
    data: Prepared,
    case_ids: Sequence[str],
    samples: Sequence[int],
    section: Patch,
    seed: int,
    epoch: int,
    device: torch.device = HOST,
) -> tuple[Tensor, Tensor]:
    """Images (N, C, *size) float32 and labels (N, *size) int64 on `device`: a patch of the case of each sample."""
    patches = []
    for case_id, sample in zip(case_ids, samples, strict=True):
        random = np.random.default_rng([seed, epoch, sample, STREAM])
        patches.append(data.patch(case_id, patch_start(data, case_id, section, random)))
    images, labels = zip(*patches, strict=True)
    return to_device(torch.stack(images), device), to_device(torch.stack(labels), device).long()
