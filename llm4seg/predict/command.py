"""The command `llm4seg predict`: masks of image files by a trained model, or by several."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm4seg.predict.cases import find_cases
from llm4seg.predict.mask_files import ENDINGS
from llm4seg.utils.errors import InputError
from llm4seg.utils.logs import add_flags, configure
from llm4seg.utils.openmp import let_threads_sleep
from llm4seg.utils.text import in_short, printable

log = logging.getLogger(__name__)

EXAMPLE = "predict outputs/model -i scans/ -o masks/ --overlay"
INTERRUPTED = 130  # the exit code of what Ctrl-C ended
LOADING = ("llm", "device", "dtype", "overlap", "batch")  # options that `load` takes as they are
DECISIVE = ("dtype", "overlap", "tta", "postprocess")  # those that decide a mask


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Segments images by a trained model: a mask of each in its format and geometry, and volumes.csv.",
        epilog=f"example: llm4seg {EXAMPLE}; the same command goes on with what was broken off",
    )
    add = parser.add_argument
    add("model", nargs="+", metavar="MODEL", help="a folder that `train` wrote or its address; several: an ensemble")
    add("-i", "--input", required=True, type=Path, metavar="IN", help="an image, a DICOM series, or a folder of these")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="the folder of the masks")
    add("--format", choices=ENDINGS, help="of masks (default: the image's; PNG of JPG and BMP, DICOM-SEG of DICOM)")
    add("--overlay", action="store_true", help="also write a picture of each image with its mask: OUT/overlays")
    add("--probabilities", action="store_true", help="also write each class's, as NIfTI: OUT/probabilities")
    add("--spacing", type=_numbers, metavar="MM,MM[,MM]", help="along rows, columns and pages of pictures")
    add("--llm", help="a layer store, path or address, in the place of that which model.json names")
    add("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one with room)")
    add("--dtype", default="float32", help="float32 or bfloat16 (default: %(default)s)")
    add("--overlap", type=float, default=0.5, help="of windows over a volume, a share (default: %(default)s)")
    add("--tta", metavar="trained|AXES", help="mirror images: along the axes of the training, or as in 0,1")
    add("--postprocess", metavar="STEPS", help="of masks, as in largest:liver,min:10 (pixels)")
    add("--batch", type=int, help="slices of a volume that pass the network at a time (default: by the device)")
    add_flags(parser)
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text}, allowed: mm as in 0.5,0.5,2") from None


def main(words: Sequence[str], prog: str) -> None:
    """Run the command. Exits with 1 where a case could not be predicted. Raises InputError for what stops all."""
    arguments = _parser(prog).parse_args(words)
    configure(arguments.log)
    let_threads_sleep()
    try:
        failed = _predict(vars(arguments))
    except KeyboardInterrupt:
        log.error("predict: interrupted; the same command goes on where it stopped")
        sys.exit(INTERRUPTED)
    if failed:
        sys.exit(1)


def _predict(given: dict[str, Any]) -> bool:
    """Predict all cases and print what became of them; whether one failed."""
    if not given["input"].exists():
        raise InputError(f"{given['input']}: no such file or folder")  # before anything is loaded
    from llm4seg.predict.addresses import model_folder
    from llm4seg.predict.model import load  # here: the import takes seconds
    from llm4seg.predict.options import postprocess_steps, tta_axes
    from llm4seg.predict.run import Options, predict_cases

    start = time.monotonic()
    folders = [model_folder(one) for one in given["model"]]
    given |= {"tta": tta_axes(given["tta"], folders), "postprocess": postprocess_steps(given["postprocess"])}
    model = load(folders, **{name: given[name] for name in (*LOADING, "tta", "postprocess")})
    out: Path = given["output"]
    log.debug("predict: %s: loaded in %.1f s", ", ".join(map(str, folders)), time.monotonic() - start)
    cases, notices = find_cases(given["input"], model.preprocessing[0].channels, out)
    log.debug("predict: found %d cases in %s", len(cases), given["input"])
    decisive = tuple((name, str(given[name])) for name in DECISIVE)
    options = Options(given["format"], given["overlay"], given["probabilities"], given["spacing"], decisive)
    done = [*predict_cases(model, cases, out, options)]
    notices += [line for one in done for line in one.notices]
    errors = [one.error for one in done if one.error is not None]
    for line in in_short(notices):
        log.warning(f"predict: {printable(line)}")
    for line in errors:
        log.error(f"predict: failed: {printable(line)}")
    if finished := sum(one.finished for one in done):
        log.info(f"{finished} of {len(done)} were finished before and are left as they are")
    log.info(f"{len(done) - len(errors)} of {len(done)} masks are in {out}")
    return bool(errors)
