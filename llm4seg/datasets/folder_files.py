"""The files of a case of the dataset `folder`, and those of a folder in which they lie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm4seg.datasets.layouts import looks_like
from llm4seg.utils.errors import InputError

_JUNK = ("thumbs.db", "desktop.ini")  # of Windows; what begins with a dot is macOS's
_PARTS = (".raw", ".zraw")  # of .mhd and .nhdr, which name them
ALL_CHANNELS = ""  # the channel of a file that holds all of a case's


@dataclass(frozen=True)
class Found:
    """A case's image files by channel, in their order, and its masks."""

    id: str
    images: dict[str, Path]
    masks: tuple[Path, ...]

    @property
    def first(self) -> Path:
        return next(iter(self.images.values()))


def entries(folder: Path, wanted: str = "data.root must hold images/ and masks/") -> list[Path]:
    """What lies in a folder, by name, but for hidden files, junk and parts of other files.

    Raises InputError where there is no such folder, saying what is `wanted`.
    """
    if not folder.is_dir():
        hint = "; workspaces of `dvc exp run --temp` and `--queue` hold what is committed: `dvc add` it, and commit"
        like = looks_like(folder.parent, but="folder")
        raise InputError(
            f"{folder}: no such folder ({wanted})"
            + hint * (".dvc/tmp/exps" in folder.as_posix())
            + (f"; {folder.parent} {like}" if like else "")
        )
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and not path.name.lower().endswith((*_JUNK, *_PARTS))
    )


def pairs_of(
    images: Mapping[str, Mapping[str, Path]],
    masks: Mapping[str, Sequence[Path]],
    lacks: tuple[str, str],
) -> list[Found]:
    """The image files and masks of each case. Raises InputError for an image without a mask, and the reverse.

    `lacks`: where there is no mask, and where there is no image, of {id}.
    """
    # A mask first: one that no image has is a misspelled name, by which an image lacks its mask, too.
    for name, paths in masks.items():
        if name not in images:
            raise InputError(f"{paths[0]}: a mask without an image; {lacks[1].replace('{id}', name)}")
    alone = [name for name in images if not masks.get(name)]
    if alone:
        raise InputError(
            f"{next(iter(images[alone[0]].values()))}: an image without a mask; "
            f"{lacks[0].replace('{id}', alone[0])} ({len(alone)} such images; nothing to segment is a mask of zeros)"
        )
    return [Found(name, dict(sorted(files.items())), tuple(masks[name])) for name, files in images.items()]


def check_channels(cases: Sequence[Found]) -> None:
    """Raise InputError for a case that has not the channels which most have."""
    if not cases:
        return
    usual = Counter(tuple(case.images) for case in cases).most_common(1)[0][0]
    for case in cases:
        if tuple(case.images) != usual:
            raise InputError(
                f"{case.first}: found {_channels(case.images)} of case {case.id!r}, allowed: {_channels(usual)}, as of "
                "the others"
            )


def _channels(names: Mapping[str, Path] | tuple[str, ...]) -> str:
    if tuple(names) == (ALL_CHANNELS,):
        return "one file for all channels"
    return f"the channels {', '.join(names)}"
