"""Random augmentation of a training batch, in 2-D and 3-D, on the batch's own device."""

import re
from collections.abc import Collection, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from llm4seg.config.schema import Augment
from llm4seg.data.augment_draws import Draws, Sides, draw, thin_axis
from llm4seg.data.elastic import deform
from llm4seg.data.intensity_augment import augment_intensities
from llm4seg.data.label_scheme import IGNORE
from llm4seg.data.prepared import Prepared
from llm4seg.utils.errors import InputError

OF_A_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


def augment(
    images_NCS: Tensor,
    labels_NS: Tensor,
    samples: list[int],
    section: Augment,
    seed: int,
    epoch: int,
    sides: Sides | None = None,
    spacing: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw for the samples of a batch, `transform` it, and change its values (`augment_intensities`)."""
    size = tuple(labels_NS.shape[1:])
    draws = draw(samples, section, size, images_NCS.shape[1], seed, epoch, sides, spacing)
    moved = displaced(draws)
    draws = draws.each(lambda tensor: tensor.to(images_NCS.device))
    images_NCS, labels_NS = transform(images_NCS, labels_NS, draws, sides, spacing, moved)
    return augment_intensities(images_NCS, samples, section, seed, epoch, thin_axis(size, spacing)), labels_NS


def displaced(draws: Draws) -> list[int] | None:
    """The samples with an elastic displacement, of draws on the CPU; None: there is none in the config."""
    return None if draws.amplitude is None else draws.amplitude.nonzero()[:, 0].tolist()


def transform(
    images_NCS: Tensor,
    labels_NS: Tensor,
    draws: Draws,
    sides: Sides | None = None,
    spacing: Sequence[float] | None = None,
    moved: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Flip, rotate, zoom, shift, deform, and change colors, gain and offset; linear for images, nearest for labels.

    The affine map and the elastic deformation are one resampling. Pixels from outside the image have the value of its
    border in the image, and background (0) in the labels; those from outside a patch of a volume, IGNORE. Of a sample
    that is mirrored along its axis of left and right, labels of a pair are exchanged (`sides`). Images are rotated in
    pixels, patches of volumes with a `spacing` in mm, and in the plane of their slices alone where those are few or far
    apart (`thin_axis`).

    It does the same whatever is drawn, and takes nothing from the host: a CUDA graph may record it. `moved`: the
    samples that have a displacement, where the host knows them, to spare the others one of zero.
    """
    size = tuple(labels_NS.shape[1:])
    if draws.exchanged is not None:
        assert sides is not None
        exchanged_NS = exchange_table(tuple(sides.pairs), labels_NS.device)[labels_NS.long()].to(labels_NS.dtype)
        labels_NS = torch.where(draws.exchanged.view(-1, *[1] * len(size)), exchanged_NS, labels_NS)
    grid = functional.affine_grid(draws.matrix, [*images_NCS.shape], align_corners=False)
    if draws.amplitude is not None:
        assert draws.spectrum is not None
        grid = deform(grid, draws.amplitude, draws.spectrum, thin_axis(size, spacing), moved)
    images = functional.grid_sample(images_NCS, grid, padding_mode="border", align_corners=False)
    labels = functional.grid_sample(labels_NS[:, None].to(images.dtype), grid, mode="nearest", align_corners=False)
    if spacing is not None:  # beyond a patch's border the organ may go on
        labels.masked_fill_((grid.abs() > 1).any(dim=-1)[:, None], IGNORE)
    if draws.color is not None:
        images = torch.einsum("nij,nj...->ni...", draws.color, images)
    gain, offset = (draws.gain[:, k].view(-1, *[1] * (images.ndim - 1)) for k in (0, 1))
    return images * gain + offset, labels[:, 0].to(labels_NS.dtype)


@cache
def exchange_table(pairs: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """The label that each label becomes when left and right are exchanged, int64 (IGNORE + 1,)."""
    table = torch.arange(IGNORE + 1)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table.to(device)


def check_turns(data: Prepared, section: Augment) -> None:
    """Refuse quarter turns of pixels that are not square: what is turned would be stretched."""
    if data.spacing is None:
        return
    rows, columns, _ = data.spacing
    try:
        section.check_pixels(rows, columns)
    except ValueError as error:
        raise InputError(str(error)) from None


def check_turned_flips(data: Prepared, cases: Sequence[str], section: Augment) -> None:
    """Refuse flips with turns after which a left organ looks like a right one, but keeps its label.

    In the plane that is turned, a flip along any axis is one of left and right and a turn. So only that one may be
    asked for, whose labels are exchanged; together with turns it gives all the same images.
    """
    plane = _turned_axes(section, data.spatial_dims)
    axes = {axis for case in cases if (axis := data.left_right_axis(case)) is not None and axis in plane}
    if has_sides(data) and axes and (more := set(section.flip) & plane - axes):
        raise InputError(
            f"training.augment.flip: found {[*section.flip]} with training.augment.{_turns(section)}, which together "
            f"exchange left and right, but not their labels; allowed: without {', '.join(map(str, sorted(more)))} "
            f"(axis {', '.join(map(str, sorted(axes)))} and turns give the same images), or without turns"
        )


def check_turned_mirroring(
    axes: Sequence[int], sides: Collection[int | None], section: Augment, dims: int, parameter: str
) -> None:
    """Refuse test-time mirroring by whose images a network that was trained with turns confuses left and right.

    `sides`: the axes along which classes of a side lie, none where no class has one; `section`: of the training. Such
    a network tells left from right in a turned image, too. As in `check_turned_flips`, one mirrored along another axis
    of the plane is one of left and right, turned, but its labels are not exchanged; along both, it is turned alone,
    but they are.
    """
    plane = _turned_axes(section, dims)
    if (own := set(sides) & plane) and (more := set(axes) & plane - own):
        raise InputError(
            f"{parameter}: found {[*axes]}, of a network that was trained with training.augment.{_turns(section)}, so "
            f"that left and right would be confused; allowed: without {', '.join(map(str, sorted(more)))}"
        )


def _turned_axes(section: Augment, dims: int) -> set[int]:
    """The axes within which images are turned so far that what lies along one may lie along any other."""
    return set(range(dims)) if section.rotate > 90 else {0, 1} if section.quarter_turns else set()


def _turns(section: Augment) -> str:
    return "quarter_turns" if section.quarter_turns else f"rotate: {section.rotate:g}"


def has_sides(data: Prepared) -> bool:
    """Whether there are classes of left and right."""
    return bool(data.paired) or any(OF_A_SIDE.search(name) for name in data.classes)


def check_flips(
    data: Prepared, cases: Sequence[str], flip: Sequence[int], parameter: str = "training.augment.flip"
) -> None:
    """Refuse flips of left and right with classes that are called so and have no counterpart."""
    paired = {data.classes[label - 1] for pair in data.paired for label in pair}
    astray = [name for name in data.classes if OF_A_SIDE.search(name) and name not in paired]
    if astray and {data.left_right_axis(case) for case in cases} & set(flip):
        raise InputError(
            f"{parameter}: found {[*flip]}, which exchanges left and right, but not the label {astray[0]}; "
            "allowed: data.paired with it and its counterpart, or other axes"
        )
