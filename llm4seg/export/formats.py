"""A network as a file of ONNX or torch.export, and that file as a network again, which the check runs."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm4seg.export.description import INPUT, OUTPUT
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import require

METADATA = "llm4seg.json"  # the description's name inside a file
LARGEST_BATCH = 1 << 16


class Exported(nn.Module):
    """An exported file as a network: from images (N, C, *size) to logits (N, K, *size), float32, on the CPU."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)  # by which others know the device

    def forward(self, images_NCS: Tensor) -> Tensor:
        return self._run(images_NCS)


def write_pt2(network: nn.Module, shape: Sequence[int], about: dict[str, Any], file: Path) -> None:
    """Write torch.export's format; `shape`: of one image, (C, *size)."""
    with _explained("pt2"):
        program = _program(network, shape)
        torch.export.save(program, str(file), extra_files={METADATA: json.dumps(about)})


def read_pt2(file: Path) -> Exported:
    """The network of a .pt2 file."""
    with _explained("pt2"):
        module = torch.export.load(str(file)).module()
    return Exported(module.forward)  # not the module, whose eval() raises


def write_onnx(network: nn.Module, shape: Sequence[int], about: dict[str, Any], file: Path) -> None:
    """Write ONNX; of more than two gigabytes, which is the format's limit, the weights into FILE.data."""
    require("onnxscript", "ONNX")
    with _explained("onnx"):
        program = torch.onnx.export(
            _program(network, shape), dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
        assert program is not None
        program.model.metadata_props[METADATA] = json.dumps(about)
        program.save(str(file))


def read_onnx(file: Path) -> Exported:
    """The network of an ONNX file, run by onnxruntime on the CPU."""
    require("onnxruntime", "the check of ONNX")
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors, which are raised
    with _explained("onnx"):
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images_NCS: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images_NCS.numpy()})[0])

    return Exported(run)


def _program(network: nn.Module, shape: Sequence[int]) -> torch.export.ExportedProgram:
    """The network's graph for any number of images of one shape."""
    images_NCS = torch.zeros(2, *shape)  # of one image, the number would become a constant
    batch = torch.export.Dim("N", min=1, max=LARGEST_BATCH)
    with torch.no_grad():
        return torch.export.export(network, (images_NCS,), dynamic_shapes=({0: batch},))


@contextmanager
def _explained(form: str) -> Iterator[None]:
    """Context manager: what the exporter raises becomes InputError with its first cause in one line, without its
    warnings on its own parts.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, OSError):  # a broken rule of ours, a full disk
        raise
    except Exception as error:  # each exporter raises classes of its own, and whatever tracing meets
        hint = "; --to pt2 may do" if form == "onnx" else ""  # bfloat16 layers, which onnxruntime lacks on the CPU
        raise InputError(f"the model cannot be exported to {form}: {_first_cause(error)}{hint}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


FORMATS = {"onnx": (write_onnx, read_onnx), "pt2": (write_pt2, read_pt2)}
