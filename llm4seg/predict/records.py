"""What a folder of predictions has of each finished case, so that a broken-off run is gone on with; and volumes.csv."""

import csv
import glob
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm4seg.models.saved import DESCRIPTION, WEIGHTS
from llm4seg.predict.input_image import InputImage
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, remove, sha256_file, write_text
from llm4seg.utils.provenance import MEASURING, code_digest

FOLDER = ".predict"  # in the folder of the outputs
TABLE = "volumes.csv"
COLUMNS = ("case", "class", "count", "size", "unit")
ML = 1000.0  # mm3
COUNTED = 2**20  # pixels at a time: bincount makes integers of 8 bytes of them
HEADERS = (".mhd", ".nhdr")  # the pixels are in a .raw, .zraw or .raw.gz


@dataclass(frozen=True)
class Record:
    """A finished case. `digest`: of the image's files and all that decides the result; `outputs`: paths of files within
    the folder; `rows`: of volumes.csv.
    """

    digest: str
    outputs: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, out: Path, case: str) -> "Record | None":
        """That of a case; None where there is none, or it is no record."""
        try:
            values = read_json(_path(out, case))
            return cls(values["digest"], tuple(values["outputs"]), tuple(values["rows"]))
        except (InputError, KeyError, TypeError):
            return None

    def write(self, out: Path, case: str) -> None:
        """Write it, atomically."""
        write_text(_path(out, case), json.dumps(vars(self)))  # indented, it is encoded by Python, not by C

    def is_of(self, digest: str, out: Path) -> bool:
        """Whether this is the result that is wanted, and its files are there."""
        return self.digest == digest and all((out / name).is_file() for name in self.outputs)


def _path(out: Path, case: str) -> Path:
    return out / FOLDER / f"{case}.json"


def delete_outputs(out: Path, case: str) -> None:
    """Delete a case's outputs and record, which are of another image or model."""
    record = Record.read(out, case)
    for name in record.outputs if record else ():
        remove(out / name)
    remove(_path(out, case))


def forget(out: Path, case: str) -> None:
    """Delete a case's record before its files are written anew: they are no longer what it says."""
    remove(_path(out, case))


def model_digest(folders: Sequence[Path], options: Mapping[str, Any]) -> str:
    """The sha256 of all that decides a mask beside the image: models, options and the code with its libraries."""
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=str).encode())
    digest.update(code_digest(*MEASURING, "datasets", "predict").encode())
    for folder in folders:
        for name in (DESCRIPTION, WEIGHTS):
            digest.update(sha256_file(folder / name).encode())
    return digest.hexdigest()


def case_digest(files: Sequence[Path], model: str) -> str:
    """The sha256 of an image's files, with those that headers in files of their own name, and of the model's digest."""
    parts = [*files]
    for path in files:
        if path.suffix.lower() in HEADERS:
            parts += sorted(path.parent.glob(f"{glob.escape(path.stem)}.*raw*"))
    return hashlib.sha256("\n".join([model, *map(sha256_file, parts)]).encode()).hexdigest()


def volume_rows(
    case: str, one: InputImage, labels_S: np.ndarray, classes: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """A row a class: its pixels or voxels (`count`), and their `size` in ml, of a flat image in mm2, or in px."""
    of_label = np.zeros(256, np.int64)
    labels = labels_S.ravel()
    for start in range(0, labels.size, COUNTED):
        of_label += np.bincount(labels[start : start + COUNTED], minlength=256)
    each, unit = _size(one)
    rows = []
    for name, values in classes.items():
        count = int(of_label[[*values]].sum())
        rows.append({"case": case, "class": name, "count": count, "size": float(f"{count * each:.6g}"), "unit": unit})
    return rows


def _size(one: InputImage) -> tuple[float, str]:
    """The size of a pixel, and its unit."""
    if one.spacing is None or one.geometry is None:
        return 1.0, "px"
    axes = np.array(one.geometry.affine)[:3, :3]
    if len(one.shape) == 2:
        return float(np.linalg.norm(np.cross(axes[:, 0], axes[:, 1]))), "mm2"
    return abs(float(np.linalg.det(axes))) / ML, "ml"


def write_table(out: Path) -> None:
    """Write volumes.csv of all finished cases in a folder, by name, atomically."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for record in _records(out):
        table.writerows(record.rows)
    write_text(out / TABLE, text.getvalue())


def _records(out: Path) -> Iterator[Record]:
    folder = out / FOLDER
    for path in sorted(folder.rglob("*.json")):
        record = Record.read(out, path.relative_to(folder).as_posix().removesuffix(".json"))
        if record is not None and all((out / name).is_file() for name in record.outputs):
            yield record
