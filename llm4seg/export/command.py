"""`llm4seg export MODEL --to onnx`: a trained model for programs that know nothing of this package."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from llm4seg.utils.logs import add_flags, configure

log = logging.getLogger(__name__)

FORMS = ("onnx", "pt2", "bundle")


def main(words: Sequence[str], prog: str) -> None:
    """Run `llm4seg export`. Raises InputError, in one line, for what cannot be exported."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Export a trained model: its network as ONNX or torch.export, or a MONAI bundle (extra `export`). "
        "The file is checked against the model before it is written.",
        epilog=f"example: {prog} outputs/model --to onnx -o model.onnx --check case.nii.gz",
    )
    parser.add_argument("model", help="the folder of a trained model, with model.json")
    parser.add_argument("--to", required=True, choices=FORMS, help="the format")
    parser.add_argument(
        "-o", "--output", type=Path, help="the file, or the bundle's folder (default: MODEL.FORMAT here)"
    )
    parser.add_argument("--check", metavar="IMAGE", help="an image whose masks, by model and file, must be equal")
    parser.add_argument("--llm", help="where the LLM's layers are, if not where model.json says")
    add_flags(parser)
    given = parser.parse_args(words)
    configure(given.log)

    from llm4seg.export.description import license_line  # here: the imports take seconds, which --help need not
    from llm4seg.export.export import export_network
    from llm4seg.predict.model import load

    model = load(given.model, llm=given.llm, device="cpu")
    file = given.output or Path(f"{model.folders[0].name}.{given.to}")
    if given.to == "bundle":
        from llm4seg.export.bundle import export_bundle

        done = export_bundle(model, file, given.check)
    else:
        done = export_network(model, given.to, file, given.check)
    log.info(f"{done.file}: logits within {done.difference:.1g} of the model's, labels equal ({done.checked_on})")
    log.info(f"{done.file} {license_line(done.about)}")
