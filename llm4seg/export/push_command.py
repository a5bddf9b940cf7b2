"""`llm4seg push MODEL hf://ORG/NAME`: a trained model with its card, where others can load it."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from llm4seg.utils.logs import add_flags, configure

log = logging.getLogger(__name__)


def main(words: Sequence[str], prog: str) -> None:
    """Run `llm4seg push`. Raises InputError, in one line, for what cannot be uploaded."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Upload a trained model to the Hugging Face hub or a bucket, with a model card made from "
        "model.json and metrics.json. The LLM's layers are not uploaded.",
        epilog=f"example: {prog} outputs/model hf://org/name --license apache-2.0",
    )
    parser.add_argument("model", type=Path, help="the folder of a trained model, with model.json")
    parser.add_argument("address", help="hf://ORG/NAME, s3://BUCKET/FOLDER, gs:// or az://")
    parser.add_argument("--metrics", type=Path, help="metrics of this model (default: metrics.json beside its folder)")
    parser.add_argument("--license", help="of the trained weights, as the hub names it: apache-2.0, cc-by-nc-4.0, ...")
    parser.add_argument("--public", action="store_true", help="a new repository is for everyone, not private")
    add_flags(parser)
    given = parser.parse_args(words)
    configure(given.log)

    from llm4seg.export.push import METRICS, push  # here: the imports take seconds, which --help need not

    beside = given.model.absolute().parent / METRICS
    metrics = given.metrics or (beside if beside.is_file() else None)
    address = push(given.model, given.address, metrics, given.license, given.public)
    log.info(f'{given.model} is at {address}, with metrics of {metrics or "nowhere"}: llm4seg.load("{address}")')
