"""The public names of the package, which load nothing until they are used."""

import importlib
import re

import pytest

import llm4seg
from tests.import_graph import ROOT, closure


def test_every_public_name_is_there_for_programs_and_for_type_checkers() -> None:
    for name in llm4seg.__all__:
        value = getattr(llm4seg, name)
        assert value.__module__ == llm4seg._PUBLIC[name]
        assert value is getattr(importlib.import_module(value.__module__), name)
    stub = (ROOT / "llm4seg" / "__init__.pyi").read_text(encoding="utf-8")
    listed = {name: module for module, name in re.findall(r"from ([\w.]+) import \w+ as (\w+)", stub)}
    assert listed == llm4seg._PUBLIC
    assert (ROOT / "llm4seg" / "py.typed").is_file()


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = llm4seg.train


def test_the_package_itself_depends_on_no_room() -> None:
    """It is in the closure of every stage."""
    assert closure("llm4seg") == {"llm4seg"}
