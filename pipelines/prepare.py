"""Stage `prepare`: read raw images and masks, and write shards and a manifest."""

import os
import subprocess
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared, duplicates
from llm4seg.datasets.registry import open_dataset
from llm4seg.datasets.writer import write_prepared
from pipelines.stage import run_stage


def prepare(config: Config) -> None:
    """Read the dataset that the config names, audit it, and write it to `paths.prepared`."""
    if config.data.dataset == "folder" and (hint := versioning_hint(config.data.folder.path)):
        print(f"prepare: {hint}", flush=True)
    dataset = open_dataset(config.data, config.paths.cache)
    print(f"{dataset.name}: license {dataset.license}; cite {dataset.citation}", flush=True)
    prepared = write_prepared(dataset, config.data, config.paths.prepared)
    Console().print(_table(prepared))
    if prepared.note:
        print(f"note: {prepared.note}")


def versioning_hint(folder: Path) -> str | None:
    """The advice to version own images, where neither DVC nor git does; None outside of a git repository."""
    parts = [folder / name for name in ("images", "masks") if (folder / name).is_dir()]
    unknown = [part for part in parts if not _in_dvc(part) and _in_git(part) is False]
    if not unknown:
        return None
    names = " ".join(os.path.relpath(part) for part in unknown)
    return f"{names}: in no commit, so `dvc exp run --temp` and `--queue` do not see them: dvc add {names}, and commit"


def _in_dvc(path: Path) -> bool:
    """Whether `dvc add` was called for a folder or one above it."""
    return any(one.with_name(f"{one.name}.dvc").exists() for one in (path, *path.parents))


def _in_git(path: Path) -> bool | None:
    """Whether git has files of a folder; None where there is no git repository, or no git."""
    try:
        listed = subprocess.run(["git", "ls-files", "."], cwd=path, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return bool(listed.stdout)


def _table(prepared: Prepared) -> Table:
    """The table of classes: their cases and pixels."""
    cases = prepared.cases.values()
    groups = {case.group for case in cases}
    counts = f"{len(cases)} cases in {len(groups)} groups; {duplicates(cases)} show the image of an earlier one"
    table = Table(caption=counts)
    for heading in ("class", "cases with it", "pixels"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name in prepared.classes:
        pixels = [case.pixels[name] for case in cases]
        table.add_row(name, str(sum(count > 0 for count in pixels)), f"{sum(pixels):,}")
    return table


if __name__ == "__main__":
    run_stage("prepare", "From raw images and masks to shards and a manifest.", prepare)
