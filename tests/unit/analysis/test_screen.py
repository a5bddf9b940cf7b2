"""The screen of layers on a tiny CNN and a tiny LLM: what is known of a layer that changes nothing, and its errors."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from llm4seg.analysis import screen as analysis_screen
from llm4seg.analysis.screen import CNN, MEASURES, Screen, ranking, screen_loss, spread
from llm4seg.config import Config
from llm4seg.config.schema.search import LAYER
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.models.saved import load_trained, read_weights
from llm4seg.objectives.losses import Loss
from llm4seg.search.screened import screened
from llm4seg.utils.errors import InputError
from pipelines import screen as command
from pipelines.prepare import prepare
from pipelines.split import split
from tests.finished_run import config_at
from tests.saved_model import save_random_model
from tests.tiny_llm import save_llm, section, tiny_llm

TINY = {
    "data.dataset": "phantom",
    "data.size": [32, 32],
    "data.phantom.cases": 30,
    "data.phantom.patients": 30,
    "data.phantom.size": [40, 40],
    "model.bottleneck": "identity",
    "model.cmunext.dims": [4, 6, 8],
    "model.cmunext.depths": [1, 1, 2],
    "model.cmunext.kernels": [3, 3, 5],
    "cluster.device": "cpu",
}
UNCHANGING, OTHER = 1, 2  # layers of the store


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A trained CNN alone on phantoms of 8 x 8 tokens, and an LLM of which one layer gives back its input."""
    root = tmp_path_factory.mktemp("screen")
    config = config_at(root, TINY)
    prepare(config)
    split(config)
    save_random_model(config)
    llm = tiny_llm()
    with torch.no_grad():
        llm.layers[UNCHANGING].self_attn.o_proj.weight.zero_()
        llm.layers[UNCHANGING].mlp.down_proj.weight.zero_()
    source = save_llm(root / "llm", llm)
    fill_store(config.paths.llm, section(source), (UNCHANGING, OTHER), root / "cache")
    return config.override({"llm.source": str(source), "llm.sha256": None, "paths.cache": str(root / "cache")})


def loss_of(config: Config, data: Prepared) -> Loss:
    return screen_loss(config.training, data, read_split(config.paths.split).train, torch.device("cpu"))


def screen_of(config: Config, store: Path | None = None) -> Screen:
    """The screen of `paths.model`, whose own block needs a store."""
    data = Prepared(config.paths.prepared)
    model = load_trained(config.paths.model, store)
    return Screen(model, data, read_split(config.paths.split), config.model, loss_of(config, data))


def test_a_layer_that_changes_nothing_measures_as_the_cnn_alone(config: Config) -> None:
    screening, store = screen_of(config), LayerStore(config.paths.llm)
    alone, unchanging, other = screening.cnn(), *(screening.layer(store, layer) for layer in (UNCHANGING, OTHER))
    assert (alone["layer"], alone["cka"], alone["recovery"]) == (CNN, 1, 1)
    # the fitted adapter behind the layer undoes the one before it
    assert unchanging["recovery"] == pytest.approx(1, abs=1e-3)
    assert unchanging["coherence"] == pytest.approx(alone["coherence"], abs=0.01)
    assert unchanging["probe"] == pytest.approx(alone["probe"], abs=0.05)
    assert other["recovery"] < unchanging["recovery"]
    assert all(other[f"{name}_seconds"] > 0 for name in MEASURES)


def test_the_same_layer_measures_the_same_again(config: Config) -> None:
    store = LayerStore(config.paths.llm)
    one, other = (screen_of(config).layer(store, OTHER) for _ in range(2))
    assert [one[name] for name in MEASURES] == [other[name] for name in MEASURES]


def test_coherence_is_that_of_a_linear_maps_own_gradients(config: Config) -> None:
    """One image at a time, of the weight of a convolution with 1 x 1 pixels."""
    data, parts = Prepared(config.paths.prepared), read_split(config.paths.split)
    model, loss = load_trained(config.paths.model, None), loss_of(config, data)
    gradients = []
    for case_id in parts.train:
        image_CS, labels_S = data.resampled(case_id)
        *skips, coarsest = model.encoder(image_CS[None])
        weight = torch.eye(coarsest.shape[1]).requires_grad_()
        logits = model.decoder([*skips, torch.einsum("dc,nchw->ndhw", weight, coarsest.detach())])
        (gradient,) = torch.autograd.grad(loss(logits, labels_S[None].long()), weight)
        gradients.append(gradient.reshape(-1).double().numpy())
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(gradients, 2)]
    assert screen_of(config).cnn()["coherence"] == pytest.approx(np.mean(cosines), abs=1e-4)


