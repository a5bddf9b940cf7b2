"""What the benchmarks of training begin with: the default config, what it trains on at hand, and a common --help."""

import argparse
import sys
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.utils.errors import InputError

PARAMS = Path(__file__).parents[2] / "params.yaml"
NEEDED = ("prepared", "split", "llm_used")


def default_config() -> Config:
    """The project's params.yaml. Raises InputError unless the stages before `train` have run."""
    config = Config.load(PARAMS)
    missing = [path for path in (getattr(config.paths, name) for name in NEEDED) if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]}: not there; run `dvc repro prepare split fetch_llm` first")
    return config


def parser(name: str, description: str | None, options: str = "") -> argparse.ArgumentParser:
    """A benchmark's command line, with an example at the end of its --help."""
    return argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks.{name}",
        description=description,
        epilog=f"example: python -m tests.benchmarks.{name} {options}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(benchmark: Any, *arguments: Any) -> None:
    """Run a benchmark; a user's mistake ends it with one line."""
    try:
        benchmark(*arguments)
    except InputError as error:
        sys.exit(str(error))
