"""The command `llm4seg`: its subcommands by name. A command's module is imported when it is called, and no sooner."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

# name: the module, whose `main(words, prog)` parses the words after the name (--help too, with an example), and what it
# does in one line
COMMANDS = {
    "doctor": ("pipelines.doctor", "check that this machine has what params.yaml needs"),
    "export": ("llm4seg.export.command", "write a trained model as ONNX, torch.export or a MONAI bundle"),
    "init": ("llm4seg.project.create", "write a project that runs the installed package's stages"),
    "predict": ("llm4seg.predict.command", "segment image files by a trained model"),
    "preset": ("pipelines.preset", "print presets of params.yaml as options for `dvc exp run`"),
    "push": ("llm4seg.export.push_command", "upload a trained model to the hub or a bucket, with a model card"),
    "upgrade": ("pipelines.upgrade", "bring a params.yaml of an earlier version up to this one"),
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line `llm4seg WORDS`, by default that of this process."""
    words = sys.argv[1:] if words is None else words
    if words and words[0] in COMMANDS:
        run(words[0], words[1:])
        return
    listed = "\n".join(f"  {name:10}{summary}" for name, (_, summary) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="llm4seg",
        description=f"A frozen LLM layer inside a CNN for medical image segmentation.\n\ncommands:\n{listed}",
        epilog="example: llm4seg init my-project; `llm4seg COMMAND --help` has one of each command",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version of this package")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="one of these, and its words")
    if parser.parse_args(words).version:
        from importlib.metadata import version  # here, since it takes longer than all else of --help

        print(version("llm4seg"))
    else:
        parser.print_help()


def run(name: str, words: Sequence[str]) -> None:
    """Run a subcommand. Exits with 1 and one line where it needs a package of an extra that is not installed."""
    from llm4seg.utils.errors import InputError
    from llm4seg.utils.extras import naming_extras

    module, _ = COMMANDS[name]
    try:
        with naming_extras():
            import_module(module).main(words, prog=f"llm4seg {name}")
    except InputError as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
