"""Print one table over data sets, out of studies and trained runs: a row a method, a column a data set."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llm4seg.config import Config
from llm4seg.utils.errors import UserError
from llm4seg.utils.extras import naming_extras
from llm4seg.utils.logs import add_flags, configure
from pipelines.stage import near

log = logging.getLogger("llm4seg.pipelines.table")

EXAMPLE = "python -m pipelines.table outputs/study -o tables"


def table(arguments: argparse.Namespace) -> None:
    """Print the table as Markdown, and write it where `-o` says."""
    from llm4seg.tools.table.experiments import fetch_experiment  # here: pandas takes a second, which --help need not
    from llm4seg.tools.table.formats import check_target, markdown, write_table
    from llm4seg.tools.table.result_table import build_table
    from llm4seg.tools.table.scores import check_methods, read_scores, sources_in

    if arguments.output is not None:
        check_target(arguments.output)
    config, sources = Config.load(arguments.params), []
    with tempfile.TemporaryDirectory() as temporary:
        for number, word in enumerate(arguments.folders):
            name, place = named(word)
            folder = Path(place)
            if not folder.exists():
                folder = fetch_experiment(place, config, Path(temporary, str(number)))
            sources += sources_in(folder, name)
        check_methods(sources)
        scores = read_scores(sources, arguments.metric, arguments.per, config.split.block)
    made = build_table(scores, config, arguments.reference, arguments.published)
    print(markdown(made), end="", flush=True)
    for file in write_table(made, arguments.output) if arguments.output is not None else []:
        log.info(f"table: {near(file.absolute())}")


def named(word: str) -> tuple[str | None, str]:
    """The name of a method and its place, of NAME=DIR; no name of a folder that is there."""
    name, found, place = word.partition("=")
    return (name, place) if found and not Path(word).exists() else (None, word)


def main(words: Sequence[str] | None = None) -> None:
    """Exit 1 with one line for a bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.table",
        description=__doc__,
        epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    add_flags(parser)
    parser.add_argument("--metric", choices=("dice", "iou", "nsd"), help="default: that of the first study, else dice")
    parser.add_argument("--per", choices=("case", "volume"), help="what has one score (default: as the first study)")
    parser.add_argument("--reference", metavar="METHOD", help="what others are compared with")
    parser.add_argument("--published", action="store_true", help="published scores of LLM4Seg beside ours, in gray")
    parser.add_argument("-o", "--output", type=Path, help="a file (.md, .tex or .csv), or a folder for all three")
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="[NAME=]DIR",
        help="the folder of a study, of a run (with metrics.json), or of several; or an experiment of DVC by its name",
    )
    arguments = parser.parse_args(words)
    try:
        configure(arguments.log)
        with naming_extras():
            table(arguments)
    except (UserError, OSError) as error:
        sys.exit(f"table: {error}")


if __name__ == "__main__":
    main()
