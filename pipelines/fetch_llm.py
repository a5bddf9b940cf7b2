"""Stage `fetch_llm`: copy the layers that the parameters name from the sources of their LLMs to the layer stores."""

import logging

from rich.table import Table

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.fetch_layers import fetch_layers
from pipelines.stage import run_stage, show

log = logging.getLogger("llm4seg.pipelines.fetch_llm")


def fetch_llm(config: Config) -> None:
    """Fill the layer stores; layers already there are kept."""
    paths = config.paths
    needed, used = config.layers_needed(), config.layers_used()
    stores = fetch_layers(config.llm, needed, used, paths.llm, paths.llm_used, paths.cache)
    for name, store in stores.items():
        which = f"{name}: " if len(stores) > 1 else ""
        log.info(f"{which}{store.source}, license: {store.license or 'not stated'}")
        show(_table(store))


def _table(store: LayerStore) -> Table:
    """The layers that the store holds."""
    table = Table()
    for heading in ("layer", "parameters", "bytes", "sha256"):
        table.add_column(heading, justify="left" if heading == "sha256" else "right")
    for layer in store.layers:
        parameters, nbytes = store.parameters(layer), store.path(layer).stat().st_size
        table.add_row(str(layer), f"{parameters:,}", f"{nbytes:,}", store.sha256(layer)[:12])
    return table


if __name__ == "__main__":
    run_stage("fetch_llm", "Fetch the layers of a pre-trained LLM that the config asks for.", fetch_llm)
