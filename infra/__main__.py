"""The command line: `python -m infra COMMAND`; a command is a file of infra/commands."""

import argparse
import importlib
import sys

from llm4seg.utils.errors import UserError

COMMANDS = ("storage", "plan", "up", "down", "status", "attach", "logs", "submit", "fetch")


def main(words: list[str] | None = None) -> None:
    """Parse the words and run the command; a user's mistake ends it with one line and exit code 1."""
    options = parser().parse_args(words)
    try:
        options.run(options)
    except UserError as error:
        sys.exit(f"infra {options.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m infra",
        description="Clusters of cloud GPUs: start one, run this commit's pipeline on it, fetch the results.",
        epilog="example: python -m infra up infra/aws.yaml; docs/cluster.md says where to begin",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"infra.commands.{name}")
        description, *_ = (module.__doc__ or "").partition("\n\n")
        one = commands.add_parser(
            name,
            help=description[:1].lower() + description[1:].rstrip("."),
            description=module.__doc__,
            epilog=f"example: python -m infra {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(one)
        one.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
        one.set_defaults(run=module.run)
    return top


if __name__ == "__main__":
    main()
