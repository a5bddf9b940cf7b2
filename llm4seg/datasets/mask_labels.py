"""Labels from the values or colors of a mask, by `data.classes`."""

from pathlib import Path

import numpy as np

from llm4seg.config.schema.data import COLOR, Classes, mask_codes
from llm4seg.datasets.classes import labels_of_values, lookup
from llm4seg.datasets.image_data import ImageData
from llm4seg.utils.errors import InputError

ROUNDING = 1e-3  # how far a scaled value may be from a whole number
LOSSY_DISTANCE = 32  # how far a lossy format's value may be from the nearest listed one, but for outlines
TABLE = 1 << 16
SHOWN = 12  # values in a message
LISTED = "(0 is background, the others are in data.classes, or the dataset's own)"


def _table(classes: Classes, regions: bool) -> dict[int, int]:
    """The label of each mask value: gray as it is, a color as COLOR + 0xrrggbb."""
    labels = labels_of_values(classes, regions)
    return {0: 0, COLOR: 0} | {code: label for value, label in labels.items() for code in mask_codes(value)}


def labels_of(mask: ImageData, classes: Classes, path: Path, regions: bool = False) -> np.ndarray:
    """Labels uint8 (1, I, J, K) of a mask's values, as `labels_of_values` has them.

    Raises InputError naming the file for a value that is not listed. In a lossy format a value counts as the nearest
    listed one; farther ones may stand at outlines only.
    """
    codes, table = _codes(mask, path), _table(classes, regions)
    known = np.array(sorted(code for code in table if (code >= COLOR) == (len(mask.values) == 3)))
    labels = np.array([table[int(code)] for code in known], dtype=np.uint8)
    found = np.unique(codes.ravel(order="K")).astype(np.int64)  # as they lie in memory, which is quicker
    exact = np.isin(found, known)
    if not exact.all() and not mask.lossy:
        hint = "; it has a palette, whose colors count, not its indices" if mask.palette else ""
        raise InputError(_unknown(found[~exact][0], found, known, path) + hint)
    nearest, distance = _nearest(found, known)
    if distance.max() > LOSSY_DISTANCE:
        _check_plateaus(codes, found[distance > LOSSY_DISTANCE], known, path)
    if found[0] >= 0 and found[-1] < TABLE:  # a table is quicker than a search
        of_code = np.zeros(found[-1] + 1, dtype=np.uint8)
        of_code[found] = labels[nearest]
        return lookup(of_code, codes)[None]
    return labels[nearest][np.searchsorted(found, codes)][None]


def _codes(mask: ImageData, path: Path) -> np.ndarray:
    """Whole numbers, or codes of colors. Raises InputError for values that are neither."""
    values_CS = mask.values
    if len(values_CS) == 3 and values_CS.dtype == np.uint8:
        red, green, blue = values_CS.astype(np.int64)
        return np.asarray(COLOR + (red << 16) + (green << 8) + blue)
    if len(values_CS) != 1:
        kind = f"{len(values_CS)} channels of {values_CS.dtype} that differ"
        raise InputError(f"{path}: a mask must be gray, or in colors of 8 bits; found {kind}")
    values = values_CS[0]
    if values.dtype.kind in "iu":
        return values
    if not np.isfinite(values).all():
        raise InputError(f"{path}: a mask must have a number everywhere, found NaN or infinite values in it")
    whole = np.rint(values)
    off = np.abs(values - whole)
    if off.max() > ROUNDING:
        raise InputError(f"{path}: unknown mask value {values.flat[off.argmax()]:.9g}; allowed: whole numbers {LISTED}")
    return whole.astype(np.int16 if np.abs(whole).max() < TABLE // 2 else np.int64)  # small ones are sorted quicker


def _nearest(found: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The index of the nearest known code of each, and how far it is: in gray values, of colors the worst channel."""
    apart = np.abs(_channels(found)[:, None] - _channels(known)).max(axis=-1)
    return apart.argmin(axis=1), apart.min(axis=1)


def _channels(codes: np.ndarray) -> np.ndarray:
    if codes[0] < COLOR:
        return codes[:, None]
    return np.stack([codes >> 16 & 0xFF, codes >> 8 & 0xFF, codes & 0xFF], axis=-1)


def _unknown(value: int, found: np.ndarray, known: np.ndarray, path: Path) -> str:
    if value >= COLOR:
        return (
            f"{path}: unknown color {_name(value)}; allowed: {_names(known)}; list its colors, {_names(found)}, in "
            f'data.classes, as in {{lesion: ["{_name(value)}"]}}'
        )
    return f"{path}: unknown mask value {value}; allowed: {_names(known)} {LISTED}"


def _check_plateaus(codes: np.ndarray, far: np.ndarray, known: np.ndarray, path: Path) -> None:
    """Raise InputError where values far from every listed one fill 3 x 3 pixels: no outline, but something unlisted."""
    from scipy import ndimage

    where = np.isin(codes, far)
    plateau = ndimage.binary_erosion(where, np.ones((3, 3, 1)))
    if not plateau.any():
        return
    value = int(codes[plateau][0])
    common, counts = np.unique(codes, return_counts=True)
    common = common[np.argsort(counts)[::-1][:2]]
    raise InputError(
        f"{path}: an area of a lossy mask has the value {_name(value)}, farther than {LOSSY_DISTANCE} from each listed "
        f"one: {_names(known)}; its most frequent ones are {_names(common)}; list what they mean in data.classes"
    )


def _names(codes: np.ndarray) -> str:
    more = f", ... ({len(codes)} in all)" if len(codes) > SHOWN else ""
    return ", ".join(_name(code) for code in codes[:SHOWN]) + more


def _name(code: int) -> str:
    return f"#{code - COLOR:06x}" if code >= COLOR else str(code)
