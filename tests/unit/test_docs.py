"""README, CONTRIBUTING and docs/: their length, links, commands and the map of rooms, against the files they name."""

import json
import re
import runpy
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.schema import SECTIONS_ALONE
from tests.import_graph import FLOORS, ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").glob("*.ipynb")),
    ROOT / "data/raw/README.md",
]
HOOKS = runpy.run_path(str(ROOT / "docs/site/hooks.py"))
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MODULE = re.compile(r"python -m ([a-z0-9_]+(?:\.[a-z0-9_]+)*)")
FILE = re.compile(r"`((?:docs|infra|llm4seg|pipelines|tests)/(?:[\w.-]+/)*(?:[\w-]+\.\w+)?)`")
ROOM = re.compile(r"^\| (\d* ?)\| `([\w/]+)(?:/|\.py)` \|", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
TARGET = re.compile(r"make ([a-z][a-z-]*)(?=[`\n ])")
OPTION = re.compile(r"-S '?([a-z][a-z0-9_.]+)=([^\s'`]+)")
PRESET = re.compile(r"python -m pipelines\.preset ([a-z][\w -]*)\)")
PARAMETER = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)(?:[:=] ?[^`]*)?`")
GONE = {"llm4seg.models", "llm4seg.engines", "llm4seg.models.convert"}  # what CHANGELOG says was renamed


CODE_ALONE = "```\n# A comment\nof_code[0](call)\n```\n"  # neither a heading nor a link


def text(page: Path) -> str:
    """The page's Markdown; of a notebook, its cells as the site has them."""
    content = page.read_text(encoding="utf-8")
    return HOOKS["as_markdown"](json.loads(content)) if page.suffix == ".ipynb" else content


def anchors(page: Path) -> set[str]:
    """The page's headings as GitHub and the site name them in links; comments in code are none."""
    return {HOOKS["slug"](heading) for heading in HEADING.findall(FENCED.sub("", text(page)))}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCED.sub("", text(page))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not in_site(target) or (anchor and anchor not in anchors(target)):
            yield f"{page.relative_to(ROOT)}: {link}"


def in_site(target: Path) -> bool:
    """Whether `make docs` has a file, as pages may name it: folders and code have no page."""
    return target.is_file() and (
        target.is_relative_to(ROOT / "docs") or target in [ROOT / name for name in HOOKS["OUTSIDE"]]
    )


def code_pages() -> Iterator[Path]:
    """Files whose comments, messages and docstrings name pages of docs/."""
    yield from (ROOT / name for name in ("Makefile", "params.yaml", "dvc.yaml", "pyproject.toml"))
    for folder in ("infra", "llm4seg", "pipelines", "tests"):
        files = (ROOT / folder).rglob("*")
        yield from (file for file in files if file.suffix in {".py", ".yaml", ".j2"} and file != Path(__file__))


def test_readme_is_short() -> None:
    assert len(text(ROOT / "README.md").splitlines()) <= 160


def test_every_relative_link_leads_somewhere() -> None:
    assert [broken for page in PAGES for broken in broken_links(page)] == []


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load(text(ROOT / "docs/site/mkdocs.yml"))
    names = [page for section in site["nav"] for pages in section.values() for page in pages]
    assert sorted(names) == sorted(page.with_suffix(".md").relative_to(ROOT).as_posix() for page in PAGES)


def test_notebooks_are_committed_without_outputs() -> None:
    cells = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 10
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_every_command_that_the_docs_name_is_a_module() -> None:
    named = {(module, page.name) for page in PAGES for module in MODULE.findall(text(page)) if module != "pip"}
    assert len(named) > 20
    gone = {(module, "CHANGELOG.md") for module in GONE}
    assert sorted((module, page) for module, page in named - gone if not is_command(module)) == []


def is_command(module: str) -> bool:
    """Whether `python -m module` finds something to run."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return False
    return spec is not None and (not spec.submodule_search_locations or find_spec(f"{module}.__main__") is not None)


def test_every_target_that_the_docs_name_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = {name for page in PAGES for code in CODE.findall(text(page)) for name in TARGET.findall(code)}
    assert {"repro", "test"} <= named
    assert named - targets == set()


def test_every_option_and_preset_that_the_docs_name_is_allowed() -> None:
    """A name or value that params.yaml or the schema does not know raises InputError, which names it."""
    config = Config.load(ROOT / "params.yaml")
    changes = [change for page in PAGES for change in OPTION.findall(text(page))]
    assert len(changes) > 10
    for name, value in changes:
        for one in [value] if "[" in value else value.split(","):  # several are an experiment each
            config.override({name: yaml.safe_load(one)}, SECTIONS_ALONE)  # they may go with presets
    for name in {name for page in PAGES for names in PRESET.findall(text(page)) for name in names.split()}:
        config.preset(name)


def test_every_parameter_that_the_docs_name_is_in_params_yaml() -> None:
    params = yaml.safe_load(text(ROOT / "params.yaml"))
    missing = [
        f"{page.name}: {name}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for name in PARAMETER.findall(text(page))
        if name.split(".")[0] in params and not name.endswith((".json", ".csv", ".py", ".yaml", ".html"))
        if not has(params, name.split("."))
    ]
    assert missing == []


def has(values: Any, names: list[str]) -> bool:
    """Whether nested values have an entry of these names."""
    return not names or (isinstance(values, dict) and names[0] in values and has(values[names[0]], names[1:]))


def test_every_file_that_the_docs_name_exists() -> None:
    missing = [
        f"{page.name}: {name}" for page in PAGES for name in FILE.findall(text(page)) if not (ROOT / name).exists()
    ]
    assert missing == []


def test_every_page_that_the_code_names_exists() -> None:
    page = re.compile(r"(?<![\w/.])docs/[\w/]+\.md")
    missing = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in code_pages()
        for name in page.findall(text(file))
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_the_map_has_every_room_on_its_floor() -> None:
    rows = {name.removeprefix("llm4seg/"): floor.strip() for floor, name in ROOM.findall(text(ROOT / "README.md"))}
    assert rows == {**{room: str(floor) for room, floor in FLOORS.items()}, "tests": ""}


def test_one_version_everywhere() -> None:
    version = re.search(r'^version = "(.+)"$', text(ROOT / "pyproject.toml"), re.MULTILINE)
    assert version
    assert f"\nversion: {version[1]}\n" in text(ROOT / "CITATION.cff")
    assert f"\n## {version[1]}\n" in text(ROOT / "CHANGELOG.md")


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("README.md", "[x](docs/none.md)"),
        ("docs/a.md", "[x](../README.md#no-such-heading)"),
        ("docs/a.md", "[x](../README.md#a-comment)"),
        ("README.md", "[x](docs)"),
    ],
)
def test_a_broken_link_is_found(page: str, link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.test_docs.ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"# Title\n\n{CODE_ALONE}")
    (tmp_path / page).write_text(f"# Title\n\n{CODE_ALONE}\n[y](#title) {link}\n")
    assert list(broken_links(tmp_path / page)) == [f"{page}: {link[4:-1]}"]