def test_the_command_writes_a_table(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "load", lambda path: config)
    out = tmp_path / "out/screen.csv"
    command.main([str(config.paths.model), "--layers", str(OTHER), str(OTHER), "--out", str(out), "--quiet"])
    table = pd.read_csv(out)
    assert [*table["layer"].astype(str)] == [CNN, str(OTHER)]
    assert table[[*MEASURES]].notna().all(axis=None)


def test_the_command_fetches_all_layers_by_itself_and_leaves_the_stages_store_as_it_is(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`paths.llm` is an output of `fetch_llm`, which DVC would find changed."""
    own = config.override({"paths.llm": str(tmp_path / "none")})
    monkeypatch.setattr(Config, "load", lambda path: own)
    command.main([str(config.paths.model), "--out", str(tmp_path / "screen.csv"), "--quiet"])
    layers = len(tiny_llm().layers)
    assert [*pd.read_csv(tmp_path / "screen.csv")["layer"].astype(str)] == [CNN, *map(str, range(layers))]
    assert not own.paths.llm.exists()
    with pytest.raises(SystemExit, match=rf"found layer {layers}, allowed: 0 to {layers - 1}"):
        command.main([str(config.paths.model), "--layers", str(layers), "--quiet"])
    with pytest.raises(SystemExit, match=r"^screen: --layers: found -1, allowed: 0 or more$"):
        command.main([str(config.paths.model), "--layers", "0", "-1", "--quiet"])


def test_a_model_with_a_block_is_refused_in_one_line(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"model.bottleneck": "llm", "model.llm.layer": OTHER, "paths.llm_used": str(config.paths.llm)}
    hybrid = config.override({**block, "paths.model": str(tmp_path / "model")})
    save_random_model(hybrid)
    monkeypatch.setattr(Config, "load", lambda path: hybrid)
    with pytest.raises(SystemExit, match=r"found a model with model.bottleneck: llm, allowed: identity, the CNN alone"):
        command.main([str(hybrid.paths.model)])
    with pytest.raises(InputError, match=r"^model.bottleneck: found a block"):
        screen_of(hybrid, config.paths.llm)


def test_a_grid_on_which_no_class_fills_a_token_is_refused(config: Config) -> None:
    with pytest.raises(InputError, match=r"found no class that fills half of a token .* on a grid of \[1, 1\] tokens"):
        screen_of(config.override({"model.llm.pool": 8}))


def test_a_search_begins_with_the_layers_that_a_reliable_measure_ranks_first(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_screen, "RELIABLE", ("recovery",))
    space = {"model.bottleneck": ["llm"], LAYER: {"choice": [OTHER, UNCHANGING], "when": {"model.bottleneck": "llm"}}}
    changes = {
        "search.trials": 2,
        "search.space": space,
        "search.screen": True,
        "paths.llm_used": str(config.paths.llm),
    }
    first = screened(config.override(changes), read_weights(config.paths.model))
    assert first == [{"model.bottleneck": "llm", LAYER: layer} for layer in (UNCHANGING, OTHER)]


def test_layers_are_ranked_by_the_mean_of_their_ranks() -> None:
    values = {"layer": [CNN, 3, 5, 7], "probe": [9, 0.5, 0.7, 0.6], "cka": [9, 0.1, 0.2, 0.9]}
    table = pd.DataFrame(values)
    assert ranking(table, ["probe"]) == [5, 7, 3]
    assert ranking(table, ["probe", "cka"]) == [5, 7, 3]  # 1 + 2 and 2 + 1 are equal, so in order
    assert ranking(table, ["cka"]) == [7, 5, 3]


def test_cases_are_spread_evenly() -> None:
    assert spread(tuple("abcdefgh"), 3) == ("a", "c", "f")
    assert spread(("a", "b"), 3) == ("a", "b")
