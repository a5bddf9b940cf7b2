"""The released LLM4Seg code's small network, from the fixture that it wrote: its weights in our model, its training."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from llm4seg.config.schema import Model
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.models import Hybrid, build_model
from llm4seg.objectives.losses import build_loss
from llm4seg.released.architecture import from_official
from tests.tiny_llm import block_section, model_section, section

FIXTURE = Path(__file__).parent / "fixtures/official_llama.safetensors"
LAYER = 2
STEPS, LR = 6, 0.01


def read_fixture() -> tuple[dict[str, str], dict[str, Tensor]]:
    """The configuration of the released code, and its results."""
    with safe_open(FIXTURE, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def official_state() -> dict[str, Tensor]:
    """The network's weights under the released names."""
    tensors = read_fixture()[1]
    return {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}


def official_store(root: Path, dtype: torch.dtype = torch.float32) -> LayerStore:
    """A layer store of the LLM whose layer 2 the released network has; filled from a folder, as for any LLM."""
    source, prefix = root / "source", "llm4seg.llm."
    layer = {name.removeprefix(prefix): t for name, t in official_state().items() if name.startswith(prefix)}
    source.mkdir(exist_ok=True)
    (source / "config.json").write_text(read_fixture()[0]["config"])
    tensors = {f"layers.{LAYER}.{name}": tensor.to(dtype) for name, tensor in layer.items()}
    tensors |= {f"layers.0.{name}": tensor.to(dtype) + 1 for name, tensor in layer.items()}
    save_file(tensors, source / "model.safetensors")
    return fill_store(root / "store", section(source), [0, LAYER], root / "cache")


def official_model(root: Path, **block: Any) -> Hybrid:
    """Our model with the released network's weights."""
    about, state = read_fixture()[0], from_official(official_state())
    store = official_store(root)
    shape = {name: json.loads(about[name]) for name in ("dims", "depths", "kernels")}
    llm = block_section(layer=LAYER, **{"position": "released", "attention": "causal", **block})
    values = Model.model_validate(model_section().model_dump() | {"cmunext": shape, "llm": llm.model_dump()})
    model = build_model(values, store, spatial_dims=2, in_channels=3, out_channels=1, seed=0)
    model.load_weights({name: tensor for name, tensor in state.items() if name in model.trainable_state_dict()})
    return model


def train_as_released(model: Hybrid, dtype: torch.dtype) -> tuple[list[float], Tensor]:
    """Losses of six training steps of the released loop, and the logits in evaluation mode after them.

    SGD with momentum 0.9 and weight decay 1e-4; after update i the learning rate becomes 0.01 (1 - i / 6)^0.9, so the
    first two updates use the full one.
    """
    tensors = read_fixture()[1]
    images, labels = tensors["x"].to(dtype), tensors["y"].squeeze(1).long()
    model = model.to(dtype).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.9, weight_decay=1e-4)
    losses = []
    for update in range(STEPS):
        loss = build_loss("bce_dice")(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = LR * (1 - update / STEPS) ** 0.9
        losses.append(loss.item())
    with torch.no_grad():
        return losses, model.eval()(images)


def main() -> None:
    """Print, as JSON, how far each loss and the final logits are from the released code's."""
    torch.set_num_threads(int(sys.argv[1]))
    tensors = read_fixture()[1]
    with tempfile.TemporaryDirectory() as folder:
        losses, logits = train_as_released(official_model(Path(folder)), torch.float32)
    off = torch.tensor(losses, dtype=torch.float64) - tensors["train_losses"]
    print(json.dumps([*off.tolist(), float((logits - tensors["eval_logits_after_6_steps"]).abs().max())]))


if __name__ == "__main__":
    main()
