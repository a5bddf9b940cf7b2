"""The report as a browser shows and prints it: headless Chromium, without a network."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llm4seg.utils.files import read_json, write_json
from pipelines.report import report
from tests.finished_run import LLM, finished_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # a page that needs the network fails here as it does on a plane
)
LAPTOP = (1366, 768)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium on the PATH (Debian: apt-get install chromium)"
)

# Put into a copy of the page; says what the browser made of it in an element that --dump-dom shows.
INSPECT = """
<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const all = (what) => [...document.querySelectorAll(what)];
  const box = (element) => { const { width, height } = element.getBoundingClientRect(); return [width, height]; };
  const found = {
    images: all("img").map((image) => [image.complete, image.naturalWidth, image.alt.length, ...box(image)]),
    charts: all("svg").map((chart) => [chart.querySelectorAll("path, use").length, ...box(chart)]),
    chartText: all("svg text").map((text) => box(text)[0]),
    sections: all("section").map((section) => [section.id, section.innerText.length, box(section)[1]]),
    tables: all("table").map((table) => [table.tBodies[0].rows.length, table.rows[0].cells.length]),
    emptyCells: all("th, td, dt, dd").filter((cell) => !cell.innerText.trim()).map((cell) => cell.outerHTML),
    deadLinks: all("a").filter((link) => !document.querySelector(link.getAttribute("href"))).map((link) => link.href),
    requests: performance.getEntriesByType("resource").map((one) => one.name).filter((name) => !/^data:/.test(name)),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    scrolled: all(".scroll").filter((one) => one.scrollWidth > one.clientWidth).length,
    cut: all("h1, h2, p, td, th, figcaption, .value").filter((one) => one.scrollWidth > one.clientWidth + 1).length,
  };
  const result = document.createElement("pre");
  result.id = "found-by-test";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on five classes, with an LLM."""
    root = tmp_path_factory.mktemp("browser")
    config = finished_run(root, {"data.phantom.classes": 5})
    description = read_json(config.paths.model / "model.json")
    description["llm"] = LLM
    write_json(config.paths.model / "model.json", description)
    report(config)
    return config.paths.report


def chromium(folder: Path, *arguments: str) -> str:
    """Run Chromium with a profile of its own; what it printed."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def inspect(page: Path, folder: Path, width: int) -> Any:
    """What `INSPECT` finds in a copy of the page, at a window's width."""
    copy = folder / "copy.html"
    copy.write_text(page.read_text().replace("</body>", INSPECT + "</body>"))
    dom = chromium(folder, f"--window-size={width},{LAPTOP[1]}", "--dump-dom", copy.as_uri())
    (found,) = re.findall(r'<pre id="found-by-test">(.*?)</pre>', dom, flags=re.DOTALL)
    return json.loads(html.unescape(found))


@pytest.fixture(scope="module")
def found(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return inspect(page, tmp_path_factory.mktemp("laptop"), LAPTOP[0])


def test_pictures_are_shown_and_described(found: Any) -> None:
    assert len(found["images"]) == 4
    for complete, natural_width, description, width, height in found["images"]:
        assert complete
        assert natural_width > 500
        assert description > 20
        assert width > 500
        assert height > 100


def test_charts_are_drawn(found: Any) -> None:
    assert len(found["charts"]) == 2  # phantom pictures are no slices, so there is no strip of the split
    for shapes, width, height in found["charts"]:
        assert shapes > 20
        assert width > 500
        assert height > 100
    assert len(found["chartText"]) > 20
    assert min(found["chartText"]) > 0


def test_sections_and_tables_are_filled(found: Any) -> None:
    names = [name for name, _, _ in found["sections"]]
    assert names == ["classes", "pictures", "cases", "training", "settings", "data", "split", "llm", "again"]
    assert all(letters > 40 and height > 80 for _, letters, height in found["sections"])
    assert [5, 12] in found["tables"]
    assert all(rows > 0 and columns > 1 for rows, columns in found["tables"])
    assert found["emptyCells"] == []
    assert found["deadLinks"] == []


def test_nothing_is_cut_off_or_fetched(found: Any) -> None:
    assert found["requests"] == []
    assert found["overflow"] <= 0
    assert found["cut"] == 0
    assert found["scrolled"] == 0


def test_fits_a_narrow_window(page: Path, tmp_path: Path) -> None:
    assert inspect(page, tmp_path, 600)["overflow"] <= 0


def test_the_first_screen_has_dark_text_on_white(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "screen.png"
    chromium(tmp_path, f"--window-size={LAPTOP[0]},{LAPTOP[1]}", f"--screenshot={picture}", page.as_uri())
    grey = np.asarray(Image.open(picture).convert("L"))
    assert grey.shape == LAPTOP[::-1]
    assert grey[0, 0] == 255
    assert (grey > 240).mean() > 0.6
    assert 0.01 < (grey < 90).mean() < 0.3


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext (apt-get install poppler-utils)")
def test_prints_on_a_few_pages(page: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
    text = subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout
    pages = text.split("\f")[:-1]
    assert 3 <= len(pages) <= 7
    assert all(len(page.split()) > 10 for page in pages)
    for heading in ("Result for each class", "From case to case", "Training", "Data", "Split", "LLM layer"):
        assert heading in text
