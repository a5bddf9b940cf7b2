"""Results of a search on disk: written by the stage `search`, read by `train`, `study` and `report`."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llm4seg.config.best import read_best, write_best
from llm4seg.config.earlier import VALUES, current_sections
from llm4seg.config.schema import Overrides, Search
from llm4seg.utils.files import read_json, replacing, write_json
from llm4seg.utils.tables import read_table

TRIALS, EPOCHS, SPACE, IMPORTANCE = "trials.csv", "epochs.csv", "space.json", "importance.json"


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the best trial's overrides, and every trial.

    `trials`: number, the searched parameters, status, epochs, objectives, pareto, error. `epochs`: a row per epoch of
    each trial. `importance`: each parameter's importance (PED-ANOVA), as a share.
    """

    section: Search
    best: Overrides
    trials: pd.DataFrame
    epochs: pd.DataFrame
    importance: dict[str, float]

    @property
    def known(self) -> pd.DataFrame:
        """The trials that completed an epoch."""
        return self.trials.dropna(subset="val_dice")


def write(folder: Path, result: SearchResult | None) -> None:
    """Write the folder of a search, whole or not at all; None: no search, so no parameter is overridden."""
    with replacing(folder) as partial:
        partial.mkdir()
        write_best(partial, result.best if result else {})
        if result is not None:
            write_json(partial / SPACE, result.section.model_dump(mode="json"))
            write_json(partial / IMPORTANCE, result.importance)
            result.trials.to_csv(partial / TRIALS, index=False)
            result.epochs.to_csv(partial / EPOCHS, index=False)


def read(folder: Path) -> SearchResult | None:
    """Read the folder of a search; None without a search. Raises InputError with the name of a broken file."""
    if not (best := read_best(folder)):
        return None
    # an empty cell is a value that was not drawn, `null` is a drawn null
    trials = read_table(folder / TRIALS, "number", "status", "epochs", "val_dice", missing=("",))
    epochs = read_table(folder / EPOCHS, "number", "epoch", "val_dice")
    renamed = {name: trials[name].replace(words) for name, words in VALUES.items() if name in trials}
    section = Search.model_validate(current_sections({"search": read_json(folder / SPACE)})["search"])
    return SearchResult(section, best, trials.assign(**renamed), epochs, read_json(folder / IMPORTANCE))
