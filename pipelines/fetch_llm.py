"""Stage `fetch_llm`: copy the layers that the parameters name from the LLM's source to the layer store."""

import logging

from rich.table import Table

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store, select_layers
from pipelines.stage import run_stage, show

log = logging.getLogger("llm4seg.pipelines.fetch_llm")


def fetch_llm(config: Config) -> None:
    """Fill the layer store; layers already there are kept."""
    store = fill_store(config.paths.llm, config.llm, config.layers_needed(), config.paths.cache)
    select_layers(store, config.layers_used(), config.paths.llm_used)
    log.info(f"{store.source}, license: {store.license or 'not stated'}")
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
