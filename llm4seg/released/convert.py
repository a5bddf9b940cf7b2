"""The command that converts checkpoints of the released code to trained models, and back."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from safetensors.torch import save
from torch import Tensor

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore, named_store
from llm4seg.models import Hybrid, build_model
from llm4seg.models.hybrid import LLM, SUPERVISED
from llm4seg.models.saved import DESCRIPTION, WEIGHTS, load_trained, read_metadata, read_weights, trained_store
from llm4seg.released.architecture import (
    FAMILIES,
    LLM_PREFIX,
    RELEASED,
    Shape,
    check_expressible,
    check_official,
    from_official,
    official_shape,
    to_official,
)
from llm4seg.released.checkpoint_file import read_official, write_official
from llm4seg.released.description import NORMALIZED, Images, description, parse_size
from llm4seg.released.llm_layer import Verdict, dropped, kept, llm_tensors, verified
from llm4seg.utils.errors import InputError, UserError
from llm4seg.utils.files import replacing, sha256_file, write_json
from llm4seg.utils.logs import add_flags, configure

Rows = dict[str, str]  # of the table at the end

EXAMPLES = """examples:
  python -m llm4seg.released.convert official.pth --out outputs/model-official --size 256
  python -m llm4seg.released.convert finetuned.pth --keep-llm pretrained --layer 14
  python -m llm4seg.released.convert --back outputs/model-official --out again.pth"""
INPUT = "It expects images as the released code makes them (BGR, normalized twice): set data.intensity to released."
NO_SIZE = "`llm4seg predict` needs the size that its images were resized to: convert it with --size, as in --size 256."


def convert(
    checkpoint: Path, out: Path, config: Config, images: Images, keep: str | None = None, drop: bool = False
) -> Rows:
    """Write the trained model that a released checkpoint holds; the LLM's layers are in `paths.llm_used`.

    `keep`: keep its LLM layer as trained weights that began as this (`model.llm.weights`). `drop`: do not verify it.
    Raises InputError naming the checkpoint and what in it is not as it must be.
    """
    state = read_official(checkpoint)
    has_block = any(name.startswith("llm4seg.") for name in state)
    store = named_store(config.paths.llm_used, config.model.llm.source) if has_block else None
    with _naming(checkpoint):
        shape = official_shape(state)
        verdict = _judged(llm_tensors(state), store, config.model.llm.layer, keep, drop) if store else None
        config = _configured(config, shape, verdict)
        model = _filled(config, state, shape, store)
        described = description(config, shape, images)
    described |= {"converted": {"from": checkpoint.name, "sha256": sha256_file(checkpoint)}}
    with replacing(out) as partial:
        partial.mkdir()
        (partial / WEIGHTS).write_bytes(save(model.trainable_state_dict()))
        write_json(partial / DESCRIPTION, described)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in model.parameter_counts().items())
    read = f"{checkpoint}, {len(state)} tensors"
    llm_layer = verdict.description if verdict else "none: the CNN alone"
    return {"read": read, **_network(shape), "LLM layer": llm_layer, "parameters": counts, "written": str(out)}


def convert_back(folder: Path, out: Path, store: Path, drop: bool = False) -> Rows:
    """Write a trained model as a checkpoint of the released code; `drop` leaves the LLM layer out.

    Raises InputError naming the first parameter that the released code cannot express.
    """
    described, section = read_metadata(folder)
    with _naming(folder):
        check_expressible(section, described["data"]["spatial_dims"])
    if section.bottleneck == "identity":
        state, llm_layer = read_weights(folder), "none: the CNN alone"
    elif drop:
        state = {name: tensor for name, tensor in read_weights(folder).items() if not name.startswith(LLM)}
        llm_layer = "left out"
    else:
        _check_family(trained_store(folder, store))
        state = dict(load_trained(folder, store).state_dict())
        llm_layer = f"put in: layer {section.llm.layer[0]} of {described['llm']['source']}, {section.llm.training}"
    released = to_official({name: tensor for name, tensor in state.items() if not name.startswith(SUPERVISED)})
    write_official(out, released)
    network = _network(official_shape(released))
    return {"read": str(folder), **network, "LLM layer": llm_layer, "written": f"{out}, {len(released)} tensors"}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Context manager that puts the file in front of the message of an InputError."""
    try:
        yield
    except UserError as error:
        raise InputError(f"{path}: {error}") from None


def _judged(
    tensors: dict[str, Tensor], store: LayerStore, layers: Sequence[int], keep: str | None, drop: bool
) -> Verdict:
    if drop:
        return dropped(store, layers)
    return kept(tensors, store, layers, keep) if keep else verified(tensors, store)


