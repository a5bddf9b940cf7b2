"""Writing and reading prepared data: shards, manifest, audit, and what becomes of broken files."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llm4seg.config import Config
from llm4seg.config.schema import Data
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared, SplitLists, Unit, duplicates
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.datasets.resample import normalize, resize_image, resize_labels
from llm4seg.datasets.writer import ShardWriter, write_prepared
from llm4seg.utils.errors import InputError
from tests.separate_volumes import DAMAGED, separate_volumes
from tests.tiny import PARAMS

SECTION: Data = Config.load(PARAMS).override({"data.size": [16, 16]}).data

VOLUMES = {"spatial_dims": 3, "grid": "spacing"}


def raw(name: str, **changes: object) -> RawCase:
    random = np.random.default_rng([ord(letter) for letter in name])
    labels = np.zeros((20, 12), dtype=np.uint8)
    labels[4:8, 2:5], labels[12:14, 6:9] = 1, 2
    image = random.integers(0, 255, (1, 20, 12), dtype=np.uint8)
    case = RawCase(id=name, group=name[0], source=f"{name}.png", image=image, labels=labels, spacing=(0.5, 0.7))
    return replace(case, **changes)  # type: ignore[arg-type]


def dataset(cases: Sequence[RawCase], classes: tuple[str, ...] = ("organ", "lesion")) -> Dataset:
    return Dataset("toy", "CC0", "nobody", "a toy", LabelScheme(tuple(classes)), iter(cases), len(cases))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cases = [raw("a1"), raw("a2", volume="a", position=3, image=raw("a2").image.astype(np.int16) - 1000), raw("b1")]
    prepared = write_prepared(dataset(cases), SECTION, tmp_path / "out")
    assert (prepared.name, prepared.license, prepared.citation, prepared.note) == ("toy", "CC0", "nobody", "a toy")
    assert (prepared.spatial_dims, prepared.channels, prepared.size) == (2, 1, (16, 16))
    assert prepared.classes == ("organ", "lesion")
    assert list(prepared.cases) == ["a1", "a2", "b1"]
    for case in cases:
        image, labels = prepared.original(case.id)
        assert np.array_equal(image.numpy(), case.image)
        assert image.numpy().dtype == case.image.dtype
        assert np.array_equal(labels.numpy(), case.labels)
        image, labels = prepared.resampled(case.id)
        assert np.array_equal(image.numpy(), resize_image(normalize(case.image, SECTION.intensity), (16, 16)))
        assert np.array_equal(labels.numpy(), resize_labels(case.labels, (16, 16)))
        assert (image.dtype, labels.dtype) == (torch.float32, torch.uint8)
    described = prepared.cases["a2"]
    assert (described.group, described.source, described.volume, described.position) == ("a", "a2.png", "a", 3)
    assert (described.shape, described.spacing) == ((20, 12), (0.5, 0.7))
    assert described.pixels == {"organ": 12, "lesion": 6}


def test_lists_of_a_split_are_beside_the_data(tmp_path: Path) -> None:
    cases = [raw("a1"), raw("b1")]
    official = SplitLists("theirs", {"train": ("a1",), "test": ("b1",)}, ({"val": ("a1",)}, {"val": ("b1",)}))
    own = SplitLists("own.txt", {"test": ("a1",)})
    plain = write_prepared(dataset(cases), SECTION, tmp_path / "plain")
    data = write_prepared(replace(dataset(cases), official=official), SECTION, tmp_path / "lists", own)
    assert (data.official, data.split_file) == (official, own)
    assert (plain.official, plain.split_file) == (None, None)
    assert data.sha256 == plain.sha256  # a model that was trained on the one fits the other
    assert "official" not in (plain.folder / "manifest.json").read_text()


def test_equal_input_gives_equal_bytes_and_any_change_another_digest(tmp_path: Path) -> None:
    def write(name: str, cases: Sequence[RawCase], section: Data = SECTION) -> Prepared:
        return write_prepared(dataset(cases), section, tmp_path / name)

    one, again = (write(name, [raw("a1"), raw("b1")]) for name in ("one", "again"))
    for file in one.folder.iterdir():
        assert file.read_bytes() == (again.folder / file.name).read_bytes()
    other_labels = raw("b1").labels.copy()
    other_labels[0, 0] = 1
    changed = [
        write("image", [raw("a1"), raw("b1", image=raw("b1").image + np.uint8(1))]),
        write("labels", [raw("a1"), raw("b1", labels=other_labels)]),
        write("group", [raw("a1"), raw("b1", group="c")]),
        write("intensity", [raw("a1"), raw("b1")], SECTION.model_copy(update={"intensity": "unit"})),
    ]
    assert len({prepared.sha256 for prepared in (one, again, *changed)}) == 5


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 2.0), "auto"])
def test_the_number_of_threads_changes_no_byte(tmp_path: Path, spacing: tuple[float, ...] | str | None) -> None:
    """Of images that are resized, and of volumes at a spacing."""
    random = np.random.default_rng(0)
    dims = 2 if spacing is None else 3
    section = SECTION if dims == 2 else SECTION.model_copy(update={**VOLUMES, "spacing": spacing})
    cases = []
    for number in range(9):
        shape = (20 + number, 24, 10)[:dims]
        image = random.integers(0, 255, (1, *shape), dtype=np.uint8)
        labels = (image[0] // 86).astype(np.uint8)
        cases.append(raw(f"a{number}", image=image, labels=labels, spacing=(1.0, 0.5 + number, 2.0)[:dims]))
    one, three = (
        write_prepared(dataset(cases), section, tmp_path / str(workers), workers=workers) for workers in (1, 3)
    )
    assert {file.name for file in one.folder.iterdir()} == {file.name for file in three.folder.iterdir()}
    for file in one.folder.iterdir():
        assert file.read_bytes() == (three.folder / file.name).read_bytes()


@pytest.mark.parametrize(("spacing", "workers"), [((1.0, 1.5, 2.0), 2), ((1.0, 1.5, 2.0), 4), ("auto", 2)])
def test_processes_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, ...] | str, workers: int
) -> None:
    """Nor does the order in which they are ready, and whether a volume is a shard of its own."""
    monkeypatch.setattr("llm4seg.datasets.shards.VOLUME_BYTES", 300_000)
    section = SECTION.model_copy(update={**VOLUMES, "spacing": spacing})
    volumes = replace(dataset([]), cases=separate_volumes(range(5), 2**28))
    one = write_prepared(volumes, section, tmp_path / "one")
    assert len({*one.folder.glob("native-*")}) > 2
    several = write_prepared(volumes, section, tmp_path / "several", workers=workers)
    assert {file.name for file in one.folder.iterdir()} == {file.name for file in several.folder.iterdir()}
    for file in one.folder.iterdir():
        assert file.read_bytes() == (several.folder / file.name).read_bytes()


@pytest.mark.parametrize("size", [0, 2**28])
def test_an_error_in_a_thread_or_process_is_the_readers_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    section = SECTION.model_copy(update={**VOLUMES, "spacing": (1.0, 1.0, 2.0)})
    volumes = replace(dataset([]), cases=separate_volumes(range(DAMAGED - 2, DAMAGED + 2), size))
    with pytest.raises(InputError, match=r"^a7\.nii: cannot be read as an image: damaged$"):
        write_prepared(volumes, section, tmp_path / "out", workers=2)
    assert not [*tmp_path.iterdir()]


def test_how_intensities_were_normalized_is_written(tmp_path: Path) -> None:
    """The window where it counts, and only there: another one would change nothing elsewhere."""
    for intensity, window in {"zscore": None, "window": (-160, 240)}.items():
        section = SECTION.model_copy(update={"intensity": intensity, "window": (-160, 240)})
        prepared = write_prepared(dataset([raw("a1"), raw("b1")]), section, tmp_path / intensity)
        assert (prepared.intensity, prepared.window) == (intensity, window)


def test_equal_images_have_equal_hashes(tmp_path: Path) -> None:
    cases = [raw("a1"), raw("a2", image=raw("a1").image), raw("b1", image=raw("a1").image.astype(np.int16))]
    described = write_prepared(dataset(cases), SECTION, tmp_path / "out").cases
    assert described["a1"].sha256 == described["a2"].sha256
    assert described["a1"].sha256 != described["b1"].sha256
    assert duplicates(described.values()) == 1


def test_shards_are_limited(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "native", limit=1000)
    names = [writer.add(str(n), image=np.full((1, size), n, np.uint8)) for n, size in sizes()]
    writer.flush()
    assert names == [f"native-{number:03d}.safetensors" for number in (0, 0, 1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(set(names)) == writer.names


def sizes() -> list[tuple[int, int]]:
    return list(enumerate((400, 400, 400, 5000, 20)))


def test_it_crosses_process_borders_and_reads_no_torch_until_asked(tmp_path: Path) -> None:
    prepared = write_prepared(dataset([raw("a1")]), SECTION, tmp_path / "out")
    before = prepared.resampled("a1")[0]
    assert torch.equal(pickle.loads(pickle.dumps(prepared)).resampled("a1")[0], before)
    program = "import sys, llm4seg.data.split, llm4seg.datasets.writer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_failed_run_leaves_the_last_good_output(tmp_path: Path) -> None:
    write_prepared(dataset([raw("a1")]), SECTION, tmp_path / "out")
    with pytest.raises(InputError, match="duplicate"):
        write_prepared(dataset([raw("b1"), raw("b1")]), SECTION, tmp_path / "out")
    assert list(Prepared(tmp_path / "out").cases) == ["a1"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_units_that_differ_are_warned_of(tmp_path: Path) -> None:
    def noticed(*units: Unit) -> tuple[str, ...]:
        cases = [raw(f"{letter}1", unit=unit) for letter, unit in zip("abc", units, strict=True)]
        return write_prepared(dataset(cases), SECTION, tmp_path / "out").notices

    assert noticed("mm", "mm", "mm") == noticed("px", "px", "px") == ()
    (warning,) = noticed("px", "mm", "px")
    assert warning == (
        "distances are in mm for some cases (b1.png) and in px, without a pixel size, for others (a1.png): their means "
        "over cases say nothing, and left is not known in the latter"
    )


NOTHING = np.zeros((20, 12), dtype=np.uint8)
NAN = np.full((1, 20, 12), np.nan, dtype=np.float32)
MISTAKES = {
    "toy: no images found": [],
    "b1.png: duplicate case id 'a1', also a1.png": [raw("a1"), raw("a1", source="b1.png")],
    r"a1.png: image size \(20, 12\) differs from mask size \(20, 11\)": [raw("a1", labels=NOTHING[:, :11])],
    "b1.png: found 3 channels, but a1.png has 1": [raw("a1"), raw("b1", image=np.repeat(raw("b1").image, 3, axis=0))],
    "a1.png: the image of case 'a1' has 240 NaN or infinite values": [raw("a1", image=NAN)],
    "toy: nothing but background in the masks of 1 cases": [raw("a1", labels=NOTHING)],
    "toy: class 'lesion' occurs in none of the 1 cases": [raw("a1", labels=np.minimum(raw("a1").labels, 1))],
}


@pytest.mark.parametrize(("message", "cases"), MISTAKES.items(), ids=list(MISTAKES))
def test_the_audit_names_each_mistake(tmp_path: Path, message: str, cases: list[RawCase]) -> None:
    with pytest.raises(InputError, match=message):
        write_prepared(dataset(cases), SECTION, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_broken_outputs_are_named(tmp_path: Path) -> None:
    prepared = write_prepared(dataset([raw("a1")]), SECTION, tmp_path / "out")
    shard = tmp_path / "out" / "native-000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    prepared.resampled("a1")
    with pytest.raises(InputError, match=r"native-000\.safetensors: cannot be read.*run `dvc repro prepare`"):
        prepared.original("a1")
    shard.unlink()
    with pytest.raises(InputError, match=r"native-000\.safetensors: cannot be read"):
        prepared.original("a1")
    with pytest.raises(InputError, match="has no case 'a9'"):
        prepared.resampled("a9")
    (tmp_path / "out" / "manifest.json").write_text('{"name": "toy"}')
    with pytest.raises(InputError, match=r"manifest\.json: not a manifest that `prepare` wrote"):
        Prepared(tmp_path / "out")
    with pytest.raises(InputError, match=r"nowhere/manifest\.json: no such file"):
        Prepared(tmp_path / "nowhere")


def test_pairs_of_classes_are_labels(tmp_path: Path) -> None:
    paired = SECTION.model_copy(update={"paired": (("lesion", "organ"),)})
    assert write_prepared(dataset([raw("a1")]), paired, tmp_path / "out").paired == ((2, 1),)
    unknown = SECTION.model_copy(update={"paired": (("lesion", "left"),)})
    with pytest.raises(InputError, match=r"data\.paired: found left, allowed: organ, lesion"):
        write_prepared(dataset([raw("a1")]), unknown, tmp_path / "none")
    assert not (tmp_path / "none").exists()
