"""Tracker `dvclive`: files as DVCLive writes them, for `dvc plots show` and DVC's extension of VS Code."""

import math
import shutil
from pathlib import Path

from llm4seg.config import Config
from llm4seg.tracking.tracker import metrics
from llm4seg.training.run import Row
from llm4seg.utils.files import remove, write_json, write_text

# DVC finds this file by its name, and what it lists beside it
DVC_YAML = "metrics:\n- metrics.json\nplots:\n- plots/metrics:\n    x: step\n"
PICTURES = "- plots/images\n"


class DVCLiveFiles:
    """A folder with metrics.json (the newest row), plots/metrics/NAME.tsv (all epochs), and plots/images/."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pictured = (folder / "plots" / "images").exists()

    def row(self, row: Row) -> None:
        for name, value in metrics(row).items():
            self._append(name, int(row["epoch"]), value)
        known = {name: value for name, value in row.items() if math.isfinite(value)}
        write_json(self._folder / "metrics.json", {**known, "step": int(row["epoch"])})
        write_text(self._folder / "dvc.yaml", DVC_YAML + (PICTURES if self._pictured else ""))

    def _append(self, name: str, step: int, value: float) -> None:
        path = self._folder / "plots" / "metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(("" if file.tell() else f"step\t{name}\n") + f"{step}\t{value}\n")

    def picture(self, epoch: int, place: int, path: Path) -> None:
        images = self._folder / "plots" / "images"
        images.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, images / f"case-{place + 1}.png")
        if not self._pictured:
            self._pictured = True
            write_text(self._folder / "dvc.yaml", DVC_YAML + PICTURES)

    def close(self, finished: bool) -> None:
        pass


def dvclive_files(config: Config, name: str, resume: str | None) -> tuple[DVCLiveFiles, str]:
    """The files of a training in the folder `live` beside `paths.history`; a new one deletes earlier ones."""
    folder = config.paths.history.parent / "live"
    if resume is None:
        remove(folder)
    return DVCLiveFiles(folder), name