def _configured(config: Config, shape: Shape, verdict: Verdict | None) -> Config:
    """The config whose model is the checkpoint's network; without a verdict on an LLM layer, the CNN alone."""
    if verdict:
        block = {f"model.llm.{name}": getattr(verdict, name) for name in ("layer", "weights", "training")}
        config = config.override(RELEASED | block)
    network = {"backbone": "cmunext", "cmunext": shape.cmunext, "bottleneck": "llm" if verdict else "identity"}
    # a copy that is not checked: params.yaml may name images whose size this network would refuse
    return config.model_copy(update={"model": config.model.model_copy(update=network)})


def _filled(config: Config, state: Mapping[str, Tensor], shape: Shape, store: LayerStore | None) -> Hybrid:
    """The model with the checkpoint's weights; a frozen LLM layer's are the store's."""
    model = build_model(
        config.model,
        store,
        spatial_dims=2,
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        seed=config.training.seed,
    )
    with_llm = config.model.llm.training == "full"
    taken = {name: tensor for name, tensor in state.items() if with_llm or not name.startswith(LLM_PREFIX)}
    check_official(taken, to_official(model.trainable_state_dict()))
    model.load_weights(from_official(taken))
    return model


def _check_family(store: LayerStore) -> None:
    if (family := store.config.get("model_type")) not in FAMILIES:
        raise InputError(
            f"{store.folder}: model_type: found {family}, allowed: {' or '.join(FAMILIES)} (released code)"
        )


def _network(shape: Shape) -> Rows:
    cnn = shape.cmunext
    parts = [f"{name} {'-'.join(map(str, getattr(cnn, name)))}" for name in ("dims", "depths", "kernels")]
    return {"network": f"CMUNeXt, {', '.join(parts)}", "channels": f"{shape.in_channels} in, {shape.out_channels} out"}


def main(words: Sequence[str] | None = None) -> None:
    """The command. Exits with 1 and one line for a bad input."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.back and arguments.keep_llm:
        parser.error("--keep-llm does not go with --back")
    if arguments.back and (arguments.size or arguments.intensity):
        parser.error("--size and --intensity go with a checkpoint, not with --back")
    if arguments.layer is not None and (arguments.back or not (arguments.keep_llm or arguments.drop_llm)):
        parser.error("--layer goes with --keep-llm or --drop-llm of a checkpoint")
    try:
        configure(arguments.log)
        rows = _converted(arguments)
    except (UserError, OSError) as error:
        sys.exit(f"convert: {error}")
    table = Table("", Column(overflow="fold"), show_header=False, box=box.SIMPLE)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console = Console(highlight=False)
    console.print(table)
    if not arguments.back:
        console.print(f"[dim]{INPUT}[/]")
    if not arguments.back and arguments.size is None:
        console.print(f"[dim]{NO_SIZE}[/]")


def _converted(arguments: argparse.Namespace) -> Rows:
    source: Path = arguments.source
    out = arguments.out or (source.with_name(source.name + ".pth") if arguments.back else source.with_suffix(""))
    if out.exists():
        raise InputError(f"--out: {out} is there already, and is not overwritten")
    config = Config.load(arguments.params)
    if arguments.layer is not None:
        config = config.override({"model.llm.layer": arguments.layer})
    if arguments.store is not None:
        config = config.override({"paths.llm_used": str(arguments.store)})
    if arguments.back:
        return convert_back(source, out, config.paths.llm_used, arguments.drop_llm)
    images = Images(arguments.size and parse_size(arguments.size), arguments.intensity)
    return convert(source, out, config, images, arguments.keep_llm, arguments.drop_llm)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llm4seg.released.convert",
        description="Turn a checkpoint of the released LLM4Seg code into a trained model of this project, or back.\n"
        "Its LLM layer is compared with every layer of the store, and left out when it is one of them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, help="the checkpoint; with --back, the folder of a trained model")
    add("--back", action="store_true", help="from this project to the released code")
    add("--out", type=Path, help="what to write; default: beside the source, under its name")
    add("--store", type=Path, help="the layer store; default: paths.llm_used")
    add("--params", type=Path, default=Path("params.yaml"), help="default: %(default)s")
    add("--layer", type=int, help="for the two below: which layer it is, or began as; default: model.llm.layer")
    add("--size", metavar="ROWS[,COLUMNS]", help="that its images were resized to, as in 256, which `predict` needs")
    add("--intensity", choices=NORMALIZED, help="how they were normalized; default: released, of three channels")
    llm = parser.add_mutually_exclusive_group()
    llm.add_argument(
        "--keep-llm",
        choices=("pretrained", "random"),
        help="the LLM layer was trained, or is a random control: keep it as trained weights that began as this",
    )
    llm.add_argument(
        "--drop-llm", action="store_true", help="do not verify the LLM layer; with --back, do not write it"
    )
    add_flags(parser)
    return parser


if __name__ == "__main__":
    main()
