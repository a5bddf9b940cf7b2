"""The layer store: from a checkpoint to one file a layer, verified at every step."""

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from llm4seg.llm.layer_inputs import LayerSpec
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store, select_layers
from llm4seg.utils.errors import InputError
from tests.tiny_llm import save_llm, section, tiny_llm, write_gguf


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llm()


@pytest.fixture
def folder(llama: Any, tmp_path: Path) -> Path:
    return save_llm(tmp_path / "tiny-llama", llama)


def fill(root: Path, source: Path | str, layers: list[int], sha256: str | None = None) -> LayerStore:
    return fill_store(root / "store", section(source, sha256), layers, root / "cache")


def selected(store: LayerStore, layers: list[int], folder: Path) -> LayerStore:
    folder.mkdir()
    select_layers(store, layers, folder)
    return LayerStore(folder)


def expect(message: str, root: Path, source: Path | str, layers: list[int], sha256: str | None = None) -> None:
    with pytest.raises(InputError, match=message):
        fill(root, source, layers, sha256)
    assert not (root / "store").exists()
    assert not list(root.glob(".*.partial"))


def test_holds_the_asked_layers_under_transformers_names(llama: Any, folder: Path, tmp_path: Path) -> None:
    store = fill(tmp_path, folder, [3, 1])
    assert store.layers == (1, 3)
    for index in store.layers:
        tensors = store.load(index)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in llama.layers[index].state_dict().items())
        assert store.parameters(index) == sum(tensor.numel() for tensor in tensors.values())
    assert (store.config["model_type"], store.config["hidden_size"]) == ("llama", 64)
    assert (store.source, store.revision) == ("tiny-llama", None)


def test_prefixes_of_a_model_with_and_without_its_head(llama: Any, folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    assert "layers.0.mlp.up_proj.weight" in tensors
    headed = shutil.copytree(folder, tmp_path / "headed")
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, headed / "model.safetensors")
    store = fill(tmp_path, headed, [2])
    assert torch.equal(store.load(2)["mlp.up_proj.weight"], llama.layers[2].mlp.up_proj.weight)


