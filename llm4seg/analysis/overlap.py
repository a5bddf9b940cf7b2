"""How well an activation map finds a mask: AUROC, IoU by three rules of threshold, and the floors of each.

Values and masks are over the tokens of one image, or over its pixels. Every measure is NaN for an empty mask, and AUROC
also for a full one.
"""

import math

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

THRESHOLDS = tuple(step / 10 for step in range(1, 10))  # LM4VisualEncoding's, of values in [0, 1]


def auroc(values_T: Tensor, mask_T: Tensor) -> float:
    """The probability that a token of the mask has a larger value than one outside, ties counted by half.

    Mann-Whitney's U over the product of both counts (Hanley & McNeil 1982); 0.5 is chance.
    """
    return float(_auroc(_values(values_T), _masks(mask_T))[0])


def iou_best(values_T: Tensor, mask_T: Tensor) -> float:
    """The largest IoU of `values > t` over t = 0.1, ..., 0.9: LM4VisualEncoding's rule, which looks at the mask."""
    return float(_iou_best(_values(values_T), _masks(mask_T))[0])


def iou_otsu(values_T: Tensor, mask_T: Tensor) -> float:
    """The IoU of the values above Otsu's threshold (1979), which knows no mask; 0 where all values are equal."""
    return float(_iou_otsu(_values(values_T), _masks(mask_T))[0])


def iou_area(values_T: Tensor, mask_T: Tensor) -> float:
    """The IoU of the largest values, as many as the mask has tokens; each of those tied at the cut counts in part."""
    return float(_iou_area(_values(values_T), _masks(mask_T))[0])


def overlaps(values_T: Tensor, mask_T: Tensor) -> dict[str, float]:
    """All measures of an activation map by name: `auroc`, `iou_best`, `iou_otsu` and `iou_area`."""
    values, masks = _values(values_T), _masks(mask_T)
    return {name: float(measure(values, masks)[0]) for name, measure in MEASURES.items()}


def floors(activation_G: Tensor, mask_G: Tensor, shifts: int = 100, seed: int = 0) -> dict[str, dict[str, float]]:
    """What each measure gives of a map that does not know where the mask is, by the measure's name.

    `everything`: of the whole grid as the prediction, for AUROC of equal values. `shifted`: the mean over random cyclic
    shifts along the grid's axes, of which there may be any number; a shift keeps the map's shape and breaks its place.
    Both inputs are on the token grid.
    """
    moves = np.random.default_rng(seed).integers(mask_G.shape, size=(shifts, mask_G.ndim))
    # a map shifted against the mask is the map against the mask shifted the other way: ranks and cuts stay
    mask, axes = mask_G.cpu().numpy(), tuple(range(mask_G.ndim))
    shifted_RT = np.stack([np.roll(mask, move, axes).reshape(-1) for move in moves])
    share = float(mask.mean())
    everything = dict.fromkeys(MEASURES, share if share > 0 else math.nan)
    everything["auroc"] = 0.5 if 0 < share < 1 else math.nan
    values = _values(activation_G)
    return {
        name: {"everything": everything[name], "shifted": float(measure(values, shifted_RT).mean())}
        for name, measure in MEASURES.items()
    }


def _values(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().reshape(-1).numpy()


def _masks(mask: Tensor) -> np.ndarray:
    return mask.cpu().bool().reshape(1, -1).numpy()


# The measures of values (T,) for several masks (R, T) of one size: each is a sum over the mask of what the values give.


def _auroc(values_T: np.ndarray, masks_RT: np.ndarray) -> np.ndarray:
    inside, tokens = int(masks_RT[0].sum()), len(values_T)
    if inside in (0, tokens):
        return np.full(len(masks_RT), math.nan)
    u_R = masks_RT @ rankdata(values_T) - inside * (inside + 1) / 2
    return np.asarray(u_R / (inside * (tokens - inside)))


def _iou(predicted_T: np.ndarray, masks_RT: np.ndarray) -> np.ndarray:
    """IoU of a prediction, whose entries may be shares of tokens, with masks; NaN for an empty mask."""
    inside = masks_RT[0].sum()
    if not inside:
        return np.full(len(masks_RT), math.nan)
    both_R = masks_RT @ predicted_T.astype(float)
    return np.asarray(both_R / (predicted_T.sum() + inside - both_R))


def _iou_best(values_T: np.ndarray, masks_RT: np.ndarray) -> np.ndarray:
    return np.max([_iou(values_T > threshold, masks_RT) for threshold in THRESHOLDS], axis=0)


def _iou_otsu(values_T: np.ndarray, masks_RT: np.ndarray) -> np.ndarray:
    return _iou(values_T > otsu_threshold(values_T), masks_RT)


def _iou_area(values_T: np.ndarray, masks_RT: np.ndarray) -> np.ndarray:
    inside = int(masks_RT[0].sum())
    if not inside:
        return np.full(len(masks_RT), math.nan)
    cut = np.sort(values_T)[-inside]
    above_T, tied_T = values_T > cut, values_T == cut
    return _iou(above_T + tied_T * (inside - above_T.sum()) / tied_T.sum(), masks_RT)


def otsu_threshold(values_T: np.ndarray) -> float:
    """The value above which tokens are foreground, so that the variance between both sides is the largest (Otsu 1979).

    Over all cuts between distinct values, without a histogram; of equal values, the value itself, with none above.
    """
    levels, counts = np.unique(values_T, return_counts=True)
    if len(levels) == 1:
        return float(levels[0])
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total_below = np.cumsum(counts * levels)[:-1]
    difference = total_below / below - ((counts * levels).sum() - total_below) / above
    return float(levels[np.argmax(below * above * difference**2)])


MEASURES = {"auroc": _auroc, "iou_best": _iou_best, "iou_otsu": _iou_otsu, "iou_area": _iou_area}
