"""MkDocs' hooks: pages lie in the site as in the repository, so that one link serves both; notebooks become pages."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # tests use `slug` and `as_markdown`, without MkDocs
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "data/raw/README.md")  # of docs/


def on_config(config: Any) -> None:
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug


def slug(heading: str, separator: str = "-") -> str:
    """A heading's name in links, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", separator)


def on_files(files: "Files", config: Any) -> "Files":
    """The theme's files, and those of the repository by their paths from its root."""
    from mkdocs.structure.files import File

    docs = (file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").rglob("*") if file.is_file())
    found = sorted(name for name in docs if not name.startswith("docs/site/") and "/." not in name)
    for name in [file.src_uri for file in files if file.src_dir == config.docs_dir]:
        files.remove(files.src_uris[name])
    for name in (*OUTSIDE, *found):
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
        if name.endswith(".ipynb"):
            content = as_markdown(json.loads((ROOT / name).read_text(encoding="utf-8")))
            files.append(File.generated(config, name.replace(".ipynb", ".md"), content=content))
    return files


def as_markdown(notebook: dict[str, Any]) -> str:
    """The cells of a notebook, without outputs."""
    cells = ((cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"])
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(".ipynb)", ".md)")
