"""Print presets of params.yaml as options for `dvc exp run`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.utils.errors import UserError


def options(config: Config, name: str) -> str:
    """A preset's overrides as options of `dvc exp run`. Raises InputError for an unknown preset."""
    config.preset(name)
    return " ".join(f"-S {dotted}={_for_shell(value)}" for dotted, value in config.preset_changes(name).items())


def _for_shell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Print a line per preset; for an unknown preset, exit 1 with one line on stderr and none on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.preset",
        description="Print presets of params.yaml as options for `dvc exp run`.",
        epilog="example: dvc exp run $(python -m pipelines.preset released)",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    parser.add_argument("names", nargs="+", metavar="NAME", help="under `presets` of params.yaml")
    arguments = parser.parse_args()
    try:
        config = Config.load(arguments.params)
        print("\n".join([options(config, name) for name in arguments.names]))
    except UserError as error:
        sys.exit(f"preset: {error}")


if __name__ == "__main__":
    main()
