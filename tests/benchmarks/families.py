"""Which LLMs and encoders of images that transformers knows can be used, found out by a small random one of each kind.

For each layer of each: the whole way from a saved checkpoint over the layer store to the LLM block's layers, compared
with what leaves the layer in transformers' whole model. The table of results is docs/families.md.
"""

import argparse
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm4seg.llm.architecture import layer_list, meta_model
from llm4seg.llm.encoder import is_encoder
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.models.bottleneck.layers import LLMLayers
from llm4seg.utils.errors import InputError
from tests.tiny_families import LAYERS, SMALL, encoder_kinds, kinds, small_config, text_part
from tests.tiny_llm import block_section, recorded, save_llm, section, through_layers

EQUAL, UNBUILT = "equal", "no small one could be built"
TOLERANCE = 1e-5
LARGE = 50_000_000  # parameters: it was not made small
COMMAND = "python -m tests.benchmarks.families --write docs/families.md"
Results = dict[str, dict[str, list[str]]]  # model type: result: the layers that it is the result of


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.families",
        description=__doc__,
        epilog=f"example: {COMMAND}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", help="model types as in config.json; none: all of them")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there too")
    arguments = parser.parse_args()
    page = as_markdown(sweep(arguments.kinds or kinds()), sweep(arguments.kinds or encoder_kinds()))
    print(page)
    if arguments.write:
        arguments.write.write_text(page, encoding="utf-8")


def sweep(names: list[str]) -> Results:
    """The result of each kind; several kinds with the same text part count once."""
    from transformers import logging

    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    results: Results = {}
    for name in names:
        try:
            model_type = text_part(name).model_type
        except Exception:  # its default values contradict each other
            results[name] = {UNBUILT: []}
            continue
        if model_type not in results:
            results[model_type] = judged(name)
    return results


def judged(kind: str) -> dict[str, list[str]]:
    """What comes of a kind's layers."""
    results = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        try:
            config = small_config(kind)
            refusal = _refusal(config)
            model = None if refusal else _saved(config, Path(name))
            inputs, outputs = ([], []) if refusal else _through(model)
        except Exception:  # small_config did not make it well
            return {UNBUILT: []}
        if refusal:
            return {refusal: []}
        for layer, (hidden, expected) in enumerate(zip(inputs, outputs, strict=True)):
            results[_layer_result(Path(name), layer, hidden, expected)].append(_label(config, layer))
    return results


def _refusal(config: Any) -> str | None:
    """Why a config is refused before any layer is looked at. Raises what transformers raises if it cannot be built."""
    try:
        whole = meta_model(config.to_dict())
    except InputError as refused:
        if refused.__cause__:  # it is the small config that is no good
            raise refused.__cause__ from None
        return _reason(refused)
    assert sum(parameter.numel() for parameter in whole.parameters()) < LARGE
    return None


def _reason(refused: InputError) -> str:
    return str(refused).partition("is not supported: ")[2] or str(refused)


def _saved(config: Any, folder: Path) -> Any:
    from transformers import AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    save_llm(folder / "source", model)
    return model


def _through(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What enters and leaves each layer in a forward pass of the whole model."""
    if not is_encoder(model):
        return through_layers(model)[:2]
    size = SMALL["image_size"]
    images_NCHW = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return recorded(layer_list(model)[1], lambda: model(images_NCHW)[0])[:2]


def _layer_result(folder: Path, layer: int, hidden: Tensor, expected: Tensor) -> str:
    try:
        store = fill_store(folder / f"store_{layer}", section(folder / "source"), [layer], folder / "cache")
        encoder = store.spec(layer).encoder
        attention = "bidirectional" if encoder else "causal"
        ours = LLMLayers(block_section(layer=layer, attention=attention), store, 0).eval()
    except InputError as refused:
        return _reason(refused).replace(f"layer {layer} ", "", 1)
    side = SMALL["image_size"] // SMALL["patch_size"]
    with torch.no_grad():
        found = ours(hidden, (side, side) if encoder else (hidden.shape[1],))
    error = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
    return (EQUAL if error < TOLERANCE else f"WRONG by {error:.1g}") + _random_too(store, layer)


def _random_too(store: LayerStore, layer: int) -> str:
    try:
        LLMLayers(block_section(layer=layer, weights="random"), store, 0)
    except InputError as refused:
        return f"; {_reason(refused)}"
    return ""


def _label(config: Any, layer: int) -> str:
    types = getattr(config, "layer_types", None)
    return types[layer] if types else f"layer {layer}"


def as_markdown(llms: Results, encoders: Results) -> str:
    """The page: a table of LLMs, and one of encoders of images."""
    import transformers

    head = HEAD.format(version=transformers.__version__, command=COMMAND, layers=LAYERS, unbuilt=UNBUILT)
    return head + _table(llms) + ENCODERS + _table(encoders)


def _table(results: Results) -> str:
    """By result, the model types; where it is that of some layers only, which."""
    by_result = defaultdict(list)
    for model_type, found in sorted(results.items()):
        for result, layers in found.items():
            some = f" ({', '.join(sorted(set(layers)))})" if len(found) > 1 else ""
            by_result[result].append(f"{model_type}{some}")
    rows = sorted(by_result.items(), key=lambda row: (not row[0].startswith(EQUAL), row[0] == UNBUILT, row[0]))
    return "".join(f"| {result} | {len(types)} | {', '.join(types)} |\n" for result, types in rows)


HEAD = """# Which LLMs can be used

Found out with transformers {version} by

```
{command}
```

Of every model type that transformers writes text with, a small random model was built and saved, and each of its
{layers} layers read into a layer store and run as in the LLM block, with causal attention and native positions.

- `equal`: the result is that of the same layer in transformers' whole model, to 1e-5 in float32.
- {unbuilt}: the tool's small config does not fit the type, so nothing is known of it; a real checkpoint is
  judged when it is fetched.
- All else is refused by `fetch_llm`, before anything is written, with these words.

In brackets: the kinds of layers of which it is true, where it is not true of all.

The small models hold their weights unquantized. A checkpoint whose config has a `quantization_config`, as gpt-oss
(mxfp4), DeepSeek-V3 (fp8) and BitNet are published, is refused whatever its type; a copy saved in bf16 will do.

Some types rotate nothing in some of their layers: cohere2, exaone4 and smollm3 in every fourth, flint in its first two.
There `model.llm.position` can be `native` or `none`; `axial` and `released` are refused: they would change nothing.

| result | number | model types |
|---|---|---|
"""

ENCODERS = """
## Vision transformers

The same of every model type that reads images alone, on an image of 4 x 4 patches, with attention to all tokens.

| result | number | model types |
|---|---|---|
"""


if __name__ == "__main__":
    main()
