"""Pairs of images and masks by patterns of their paths, as in `images/img{id}.nii.gz` and `labels/label{id}.nii.gz`."""

import re
from dataclasses import dataclass
from pathlib import Path

from llm4seg.datasets.case_files import composed
from llm4seg.datasets.folder_files import ALL_CHANNELS, Found, entries, pairs_of
from llm4seg.datasets.layouts import shown
from llm4seg.utils.errors import InputError

_PLACES = re.compile(r"(\{id\}|\{channel\}|\*)")


@dataclass(frozen=True)
class _Match:
    path: Path
    id: str
    channel: str


def cases_by_pattern(root: Path, image: str, mask: str, apart: Path | None = None) -> list[Found]:
    """The cases of which both patterns find files below `root`, in the order of their paths; none below `apart`.

    {id} and {channel} are any text within a name, as long as possible and the same wherever they stand in a path; `*`
    is any text, too. Raises InputError where a pattern finds nothing, for an image without a mask, a mask without an
    image, and two files of one case and channel.
    """
    images = _matches(root, image, "data.folder.image", apart)
    masks = _matches(root, mask, "data.folder.mask", apart)
    images, masks = _told_apart(images, masks, (image, mask))
    files: dict[str, dict[str, Path]] = {}
    for one in images:
        _add(files.setdefault(one.id, {}), one)
    masks_of: dict[str, dict[str, Path]] = {}
    for one in masks:
        _add(masks_of.setdefault(one.id, {}), one)
    lacks = (f"{root} has no {mask}", f"{root} has no {image}")
    return pairs_of(files, {name: [*paths.values()] for name, paths in masks_of.items()}, lacks)


def _matches(root: Path, pattern: str, parameter: str, apart: Path | None) -> list[_Match]:
    """The files, or folders of DICOM files, whose path below `root` a pattern describes."""
    parts, wanted = pattern.split("/"), f"data.root must hold {pattern}"
    level, matches = [(root, "")], []  # folders, and their paths below `root` as patterns have them
    for depth in range(1, len(parts) + 1):
        expression = re.compile(_expression("/".join(parts[:depth])), re.DOTALL)
        inside = [(path, f"{prefix}{composed(path)}") for folder, prefix in level for path in entries(folder, wanted)]
        matches = [
            (path, match)
            for path, name in inside
            if path != apart and (match := expression.fullmatch(name)) is not None
        ]
        if depth < len(parts):
            matches = [(path, match) for path, match in matches if path.is_dir()]
        if not matches:
            where = level[0][0]
            raise InputError(f"{parameter}: found no {pattern} in {root}; {where} holds {shown(where)}")
        level = [(path, f"{match[0]}/") for path, match in matches]
    return [_Match(path, match["id"], match.groupdict().get("channel", ALL_CHANNELS)) for path, match in matches]


def _expression(pattern: str) -> str:
    """A pattern as a regular expression."""
    text, known = "", set()
    for part in _PLACES.split(pattern):
        name = part.strip("{}")
        if not _PLACES.fullmatch(part):
            text += re.escape(part)
        elif part == "*":
            text += "[^/]*"
        else:
            text += f"(?P={name})" if name in known else f"(?P<{name}>[^/]+)"
            known.add(name)
    return text


def _told_apart(
    images: list[_Match], masks: list[_Match], patterns: tuple[str, str]
) -> tuple[list[_Match], list[_Match]]:
    """Images that are no masks, and the reverse: of a file that both patterns find, the one with more text decides.

    `{id}.nii.gz` also finds what `{id}_seg.nii.gz` does. Raises InputError where both have as much text.
    """
    both = {one.path for one in images} & {one.path for one in masks}
    if not both:
        return images, masks
    image, mask = (len(_PLACES.sub("", pattern)) for pattern in patterns)
    if image == mask:
        raise InputError(
            f"{min(both)}: found by data.folder.image, {patterns[0]}, and data.folder.mask, {patterns[1]}; allowed: "
            "patterns that tell images from masks"
        )
    if image < mask:
        return [one for one in images if one.path not in both], masks
    return images, [one for one in masks if one.path not in both]


def _add(files: dict[str, Path], one: _Match) -> None:
    if one.channel in files:
        of_channel = f", channel {one.channel!r}" if one.channel else ""
        raise InputError(f"{one.path}: duplicate case id {one.id!r}{of_channel}, also {files[one.channel]}")
    files[one.channel] = one.path
