"""GGUF files: read like the gguf package reads them, as the LLaMA that they were written from."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from llm4seg.llm.architecture import loaded, meta_model, rotary_embedding
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.llm_sources.gguf_file import GGUFFile
from llm4seg.llm_sources.gguf_llama import GGUFLlama
from llm4seg.llm_sources.storage import LocalFolder
from llm4seg.utils.errors import InputError
from tests.tiny_llm import gguf_tensors, section, through_layers, tiny_llm, write_gguf


def open_file(path: Path) -> GGUFFile:
    return GGUFFile(LocalFolder(path.parent), path.name)


def open_llama(path: Path) -> GGUFLlama:
    return GGUFLlama(LocalFolder(path.parent), path.name)


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llm()


@pytest.fixture(scope="module")
def written(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.Q8_0, Kind.Q4_1])
def test_reads_what_the_gguf_package_reads(llama: Any, tmp_path: Path, kind: Kind) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama, kind)
    file, reader = open_file(path), gguf.GGUFReader(path)
    assert set(file.tensors) == {tensor.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        assert np.array_equal(file.read([tensor.name])[tensor.name], gguf.dequantize(tensor.data, tensor.tensor_type))
    ours = {name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1 and "." in name}
    assert {name: ours.get(name) for name in file.fields} == file.fields


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_layers_are_those_of_the_llm_that_was_written(tmp_path: Path, kind: str) -> None:
    llm = tiny_llm(kind)
    checkpoint = open_llama(write_gguf(tmp_path / "tiny.gguf", llm))
    for index, layer in enumerate(llm.layers):
        ours, theirs = checkpoint.tensors(f"layers.{index}", ()), layer.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_config_is_that_of_the_llm_that_was_written(tmp_path: Path, kind: str) -> None:
    llm = tiny_llm(kind)
    checkpoint, original = open_llama(write_gguf(tmp_path / "tiny.gguf", llm)), llm.config.to_dict()
    assert checkpoint.license == "apache-2.0"
    assert {name: original[name] for name in checkpoint.config} == checkpoint.config


def test_a_qwen2_layer_computes_what_the_one_that_was_written_does(tmp_path: Path) -> None:
    """Rope and biases included: the layer is rebuilt from the store that the file fills."""
    llm = tiny_llm("qwen2")
    store = fill_store(tmp_path / "store", section(write_gguf(tmp_path / "q.gguf", llm)), [2], tmp_path / "cache")
    model = meta_model(store.config)
    layer, rotary = loaded(model.layers[2], store.load(2)), rotary_embedding(model)
    entering, leaving, _ = through_layers(llm)
    hidden, expected = entering[2], leaving[2]
    index = torch.arange(hidden.shape[1])[None]
    causal = torch.full((hidden.shape[1],) * 2, -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        found = layer(hidden, attention_mask=causal, position_embeddings=rotary(hidden, index))
    assert torch.allclose(found, expected, atol=1e-5)


def test_bytes_of_a_layer_are_those_in_the_file(llama: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama, Kind.Q8_0)
    reader = gguf.GGUFReader(path)
    expected = sum(int(tensor.n_bytes) for tensor in reader.tensors if tensor.name.startswith("blk.1."))
    assert open_llama(path).nbytes("layers.1", ()) == expected


def test_biases_are_kept(tmp_path: Path) -> None:
    llama = tiny_llm(attention_bias=True, mlp_bias=True)
    checkpoint = open_llama(write_gguf(tmp_path / "tiny.gguf", llama))
    ours, theirs = checkpoint.tensors("layers.2", ()), llama.layers[2].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert meta_model(checkpoint.config).layers[2].state_dict().keys() == ours.keys()


def test_stretched_rope_of_llama_3(tmp_path: Path) -> None:
    """GGUF holds the divisors of the frequencies; transformers computes them from four numbers."""
    stretched = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    llama = tiny_llm(rope_parameters=stretched)
    plain = tiny_llm(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    divisors = plain.rotary_emb.inv_freq / llama.rotary_emb.inv_freq
    assert divisors.max() > 8  # the stretch is felt in a head as small as this
    tensors = {**gguf_tensors(llama), "rope_freqs.weight": divisors}
    config = open_llama(write_gguf(tmp_path / "tiny.gguf", llama, tensors=tensors)).config
    rotary, index = rotary_embedding(meta_model(config)), torch.arange(300)[None]
    for ours, theirs in zip(rotary(torch.zeros(1), index), llama.rotary_emb(torch.zeros(1), index), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("keep", [0, 3, 4, 10, 30, 200, 2000, -1])
def test_truncated_file(written: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"short\.gguf: not a readable GGUF file: .+"):
        open_file(path)


def test_garbage_of_any_kind_is_an_input_error(written: Path, tmp_path: Path) -> None:
    path, good, random = tmp_path / "bad.gguf", written.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        for place in random.integers(0, 1500, 5):
            bad[place] = random.integers(256)
        path.write_bytes(bad)
        try:
            checkpoint = open_llama(path)
            checkpoint.tensors("layers.0", ())
        except InputError as error:
            assert "bad.gguf" in str(error)  # noqa: PT017, a lucky change does no harm


def test_no_file_and_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("these are not the weights you are looking for")
    with pytest.raises(InputError, match=r"text\.gguf: not a readable GGUF file: it does not begin with GGUF"):
        open_file(tmp_path / "text.gguf")
    with pytest.raises(InputError, match=r"none\.gguf: no such file"):
        open_file(tmp_path / "none.gguf")


def test_unknown_version(written: Path, tmp_path: Path) -> None:
    bad = bytearray(written.read_bytes())
    bad[4] = 9
    (tmp_path / "new.gguf").write_bytes(bad)
    with pytest.raises(InputError, match=r"new\.gguf.*found version 9, allowed: 2 and 3"):
        open_file(tmp_path / "new.gguf")


def test_unsupported_architecture(llama: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "other.gguf", llama, architecture="mamba")
    with pytest.raises(
        InputError, match=r"other\.gguf: general\.architecture: found 'mamba', allowed: 'llama' or 'qwen2'"
    ):
        open_llama(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("expert_count", 8, "expert_count: found 8, allowed: 0"),
        ("rope__scaling__type", "yarn", "rope.scaling.type: found yarn, allowed: none"),
        ("rope__scale_linear", 4, "rope.scale_linear: found 4, allowed: 1"),  # of older files
        ("rope__scaling__factor", 4, "rope.scaling.factor: found 4, allowed: 1"),  # linear where no type is given
        ("rope__scaling__attn_factor", 2, "rope.scaling.attn_factor: found 2, allowed: 1"),
        ("rope__dimension_count", 8, "rope.dimension_count: found 8, allowed: 16"),
        ("attention__head_count", 0, "attention.head_count: found 0, allowed: 1 or more"),
    ],
)
def test_variants_that_would_compute_something_else(
    llama: Any, tmp_path: Path, field: str, value: str | int, message: str
) -> None:
    path = write_gguf(tmp_path / "variant.gguf", llama, **{field: value})
    with pytest.raises(InputError, match=f"variant.gguf: llama.{message}"):
        open_llama(path)


def test_a_scale_of_one_or_that_is_switched_off_is_none(llama: Any, tmp_path: Path) -> None:
    expected = open_llama(write_gguf(tmp_path / "plain.gguf", llama)).config
    for fields in ({"rope__scale_linear": 1}, {"rope__scaling__type": "none", "rope__scaling__factor": 4}):
        assert open_llama(write_gguf(tmp_path / "variant.gguf", llama, **fields)).config == expected


@pytest.mark.parametrize(("parts", "refused"), [(3, True), (1, False), (0, False)])
def test_one_of_several_files_is_refused_with_how_to_merge_them(tmp_path: Path, parts: int, refused: bool) -> None:
    path = tmp_path / "tiny-00001-of-00003.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", parts)  # 0 in a file that was merged again
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    if refused:
        with pytest.raises(InputError, match=r"00003\.gguf: is one of the 3 files .* `llama-gguf-split --merge"):
            open_file(path)
    else:
        open_file(path)


def test_heads_that_do_not_fit_the_tensors(llama: Any, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "odd.gguf", llama, attention__head_count=8, attention__key_length=16)
    with pytest.raises(InputError, match=r"odd\.gguf: blk\.0\.attn_q\.weight: found 64 rows, allowed: 128"):
        open_llama(path).tensors("layers.0", ())


def test_missing_and_unknown_tensors(llama: Any, tmp_path: Path) -> None:
    tensors = gguf_tensors(llama)
    short = {name: tensor for name, tensor in tensors.items() if name != "blk.2.ffn_up.weight"}
    with pytest.raises(InputError, match=r"short\.gguf: has no tensor blk\.2\.ffn_up\.weight"):
        open_llama(write_gguf(tmp_path / "short.gguf", llama, tensors=short)).tensors("layers.2", ())
    long = {**tensors, "blk.2.ssm_conv.weight": torch.zeros(64, 64)}
    with pytest.raises(InputError, match=r"long\.gguf: a tensor ssm_conv\.weight has no place in a llama layer"):
        open_llama(write_gguf(tmp_path / "long.gguf", llama, tensors=long)).tensors("layers.2", ())
