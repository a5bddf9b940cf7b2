"""Dataset `acdc`: the heart on cine MRI, Automated Cardiac Diagnosis Challenge (Bernard et al., 2018)."""

from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.config.schema.data import Classes
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import SplitLists
from llm4seg.datasets.case_files import CaseFiles, read_cases
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.layouts import by_id, count_notices, find_root, pairs, visible

SOURCE = "https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html"
CLASSES: Classes = {"right_ventricle": (1,), "myocardium": (2,), "left_ventricle": (3,)}
PARTS = {"train": ("training", 200), "test": ("testing", 100)}  # folder, published volumes
FRAME = r"(patient\d{3}_frame\d{2})"


def acdc(section: Data, cache: Path) -> Dataset:
    """The two labeled frames of each patient, at the end of diastole and of systole; whole films are passed over.

    The official split is by the owner's folders, training and testing. Checked: the published number of volumes, that
    each has labels of its size, and of the values 0 to 3.
    """
    root = find_root(section, cache, SOURCE)
    files: list[CaseFiles] = []
    notices: list[str] = []
    official: dict[str, tuple[str, ...]] = {}
    for part, (folder, published) in PARTS.items():
        images, labels = (_frames(root / folder, ending) for ending in ("", "_gt"))
        if not images and part == "test":
            notices.append(f"{folder}: there are none, so there is no official split")
            continue
        if images and not labels:
            notices.append(f"{folder}: {len(images)} images are left out, as they come without labels")
            continue
        found = pairs(images, labels, str(root / folder))
        notices += count_notices({f"volumes of {folder}": len(found)}, {f"volumes of {folder}": published})
        files += [CaseFiles(name, name.split("_")[0], (one,), (label,)) for name, (one, label) in found.items()]
        official[part] = tuple(found)
    return Dataset(
        name="acdc",
        license="for research, with the citation: do not redistribute",
        citation="Bernard et al., Deep learning techniques for automatic MRI cardiac multi-structures segmentation and "
        "diagnosis, IEEE TMI 37 (2018) 2514-2525",
        note="two volumes a patient, kept together",
        scheme=LabelScheme(tuple(CLASSES)),
        cases=read_cases(files, root, CLASSES, section.spatial_dims),
        total=len(files) if section.spatial_dims == 3 else None,
        files=tuple(one.images[0] for one in files),
        notices=tuple(notices),
        official=SplitLists("its folders", official) if len(official) == len(PARTS) else None,
    )


def _frames(folder: Path, ending: str) -> dict[str, list[Path]]:
    """The files of all patients by the names of their frames."""
    found: dict[str, list[Path]] = {}
    for patient in visible(folder):
        found |= by_id(patient, rf"{FRAME}{ending}\.nii(?:\.gz)?")
    return found
