"""Not a stage: brings a params.yaml of an earlier version up to this one.

Parameters that are new get the values with which is computed what was computed before, and what is called something
else now is renamed, a line each. Comments, order and all other values stay.

Every command says when params.yaml is of an earlier version. DVC fills in dvc.yaml before any command starts, and
where a parameter that dvc.yaml names is missing it says no more than

  ERROR: failed to parse 'stages.prepare.deps' in 'dvc.yaml': Could not find 'data.root'

and where one is null: ERROR: unexpected error. For a missing one the remedy is this command, too.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from llm4seg.config.upgrade import upgrade
from llm4seg.utils.errors import UserError
from llm4seg.utils.logs import add_flags, configure

log = logging.getLogger("llm4seg.pipelines.upgrade")


def main(words: Sequence[str] | None = None, prog: str = "python -m pipelines.upgrade") -> None:
    """Print a line per change. Exits with 1 and one line for a bad file."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(__doc__ or "").removeprefix("Not a stage: "),
        epilog=f"example: {prog} --params params.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    add_flags(parser)
    arguments = parser.parse_args(words)
    try:
        configure(arguments.log)
        changes = upgrade(arguments.params)
    except (UserError, OSError) as error:
        sys.exit(f"upgrade: {error}")
    for line in changes or ["nothing to do"]:
        log.info(f"upgrade: {arguments.params}: {line}")


if __name__ == "__main__":
    main()
