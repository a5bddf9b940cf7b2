"""Log-likelihood of the reference: how probable a network takes the right labels to be, in nats a pixel.

The negative of the cross-entropy, so that more is better, as of other metrics: 0 where every pixel is surely right. It
moves with every pixel's probability, where Dice sees only those that change sides.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from llm4seg.config.schema import Evaluation
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.evaluation.volumes import volume_name
from llm4seg.inference.grid_logits import has_softmax
from llm4seg.inference.prepared import Member, PreparedPredictor
from llm4seg.objectives.metrics import Row

LOG_LIKELIHOOD = "log_likelihood"
SMALLEST = 1e-7  # probabilities below count as this: one sure mistake would outweigh all other pixels


def log_likelihoods(
    probabilities: Iterable[Tensor], labels_S: Tensor, scheme: LabelScheme, channels: int
) -> tuple[list[float], int]:
    """The logarithms of the reference's probabilities, summed over pixels, of each class; and the number of pixels.

    `probabilities`: float32 (*shape) of each channel in turn. Of a softmax, every class has the same sum, that of the
    true labels; of sigmoids, its own: whether a pixel is of the class. Ignored pixels do not count.
    """
    counted_S = labels_S != IGNORE if scheme.ignore else torch.ones_like(labels_S, dtype=torch.bool)
    softmax, masks, sums = has_softmax(channels, scheme), scheme.masks(labels_S), list[float]()
    for channel, values_S in enumerate(probabilities):
        if softmax:
            right_S = values_S[labels_S == channel]
        else:
            right_S = torch.where(masks[channel], values_S, 1 - values_S)[counted_S]
        sums.append(float(right_S.double().clamp(min=SMALLEST).log().sum()))
    pixels = int(counted_S.sum())
    return ([sum(sums)] * len(scheme.classes) if softmax else sums), pixels


def add_log_likelihood(
    rows: Sequence[Row], volumes: Sequence[Row], members: Sequence[Member], section: Evaluation
) -> tuple[list[Row], list[Row]]:
    """The rows of cases and of volumes with their log-likelihood, for which the networks predict all cases once more.

    A volume's is the mean over the pixels of its slices.
    """
    predictor, data = PreparedPredictor(members, section), members[0].data
    totals: dict[tuple[str, str], tuple[float, int]] = {}
    for case_id in dict.fromkeys(row["case"] for row in rows):
        channels, probabilities = predictor.probabilities(case_id)
        sums, pixels = log_likelihoods(probabilities, data.original(case_id)[1], data.scheme, channels)
        for name, value in zip(data.classes, sums, strict=True):
            for whole in {case_id, volume_name(data.cases[case_id])}:
                before = totals.get((whole, name), (0.0, 0))
                totals[whole, name] = before[0] + value, before[1] + pixels
    means = {key: value / pixels if pixels else float("nan") for key, (value, pixels) in totals.items()}
    return (
        [{**row, LOG_LIKELIHOOD: means[row["case"], row["class"]]} for row in rows],
        [{**row, LOG_LIKELIHOOD: means[row["case"], row["class"]]} for row in volumes],
    )
