"""What a training reads: the prepared data as its network reads them, and the split with its part of the cases."""

from dataclasses import replace

from llm4seg.config import Config
from llm4seg.data.label_noise import subsample
from llm4seg.data.patch_size import resolve_auto
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, read_split
from llm4seg.models.saved import trained_intensity


def training_inputs(config: Config) -> tuple[Prepared, Split]:
    """The prepared data and the split, its training part cut down to `training.fraction`.

    Volumes are read in patches of `training.patch.size`, normalized by statistics of the training part alone; where
    `data.intensity` is ct, with `training.init_from`, by those of the model to begin with, if it has such.
    """
    data, split = Prepared(config.paths.prepared), read_split(config.paths.split)
    section = config.training
    split = replace(split, train=subsample(split.train, data, section.fraction, section.seed))
    if data.spacing is None:
        return data, split
    intensity = None if section.init_from is None else trained_intensity(section.init_from)
    if data.intensity != "ct" or intensity is None or len(intensity.foreground) != data.channels:
        intensity = data.intensity_of(split.train)
    return data.for_network(resolve_auto(config, data).input_size, intensity), split