def test_shards_and_a_single_file_give_the_same_tensors(llama: Any, folder: Path, tmp_path: Path) -> None:
    sharded = save_llm(tmp_path / "sharded", llama, max_shard_size="60KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 3
    assert [fill(tmp_path, sharded, [0, 2]).sha256(layer) for layer in (0, 2)] == [
        fill(tmp_path, folder, [0, 2]).sha256(layer) for layer in (0, 2)
    ]


def test_dtype_of_the_checkpoint_is_kept(llama: Any, tmp_path: Path) -> None:
    half = save_llm(tmp_path / "half", tiny_llm().to(torch.bfloat16))
    tensor = fill(tmp_path, half, [0]).load(0)["mlp.up_proj.weight"]
    assert tensor.dtype == torch.bfloat16


def test_a_layers_file_depends_on_no_other_layer_and_no_place(folder: Path, tmp_path: Path) -> None:
    alone = fill(tmp_path / "a", folder, [2]).path(2).read_bytes()
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    assert fill(tmp_path / "b", moved, [0, 1, 2, 3]).path(2).read_bytes() == alone


def test_a_layers_file_describes_itself(folder: Path, tmp_path: Path) -> None:
    store = fill(tmp_path, folder, [2])
    with safe_open(store.path(2), "pt") as file:
        note = json.loads(file.metadata()["llm4seg"])
    assert note["layer"] == 2
    assert note["tensors_sha256"] == store.sha256(2)
    assert note["architecture"] == store.config
    assert (note["source"], note["licence"]) == (store.source, store.license)


def test_more_layers_keep_those_present(folder: Path, tmp_path: Path) -> None:
    before = fill(tmp_path, folder, [1]).path(1).stat()
    store = fill(tmp_path, folder, [2])
    assert store.layers == (1, 2)
    assert store.path(1).stat().st_ino == before.st_ino
    assert store.path(1).stat().st_mtime_ns == before.st_mtime_ns


def folder_sha256(folder: Path) -> str:
    """What `llm.sha256` is compared with, as the shell says it."""
    command = "LC_ALL=C sha256sum config.json model*.safetensors* | sha256sum"
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout.split()[0]


def test_nothing_is_written_when_all_is_there_for_certain(folder: Path, tmp_path: Path) -> None:
    sha256 = folder_sha256(folder)
    before = os.stat(fill(tmp_path, folder, [1, 2], sha256).folder)  # noqa: PTH116
    assert fill(tmp_path, folder, [2], sha256).folder.stat().st_ino == before.st_ino


def test_a_source_that_may_have_changed_is_compared_with_what_is_there(folder: Path, tmp_path: Path) -> None:
    before = {layer: fill(tmp_path, folder, [1, 2]).path(layer).stat().st_ino for layer in (1, 2)}
    tensors = load_file(folder / "model.safetensors")
    tensors["layers.2.mlp.up_proj.weight"] += 1
    save_file(tensors, folder / "model.safetensors")
    store = fill(tmp_path, folder, [1])
    assert store.path(1).stat().st_ino == before[1]
    assert store.path(2).stat().st_ino != before[2]
    assert torch.equal(store.load(2)["mlp.up_proj.weight"], tensors["layers.2.mlp.up_proj.weight"])


def test_a_layer_whose_file_is_gone_is_read_again(folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, folder, [1, 2]).path(1).unlink()
    assert fill(tmp_path, folder, [1, 2]).load(1)


@pytest.mark.parametrize("file", ["layer_1.safetensors", "norm.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_read_again(folder: Path, tmp_path: Path, file: str, damage: str) -> None:
    """Also where the source is certain to be the same, so that nothing else is read."""
    sha256 = folder_sha256(folder)
    store = fill(tmp_path, folder, [1, 2], sha256)
    kept = store.path(2).stat().st_ino
    before = {name: tensor.clone() for name, tensor in (store.load(1) | store.load_norm()).items()}  # not the file's
    if damage == "cut":
        (store.folder / file).write_bytes((store.folder / file).read_bytes()[:-100])
    else:
        save_file({name: tensor + 1 for name, tensor in load_file(store.folder / file).items()}, store.folder / file)
    again = fill(tmp_path, folder, [1, 2], sha256)
    assert all(torch.equal(tensor, before[name]) for name, tensor in (again.load(1) | again.load_norm()).items())
    assert again.path(2).stat().st_ino == kept


def test_a_damaged_description_is_written_again(folder: Path, tmp_path: Path) -> None:
    store = fill(tmp_path, folder, [1])
    path = store.folder / "config.json"
    good = path.read_text()
    said = json.loads(good)
    lacking = [{key: said[key] for key in said if key != name} for name in ("norm", "layers", "architecture")]
    wrong = [said | {"layer_specs": specs} for specs in ([], {"1": {}}, {"one": "x"})]
    for damage in ["", "{", "[]", "null", *map(json.dumps, lacking + wrong)]:
        path.write_text(damage)
        with pytest.raises(InputError, match=r"store/config\.json: not "):
            LayerStore(store.folder)
        fill(tmp_path, folder, [1])
        assert path.read_text() == good


def test_a_store_of_an_earlier_version(folder: Path, tmp_path: Path) -> None:
    """It has no specs of the layers: `fetch_llm` adds them, and reads no layer where the source is the same."""
    sha256 = folder_sha256(folder)
    store = fill(tmp_path, folder, [1, 2], sha256)
    said, inode = json.loads((store.folder / "config.json").read_text()), store.path(1).stat().st_ino
    old = {name: value for name, value in said.items() if name not in ("layer_specs", "transformers")}
    (store.folder / "config.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"store/config\.json: has no layer_specs, .*; run `dvc repro fetch_llm`$"):
        LayerStore(store.folder).spec(1)
    again = fill(tmp_path, folder, [1], sha256)
    assert json.loads((again.folder / "config.json").read_text()) == said
    assert again.path(1).stat().st_ino == inode


def test_layers_are_judged_again_by_another_transformers(folder: Path, tmp_path: Path) -> None:
    sha256 = folder_sha256(folder)
    path = fill(tmp_path, folder, [1], sha256).folder / "config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "transformers": "5.0.0", "layer_specs": {"1": "not supported"}}))
    with pytest.raises(InputError, match=r"^not supported$"):
        LayerStore(path.parent).spec(1)
    fill(tmp_path, folder, [1], sha256)
    assert json.loads(path.read_text()) == said


def test_specs_of_layers_do_not_depend_on_which_are_held(folder: Path, tmp_path: Path) -> None:
    store = fill(tmp_path, folder, [1])
    spec = LayerSpec(frozenset({"attention_mask", "position_embeddings", "position_ids"}), None, None)
    assert [store.spec(layer) for layer in range(4)] == [spec] * 4
    with pytest.raises(InputError, match=r"^model\.llm\.layer: found 4, allowed: 0 to 3 \(tiny-llama\)$"):
        store.spec(4)
    assert selected(fill(tmp_path, folder, [1, 2]), [2], tmp_path / "used").spec(0) == spec


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_links(folder: Path, tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    fill(tmp_path, folder, [1])
    store = fill(tmp_path, folder, [2])
    assert selected(store, [1], tmp_path / "used").load(1)


def test_another_source_replaces_the_store(folder: Path, tmp_path: Path) -> None:
    first = fill(tmp_path, folder, [1, 2])
    old = first.sha256(1)
    save_llm(folder, tiny_llm(seed=1))
    changed = fill(tmp_path, folder, [1])
    assert changed.sha256(1) != old
    other = save_llm(folder.with_name("another"), tiny_llm(seed=1))
    store = fill(tmp_path, other, [1])
    assert store.layers == (1,)
    assert store.sha256(1) == changed.sha256(1)


def test_sha256_of_a_folder_is_what_the_shell_says(llama: Any, tmp_path: Path) -> None:
    sharded = save_llm(tmp_path / "sharded", llama, max_shard_size="60KB")
    said = folder_sha256(sharded)
    assert fill(tmp_path, sharded, [0], sha256=said).source_sha256 == said


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_wrong_sha256(llama: Any, folder: Path, tmp_path: Path, kind: str) -> None:
    source = folder if kind == "folder" else write_gguf(tmp_path / "tiny.gguf", llama)
    expect(rf"llm\.sha256: found {'0' * 64}, but .*{source.name} has [0-9a-f]{{64}}", tmp_path, source, [0], "0" * 64)


def test_layer_out_of_range(folder: Path, tmp_path: Path) -> None:
    expect(r"model\.llm\.layer.*: found layer 4, allowed: 0 to 3 \(tiny-llama\)", tmp_path, folder, [1, 4])


def test_wrong_sha256_of_a_layer(folder: Path, tmp_path: Path) -> None:
    right, wrong = fill(tmp_path / "first", folder, [2]).sha256(2), "0" * 64
    wanted = section(folder).model_copy(update={"layer_sha256": {2: wrong, 3: wrong}})
    message = rf"llm\.layer_sha256\.2: found {wrong}, but layer 2 of tiny-llama has {right}"
    with pytest.raises(InputError, match=message):
        fill_store(tmp_path / "store", wanted, [1, 2], tmp_path / "cache")
    assert not (tmp_path / "store").exists()
    fill(tmp_path, folder, [2])
    with pytest.raises(InputError, match=message):
        fill_store(tmp_path / "store", wanted, [1], tmp_path / "cache")
    wanted = section(folder).model_copy(update={"layer_sha256": {2: right, 3: wrong}})  # of 3 nothing was asked
    assert fill_store(tmp_path / "store", wanted, [2], tmp_path / "cache").load(2)


def test_sha256_is_recorded_when_it_is_checked(folder: Path, tmp_path: Path) -> None:
    """Layers fetched before the check stay: they are compared, since the file may have changed since."""
    first = fill(tmp_path, folder, [2])
    inode, sha256 = first.path(2).stat().st_ino, folder_sha256(folder)
    assert first.source_sha256 is None
    store = fill(tmp_path, folder, [2], sha256)
    assert store.source_sha256 == sha256
    assert store.path(2).stat().st_ino == inode


@pytest.mark.parametrize("source", ["hub://meta/llama", "no/such/folder", "params.yaml", "no/such.gguf"])
def test_unknown_source(tmp_path: Path, source: str) -> None:
    expect(r"llm\.source: .*(allowed: package://|no such file)", tmp_path, source, [0])


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_corrupt_safetensors(folder: Path, tmp_path: Path, damage: bytes | None) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    expect(r"model\.safetensors: not a readable safetensors file: .+", tmp_path, folder, [0])


def test_corrupt_gguf(llama: Any, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", llama)
    file.write_bytes(file.read_bytes()[:-100])
    expect(r"tiny\.gguf: not a readable GGUF file: the file ends before", tmp_path, file, [0])


def test_missing_files(llama: Any, folder: Path, tmp_path: Path) -> None:
    sharded = save_llm(tmp_path / "sharded", llama, max_shard_size="60KB")
    next(sharded.glob("model-00002-*")).unlink()
    expect(r"sharded: has no model-00002-of-\d+\.safetensors; needed: ", tmp_path, sharded, [0])
    (folder / "config.json").unlink()
    expect(r"tiny-llama: has no config\.json; needed: ", tmp_path, folder, [0])


def test_index_that_promises_too_much(llama: Any, tmp_path: Path) -> None:
    sharded = save_llm(tmp_path / "sharded", llama, max_shard_size="60KB")
    index = sharded / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    said["weight_map"]["layers.0.extra.weight"] = said["weight_map"]["layers.0.mlp.up_proj.weight"]
    index.write_text(json.dumps(said))
    expect(r"safetensors: has no tensor layers\.0\.extra\.weight, which model", tmp_path, sharded, [0])
    for said in ({}, {"weight_map": []}):
        index.write_text(json.dumps(said))
        expect(r"index\.json: has no weight_map", tmp_path, sharded, [0])
    index.write_text(json.dumps({"weight_map": {"layers.0.x": None}}))
    expect(r"index\.json: weight_map: found None, allowed: names of files", tmp_path, sharded, [0])
    index.write_text(json.dumps({"weight_map": {"layers.0.x": "../../elsewhere.safetensors"}}))
    expect(r"index\.json: names \.\./\.\./elsewhere\.safetensors, which is outside", tmp_path, sharded, [0])


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("mlp.up_proj.weight", None, r"has no tensor mlp\.up_proj\.weight"),
        (
            "self_attn.q_proj.bias",
            torch.zeros(64),
            r"tensor self_attn\.q_proj\.bias has no place in a LlamaDecoderLayer",
        ),
        ("mlp.up_proj.weight", torch.zeros(2, 3), r"mlp\.up_proj\.weight: found shape \[2, 3\], allowed: \[96, 64\]"),
        (
            "input_layernorm.weight",
            torch.full((64,), torch.nan),
            r"input_layernorm\.weight holds values that are not finite",
        ),
    ],
)
def test_tensors_that_make_no_layer(
    folder: Path, tmp_path: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    tensors = load_file(folder / "model.safetensors") | ({} if tensor is None else {f"layers.2.{name}": tensor})
    if tensor is None:
        del tensors[f"layers.2.{name}"]
    save_file(tensors, folder / "model.safetensors")
    expect(f"tiny-llama: layer 2: {message}", tmp_path, folder, [1, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "model_type: found 'lama', which transformers does not know"),
        ({"model_type": ["llama"]}, r"model_type: found \['llama'\], which transformers does not know"),
        ({"model_type": "gpt2"}, "model_type: 'gpt2' is not supported: its model has no list"),
        ({"num_hidden_layers": 6}, r"tiny-llama: has no tensors layers\.5\.\*"),
    ],
)
def test_config_that_does_not_fit(folder: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    expect(message, tmp_path, folder, [5] if "num_hidden_layers" in changes else [0])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors, name = load_file(folder / "model.safetensors"), "layers.2.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(dtype)
    save_file(tensors, folder / "model.safetensors")
    assert fill(tmp_path, folder, [2]).load(2)["mlp.up_proj.weight"].dtype == dtype
    tensors[name].view(torch.uint8)[0] = 0x7F  # NaN in both
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"layer 2: mlp\.up_proj\.weight holds values that are not finite"):
        fill(tmp_path, folder, [2])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_whole_numbers_are_refused_since_their_scale_is_missing(
    folder: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors, name = load_file(folder / "model.safetensors"), "layers.2.mlp.up_proj.weight"
    tensors[name] = (100 * tensors[name]).to(dtype)
    save_file(tensors, folder / "model.safetensors")
    message = rf"layer 2: mlp\.up_proj\.weight: found {str(dtype)[6:]} without a scale, allowed: floating point"
    expect(message, tmp_path, folder, [2])
    fill(tmp_path, folder, [1])


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123456\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json", "tiny.gguf"])
def test_a_clone_without_git_lfs(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    source = folder / name if name == "tiny.gguf" else folder
    expect(rf"{name}: is a git-lfs pointer of 131 bytes, not the file: run `git lfs pull`", tmp_path, source, [0])


def test_a_license_in_another_encoding(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "LICENSE").write_bytes("Licence à soi\n".encode("latin-1"))
    assert fill(tmp_path, folder, [0]).license == "Licence \N{REPLACEMENT CHARACTER} soi"


def test_config_without_a_needed_entry(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{}")
    expect(r"config\.json: has no model_type", tmp_path, folder, [0])


@pytest.mark.parametrize(
    ("file", "text", "license"),
    [
        ("README.md", "---\ntags: [a]\nlicense: llama3.2\n---\nlicense: no\n", "llama3.2"),
        ("LICENSE.txt", "\n  A Licence of Its Own\nwith text\n", "A Licence of Its Own"),
        ("other.txt", "license: mit", None),
    ],
)
def test_license_of_a_folder(folder: Path, tmp_path: Path, file: str, text: str, license: str | None) -> None:
    (folder / "README.md").unlink(missing_ok=True)
    (folder / file).write_text(text)
    store = fill(tmp_path, folder, [0])
    assert store.license == license
    recorded = json.loads((store.folder / "config.json").read_text())["licence_file"]
    assert recorded == ({"name": file, "text": text} if file.startswith("LICENSE") else None)


def test_a_license_beside_a_single_file_here_may_be_anythings(llama: Any, tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("of the project that the file happens to lie in\n")
    store = fill(tmp_path, write_gguf(tmp_path / "tiny.gguf", llama), [0])
    assert json.loads((store.folder / "config.json").read_text())["licence_file"] is None


def test_files_of_the_store_have_the_usual_permissions(folder: Path, tmp_path: Path) -> None:
    store = fill(tmp_path, folder, [0])
    assert store.path(0).stat().st_mode == (store.folder / "config.json").stat().st_mode


def test_changed_or_missing_layer(folder: Path, tmp_path: Path) -> None:
    store = fill(tmp_path, folder, [1])
    with pytest.raises(
        InputError, match=r"model\.llm\.layer: found 2, allowed: 1 \(in .*store\); run `dvc repro fetch_llm`"
    ):
        store.load(2)
    tensors = store.load(1)
    tensors["mlp.up_proj.weight"][3, 5] += 1e-6
    save_file(tensors, store.path(1))
    with pytest.raises(
        InputError, match=r"layer_1\.safetensors: found sha256 [0-9a-f]{64} of its tensors, config\.json"
    ):
        store.load(1)
    store.path(1).write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"layer_1\.safetensors: cannot be read"):
        store.load(1)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: no such file; run the stage"):
        LayerStore(tmp_path)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 20 000 bytes. Not a fixture: pytest's own output may go to a longer file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_last_good_store(folder: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in fill(tmp_path, folder, [1]).folder.iterdir()}
    with full_disk(), pytest.raises(OSError, match="File too large"):
        fill(tmp_path, folder, [2])
    assert {file.name: file.read_bytes() for file in (tmp_path / "store").iterdir()} == before
    assert not list(tmp_path.glob(".*.partial"))
