"""Stage `prepare`: read raw images and masks, and write shards and a manifest."""

import logging

from rich.markup import escape
from rich.table import Table

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared, SplitLists, duplicates
from llm4seg.datasets.archives import naming_archives, root_folder, unpacked
from llm4seg.datasets.overlays import write_contact_sheet
from llm4seg.datasets.registry import PACKAGED, open_dataset
from llm4seg.datasets.split_file import read_split_file
from llm4seg.datasets.volume_headers import check_volumes
from llm4seg.datasets.writer import write_prepared
from llm4seg.utils.errors import InputError
from llm4seg.utils.text import in_short
from llm4seg.utils.threads import cores
from pipelines.own_images import versioning_hint
from pipelines.stage import near, run_stage, show

log = logging.getLogger("llm4seg.pipelines.prepare")


def prepare(config: Config) -> None:
    """Read the dataset that the config names, audit it, write it to `paths.prepared`, and draw the contact sheet."""
    if config.data.dataset not in PACKAGED and (hint := versioning_hint(config.data.root)):
        log.info(f"prepare: {hint}")
    lists = _split_lists(config)
    workers = config.cluster.cpus_per_worker or cores()
    with naming_archives(config.data.root, config.paths.cache):
        dataset = open_dataset(config.data, config.paths.cache)
        log.info(f"{dataset.name}: license {dataset.license}; cite {dataset.citation}")
        check_volumes(dataset, config.data)
        prepared = write_prepared(dataset, config.data, config.paths.prepared, lists, workers)
    show(_table(prepared))
    for line in in_short(prepared.notices):
        log.warning(f"warning: {line}")
    if prepared.note:
        log.info(f"note: {prepared.note}")
    write_contact_sheet(config.paths.contact_sheet, prepared)
    log.info(f"prepare: a look at the data: {near(config.paths.contact_sheet)}")


def _split_lists(config: Config) -> SplitLists | None:
    """The lists of `split.file`. Where another rule than `file` splits, those that cannot be read are left out.

    They may be of data that were here before. `split` refuses the rule `file` then, and a list that is put into
    data.root makes this stage stale.
    """
    root, cache, file = config.data.root, config.paths.cache, config.split.file
    if file is None:
        return None
    names = [file] if isinstance(file, str) else file.values()
    try:
        with naming_archives(root, cache):
            whole, within = unpacked(root, cache) if root.is_file() else root, root_folder(root, cache)
            return read_split_file(whole if all((whole / name).is_file() for name in names) else within, file)
    except InputError as error:
        if config.split.rule == "file":
            raise
        log.warning(f"warning: split.file is left out, as split.rule is {config.split.rule}: {error}")
        return None


def _table(prepared: Prepared) -> Table:
    """The table of classes: their cases and pixels, at the original size and on the network's grid."""
    cases = prepared.cases.values()
    groups = {case.group for case in cases}
    caption = f"{len(cases)} cases in {len(groups)} groups; {duplicates(cases)} show the image of an earlier one"
    table = Table(caption=caption)
    for heading in ("class", "cases with it", "on the grid", "pixels", "on the grid"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name in prepared.classes:
        pixels = [case.pixels[name] for case in cases]
        on_grid = [case.grid_pixels[name] for case in cases]
        present, kept = (str(sum(count > 0 for count in counts)) for counts in (pixels, on_grid))
        table.add_row(escape(name), present, kept, f"{sum(pixels):,}", f"{sum(on_grid):,}")
    return table


if __name__ == "__main__":
    run_stage("prepare", "From raw images and masks to shards and a manifest.", prepare)
