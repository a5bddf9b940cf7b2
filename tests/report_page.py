"""The report's page as text, and changes of what it is made from."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.report.inputs import read_inputs
from llm4seg.report.page import render
from llm4seg.utils.files import read_json, write_json


def page(config: Config) -> str:
    return render(read_inputs(config))


def words(html: str) -> str:
    """The page's text without tags, as a reader sees it."""
    return " ".join(re.sub(r"<(style|svg).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    values = read_json(path)
    change(values)
    write_json(path, values)
