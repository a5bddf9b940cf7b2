"""What lies beside an LLM's weights and says under which license they are."""

import re

from llm4seg.llm_sources.storage import Storage

CARD = "README.md"
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md")
LicenseFile = dict[str, str]  # its name and its text


def find_license(storage: Storage) -> tuple[str | None, LicenseFile | None]:
    """The license in short, which is the model card's `license:` or a license file's first line; and that file."""
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
    """A text that a person wrote, whatever its encoding: what is no UTF-8 in it is replaced."""
    return storage.text(name, optional=True, errors="replace")
