"""Rank the layers of an LLM without training, by a trained CNN: a table, and screen.csv (docs/search.md)."""

import argparse
import logging
import math
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.table import Table
from tqdm import tqdm

from llm4seg.cluster.gpus import choose_gpus
from llm4seg.config import Config
from llm4seg.config.schema import Training
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import replacing
from llm4seg.utils.logs import add_flags, bars_off, configure
from pipelines.stage import near, show

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("llm4seg.pipelines.screen")

OUT = Path("outputs/screen.csv")
LAYERS = "screened_layers"  # in paths.cache: paths.llm is an output of fetch_llm, which DVC would find changed


def screen(config: Config, folder: Path, layers: Sequence[int] = ()) -> "pd.DataFrame":
    """The table of some layers of `model.llm.source`, by default all of them, by the CNN of a trained model's folder.

    Fetches them to `paths.cache`. Raises InputError where the model is not the CNN alone, or does not fit the prepared
    data.
    """
    import pandas as pd

    from llm4seg.analysis.screen import Screen, screen_loss
    from llm4seg.data.prepared import Prepared
    from llm4seg.data.split import read_split
    from llm4seg.llm_sources.fetch_layers import fetch_store
    from llm4seg.models.check_data import check_data
    from llm4seg.models.saved import load_trained, read_metadata
    from llm4seg.runtime.device import default_device
    from llm4seg.runtime.seeding import set_deterministic

    described, section = read_metadata(folder)
    if (found := section.bottleneck) != "identity":
        raise InputError(
            f"{folder}: found a model with model.bottleneck: {found}, allowed: identity, the CNN alone, whose decoder "
            "reads what enters the block; train one with `dvc exp run -S model.bottleneck=identity`"
        )
    data, split = Prepared(config.paths.prepared), read_split(config.paths.split)
    check_data(folder, data)
    paths, name = config.paths, config.model.llm.source
    store = fetch_store(config.llm, name, layers or None, paths.cache / LAYERS, paths.cache)
    device = default_device(config.cluster)
    set_deterministic(device)
    loss = screen_loss(_training(folder, described["config"]["training"]), data, split.train, device)
    screening = Screen(load_trained(folder, None).to(device), data, split, config.model, loss)
    log.info(f"screen: probed: {', '.join(screening.targets)}")
    rows = [screening.cnn()]
    for layer in tqdm(layers or store.layers, desc="screen", unit="layer", disable=bars_off()):
        rows.append(screening.layer(store, layer))
        log.debug("screen: layer %d: %s", layer, rows[-1])
    return pd.DataFrame(rows)


def _training(folder: Path, values: "dict[str, Any]") -> Training:
    """The `training` section of a model, whose loss gives the gradients."""
    try:
        return Training.model_validate(values)
    except ValidationError:
        raise InputError(
            f"{folder}: found a model without its training's parameters, allowed: one of the stage "
            "`train` or of a study"
        ) from None


def shown(rows: "pd.DataFrame") -> Table:
    """The table of all layers, best first by the mean of their ranks in all measures, with the CNN alone on top."""
    from llm4seg.analysis.screen import CNN, MEASURES, ranking

    table = Table(title=f"screen: {len(rows) - 1} layers, best first by the mean of their ranks")
    table.add_column("layer", justify="right")
    seconds = [rows[f"{name}_seconds"].sum() for name in MEASURES]
    for name, took in zip(MEASURES, seconds, strict=True):
        table.add_column(name, footer=f"{took:.1f} s", justify="right")
    table.show_footer = True
    by_layer = {str(row["layer"]): row for row in rows.to_dict("records")}
    for layer in [CNN, *map(str, ranking(rows, MEASURES))]:
        table.add_row(layer, *[_cell(by_layer[layer], name) for name in MEASURES])
    return table


def _each_once(layers: Sequence[int]) -> list[int]:
    """Layers in the order given. Raises InputError for a negative one, which a source would look for in vain."""
    if negative := [layer for layer in layers if layer < 0]:
        raise InputError(f"--layers: found {negative[0]}, allowed: 0 or more")
    return [*dict.fromkeys(layers)]


def _cell(row: "dict[Hashable, Any]", name: str) -> str:
    spread = row[f"{name}_sd"]
    return f"{row[name]:.3f}" + (
        "" if math.isnan(spread) else f" ± {spread:.3f}"
    )  # NaN: of the CNN, which is not drawn


def main(words: Sequence[str] | None = None, prog: str = "python -m pipelines.screen") -> None:
    """Write screen.csv and print its table; exit 1 with one line for a bad input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Rank the layers of an LLM without training any, by the CNN of a model trained without a block. "
        "Measures are means ± standard deviation over draws of the adapter before the layer (docs/search.md).",
        epilog=f"example: dvc exp run -S model.bottleneck=identity && {prog} outputs/model --layers 0 7 14 21 28",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="the folder of a trained model with model.bottleneck: identity")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("--layers", type=int, nargs="+", default=(), help="default: all of model.llm.source")
    parser.add_argument("--out", type=Path, default=OUT, help="the table as a file (default: %(default)s)")
    add_flags(parser)
    arguments = parser.parse_args(words)
    try:
        configure(arguments.log)
        config = Config.load(arguments.params)
        choose_gpus(config.cluster)
        rows = screen(config, arguments.model, _each_once(arguments.layers))
        with replacing(arguments.out) as partial:
            rows.to_csv(partial, index=False, float_format="%.6g")
        show(shown(rows))
        log.info(f"screen: {near(arguments.out.absolute())}")
    except (UserError, OSError) as error:
        sys.exit(f"screen: {error}")


if __name__ == "__main__":
    main()
