"""Outputs of the analysis: analysis.json, tables by class and by image, and the maps of three images for the report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm4seg.analysis.measures import CLASS_COLUMNS, TOKEN_COLUMNS
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, replacing, write_json
from llm4seg.utils.tables import read_table

SUMMARY, CLASSES, TOKENS, EXAMPLES = "analysis.json", "analysis.csv", "tokens.csv", "examples.safetensors"


@dataclass(frozen=True)
class AnalysisResult:
    """`summary`: the content of analysis.json. `classes`: a row an image, class and place; `tokens`: an image and
    place. `examples`: for the roles best, median and worst `ROLE/image` (C, H, W), `ROLE/mask` (H, W), `ROLE/cells`,
    the mask's tokens (rows, columns), and the map on each side of the block, `ROLE/encoder` and `ROLE/decoder_input`.
    """

    summary: dict[str, Any]
    classes: pd.DataFrame
    tokens: pd.DataFrame
    examples: dict[str, Tensor]
    means: dict[str, Tensor] = field(default_factory=dict)  # not written: of each place the images' mean tokens (M, D)


def write(folder: Path, result: AnalysisResult | None) -> None:
    """Write the folder of an analysis, whole or not at all; None: no analysis, so tables of no rows."""
    with replacing(folder) as partial:
        partial.mkdir()
        if result is None:
            write_json(partial / SUMMARY, {})
            for name, columns in ((CLASSES, CLASS_COLUMNS), (TOKENS, TOKEN_COLUMNS)):
                pd.DataFrame(columns=[*columns]).to_csv(partial / name, index=False)  # which DVC's plots look for
            return
        write_json(partial / SUMMARY, result.summary)
        for name, table in ((CLASSES, result.classes), (TOKENS, result.tokens)):
            table.to_csv(partial / name, index=False, float_format="%.6g")
        save_file(result.examples, partial / EXAMPLES)


def read(folder: Path) -> AnalysisResult | None:
    """Read the folder of an analysis; None without one. Raises InputError naming the file that is missing or broken."""
    summary = read_json(folder / SUMMARY)
    if not summary:
        return None
    try:
        examples = load_file(folder / EXAMPLES)
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{folder / EXAMPLES}: cannot be read: {error}; run `dvc repro analyze`") from None
    classes = read_table(folder / CLASSES, "case", "class", "place", "auroc")
    tokens = read_table(folder / TOKENS, "case", "place", "effective_rank")
    return AnalysisResult(summary, classes, tokens, examples)
