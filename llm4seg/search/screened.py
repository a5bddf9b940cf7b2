"""The first points of a search by `search.screen`: the layers that a screen without training ranks first."""

import logging
from collections.abc import Mapping

import pandas as pd
from torch import Tensor

from llm4seg.analysis import screen
from llm4seg.analysis.screen import Screen, ranking, screen_loss
from llm4seg.config import Config
from llm4seg.config.schema import Overrides
from llm4seg.config.schema.search import LAYER
from llm4seg.llm.store import LayerStore
from llm4seg.runtime.device import default_device
from llm4seg.runtime.seeding import set_deterministic
from llm4seg.training.inputs import training_inputs
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError

log = logging.getLogger(__name__)

FIRST = 5  # points, of the layers that are ranked first


def check_screen() -> None:
    """Raise InputError unless there is a measure of which it was shown that it ranks layers as trainings do."""
    if not screen.RELIABLE:
        raise InputError(
            "search.screen: found true, allowed: false, since none of the screen's measures was shown to rank layers "
            "as full trainings do (docs/search.md)"
        )


def screened(config: Config, cnn: Mapping[str, Tensor]) -> list[Overrides]:
    """The layers that the reliable measures rank first, a point each, from the weights of the trained CNN alone.

    Only layers that the space has one by one are ranked. A layer that counts under a condition comes with the first
    value for which it does.
    """
    data, split = training_inputs(config)
    alone, device = config.override({"model.bottleneck": "identity"}), default_device(config.cluster)
    set_deterministic(device)
    model = assemble(alone, data)
    model.load_weights(cnn)
    loss = screen_loss(config.training, data, split.train, device)
    screening = Screen(model.to(device), data, split, config.model, loss)
    dimension, store = config.search.space[LAYER], LayerStore(config.paths.llm_used)
    layers = [value for value in dimension.values or () if isinstance(value, int)]
    log.info(f"search: a screen of {len(layers)} layers, of which the first {FIRST} are tried first")
    rows = [screening.layer(store, layer) for layer in layers]
    first = ranking(pd.DataFrame(rows), screen.RELIABLE)[:FIRST] if rows else []
    conditions = {parent: allowed[0] for parent, allowed in dimension.when.items()}
    return [conditions | {LAYER: layer} for layer in first]
