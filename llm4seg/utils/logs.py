"""What commands print: the logger "llm4seg", its flags -q and -v, and the environment variable LLM4SEG_LOG.

Modules log to `logging.getLogger(__name__)`. A command calls `configure`; a program that imports this package does not,
and decides itself where records go.
"""

import argparse
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

from llm4seg.utils.errors import InputError

VARIABLE = "LLM4SEG_LOG"
LEVELS = {"quiet": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
PACKAGE = logging.getLogger("llm4seg")
DEBUG_FORMAT = "%(asctime)s.%(msecs)03d %(name)s: %(message)s"


class CommandHandler(logging.Handler):
    """Writes INFO to stdout as plain lines, all else to stderr; DEBUG with its time and module.

    Both streams are looked up for each record, since programs may replace them. An error of a stream is raised, as
    `print` raises it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._detailed = logging.Formatter(DEBUG_FORMAT, "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return self._detailed.format(record) if record.levelno < logging.INFO else super().format(record)

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno == logging.INFO else sys.stderr
        with _without_bars(stream):
            stream.write(self.format(record) + "\n")
            stream.flush()


def _without_bars(stream: TextIO) -> AbstractContextManager[Any]:
    """Context manager in which tqdm's progress bars are cleared from the terminal, if tqdm is in use."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return nullcontext() if tqdm is None else tqdm.external_write_mode(file=stream)  # type: ignore[no-any-return]


class Warned(str):
    """A line that is a warning, wherever it is logged: workers send lines to the process that shows them."""


def level_of(line: str) -> int:
    """The level of a line: WARNING where it is a `Warned` or says that it warns, else INFO."""
    return logging.WARNING if isinstance(line, Warned) or line.startswith("warning: ") else logging.INFO


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add -q and -v to a command line; `configure` takes what they leave in `log`."""
    flags = parser.add_mutually_exclusive_group()
    flags.add_argument(
        "-q",
        "--quiet",
        dest="log",
        action="store_const",
        const="quiet",
        help="only warnings and errors, and what the command is there to print; no progress",
    )
    flags.add_argument(
        "-v",
        "--verbose",
        dest="log",
        action="store_const",
        const="debug",
        help=f"also what is done, on stderr; {VARIABLE}=quiet|info|debug does the same where no flag can be given",
    )


def configure(flag: str | None = None) -> None:
    """Set up the logger for a command: by its flag, else by LLM4SEG_LOG, else INFO; also for processes it starts.

    Raises InputError where LLM4SEG_LOG is none of LEVELS.
    """
    name = flag or os.environ.get(VARIABLE) or "info"
    if name not in LEVELS:
        *others, last = LEVELS
        raise InputError(f"{VARIABLE}: found {name!r}, allowed: {', '.join(others)} or {last}")
    os.environ[VARIABLE] = name
    for handler in [one for one in PACKAGE.handlers if isinstance(one, CommandHandler)]:
        PACKAGE.removeHandler(handler)
    PACKAGE.addHandler(CommandHandler())
    PACKAGE.setLevel(LEVELS[name])
    PACKAGE.propagate = False  # or a library that sets up the root logger would print all lines again


def configure_child() -> None:
    """Set up the logger of a process that a command has started, at the command's level; in any other, nothing."""
    if VARIABLE in os.environ:
        configure()


def is_quiet() -> bool:
    """Whether only warnings and errors are shown; False where nobody has chosen a level."""
    return PACKAGE.level > logging.INFO


def bars_off() -> bool | None:
    """For tqdm's `disable`: True where it is quiet, else None, which shows bars on a terminal alone."""
    return True if is_quiet() else None
