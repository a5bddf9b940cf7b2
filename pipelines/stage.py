"""The command line of every stage: --help with an example, one line for an error, a clean stop."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from llm4seg.cluster.gpus import choose_gpus
from llm4seg.config import Config
from llm4seg.config.changes import notes
from llm4seg.utils.errors import InputError, StopRequested, UserError
from llm4seg.utils.extras import naming_extras
from llm4seg.utils.logs import add_flags, configure, is_quiet, level_of
from llm4seg.utils.openmp import let_threads_sleep

log = logging.getLogger("llm4seg.pipelines.stage")  # of a stage that is run, `__name__` is __main__


def _stop(signum: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds like Ctrl-C, so that half-written files go and Ray shuts down."""
    raise KeyboardInterrupt


ANYWHERE = {"cache", "runs", "study_runs", "tracking"}  # of `paths`: no outputs of a DVC stage
ANOTHER_DISK = (
    "for another disk: clone the repository there, or only DVC's cache: "
    "`dvc cache dir --local /OTHER/DISK` and `dvc config --local cache.type symlink`"
)

Work = Callable[[Config], None]
Trainings = Callable[[Config], list[Config]]
NOTHING: Mapping[str, Work] = {}


def check_outputs(config: Config) -> None:
    """Raise InputError for an output outside of the DVC repository, which DVC would refuse after the stage's work."""
    here = Path.cwd()
    root = next((folder.resolve() for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), None)
    for name, path in config.paths:
        # DVC follows links, too
        if root is not None and name not in ANYWHERE and not path.resolve().is_relative_to(root):
            raise InputError(
                f"paths.{name}: found {path}, allowed: a path in {root}, outside of which DVC keeps no outputs "
                f"({' and '.join(f'paths.{other}' for other in sorted(ANYWHERE))} may be anywhere); {ANOTHER_DISK}"
            )


def run_stage(
    name: str,
    description: str,
    work: Work,
    in_dvc: bool = True,
    instead: Mapping[str, Work] = NOTHING,
    trainings: Trainings | None = None,
    words: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Run a stage as `python -m pipelines.<name>`, or as the command `prog`.

    Exit 1 for a bad input or a full disk, 130 when interrupted, 143 when stopped by SIGTERM with all work saved.

    `in_dvc`: whether dvc.yaml has a stage of that name. `instead`: other work, by the name of its option. `trainings`:
    the configs that the stage trains with; unless there are none, it first prints what differs from the last commit.
    `words`: the command line's, by default those of this process.
    """
    prog = prog or f"python -m pipelines.{name}"
    with_dvc = f"\nwith all that it needs: dvc repro {name}" if in_dvc else ""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example: {prog}{with_dvc}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    add_flags(parser)
    parser.set_defaults(work=work)
    for option, other in instead.items():
        parser.add_argument(f"--{option}", dest="work", action="store_const", const=other, help=other.__doc__)
    arguments = parser.parse_args(words)
    signal.signal(signal.SIGTERM, _stop)
    start = time.monotonic()
    try:
        configure(arguments.log)
        let_threads_sleep()
        config = Config.load(arguments.params)
        choose_gpus(config.cluster)
        log.debug("%s: read %s", name, arguments.params.absolute())
        if "DVC_STAGE" in os.environ:
            check_outputs(config)
        if configs := trainings(config) if trainings else []:
            for line in notes(arguments.params, configs):
                log.log(level_of(line), "%s: %s", name, line)
        with naming_extras():
            arguments.work(config)
        log.debug("%s: %.1f s, of which %.1f s of processor time", name, time.monotonic() - start, time.process_time())
    except (UserError, OSError) as error:
        if os.environ.get("LLM4SEG_TRACEBACK"):
            raise
        sys.exit(f"{name}: {error}")
    except StopRequested as stop:
        log.error("%s: %s", name, stop)
        sys.exit(128 + signal.SIGTERM)
    except (KeyboardInterrupt, SystemExit):  # Ray handles Ctrl-C with sys.exit(0), which is no success here
        log.error("%s: interrupted; the last good outputs are untouched", name)
        sys.exit(130)


def show(table: Table) -> None:
    """Print a table of a stage, unless it is quiet."""
    if not is_quiet():
        Console().print(table)


def near(path: Path) -> str:
    """The path, relative where it is below the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
