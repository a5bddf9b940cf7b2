"""The license of an LLM: its model card and the license file beside its weights."""

import re

from llm4seg.llm_sources.storage import Storage

CARD = "README.md"
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md")
LicenseFile = dict[str, str]  # its name and its text


def find_license(storage: Storage) -> tuple[str | None, LicenseFile | None]:
    """The license's short name, from the model card's `license:` or the license file's first line; and that file."""
    file = find_license_file(storage)
    card = re.match(r"---\n(?:(?!---).*\n)*?license: *(.+)\n", _text(storage, CARD) or "")
    if card:
        return card[1].strip(), file
    lines = (line.strip() for line in (file["text"] if file else "").splitlines())
    return next((line for line in lines if line), None), file


def find_license_file(storage: Storage) -> LicenseFile | None:
    """The license file beside the weights; None where there is none."""
    for name in FILES:
        if (text := _text(storage, name)) is not None:
            return {"name": name, "text": text}
    return None


def _text(storage: Storage, name: str) -> str | None:
    """A text file of any encoding: bytes that are not UTF-8 are replaced."""
    return storage.text(name, optional=True, errors="replace")
