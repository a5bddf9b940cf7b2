"""Published data sets as their owners deliver them, from prepare to the report, by the presets of the paper's table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import interpolate

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.models.saved import load_trained
from pipelines.evaluate import evaluate
from pipelines.fetch_llm import fetch_llm
from pipelines.prepare import prepare
from pipelines.report import report
from pipelines.search import search
from pipelines.split import split
from pipelines.study import study
from pipelines.train import train
from tests import layouts, volume_layouts
from tests.tiny import tiny_config, write_llama

PRESETS = {"isic": "isic2018", "decathlon": "msd"}  # of data sets whose presets have another name
SMALL = {"data.size": [32, 32], "training.epochs": 1, "training.batch_size": 4, "cluster.launcher": "process"}


def config_of(root: Path, dataset: str, recipe: str) -> Config:
    """The presets of a data set and of a recipe, but small."""
    write_llama(root / "llama")
    config = tiny_config(root)
    data = config.presets.get(PRESETS.get(dataset, dataset), {"data.dataset": dataset, "training.augment.flip": [0]})
    return config.override({**data, **config.presets[recipe], **SMALL, "data.root": str(root / "raw")})


@pytest.mark.slow
@pytest.mark.parametrize("dataset", layouts.WRITERS)
def test_from_the_owners_files_to_the_report(tmp_path: Path, dataset: str) -> None:
    truth = layouts.WRITERS[dataset](tmp_path / "raw")
    config = config_of(tmp_path, dataset, "recipe-2d")
    for stage in (fetch_llm, prepare, split, search, train, evaluate, study, report):
        stage(config)
    prepared = Prepared(config.paths.prepared)
    known = {name: mask for part in truth.values() for name, mask in part.items()} if dataset == "isic" else truth
    assert set(prepared.cases) <= set(known)
    assert len(prepared.cases) > 5
    for name in prepared.cases:
        assert np.array_equal(prepared.original(name)[1].numpy() > 0, known[name]), name
    metrics = json.loads(config.paths.metrics.read_text())
    assert metrics["distance_unit"] == "px"
    assert prepared.citation[:20] in config.paths.report.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", volume_layouts.WRITERS)
def test_volumes_from_the_owners_files_to_the_report(tmp_path: Path, dataset: str) -> None:
    """As slices; where the owner splits, by its split. The pixels in the report's data are those of the files."""
    truth = volume_layouts.WRITERS[dataset](tmp_path / "raw")
    official = {"split.rule": "official", "split.fold": 0 if dataset == "nnunet" else None}
    config = config_of(tmp_path, dataset, "recipe-slices").override(official if dataset != "decathlon" else {})
    for stage in (fetch_llm, prepare, split, search, train, evaluate, study, report):
        stage(config)
    prepared = Prepared(config.paths.prepared)
    assert {case.volume for case in prepared.cases.values()} == truth.keys()
    for name, case in prepared.cases.items():
        image, labels = (volume_layouts.as_seen(one)[..., case.position] for one in truth[str(case.volume)])
        assert np.array_equal(prepared.original(name)[0].numpy(), image), name
        assert np.array_equal(prepared.original(name)[1].numpy(), labels), name
    assert json.loads(config.paths.metrics.read_text())["headline"] == "volumes"
    assert prepared.citation[:20] in config.paths.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_regions_and_ignored_pixels_from_the_files_to_the_scores(tmp_path: Path) -> None:
    """nnU-Net's regions: the counts in cases.csv are those of the model's sigmoids, decoded and counted by hand."""
    labels = {"background": 0, "whole": [1, 2], "cavity": 2, "ignore": 3}
    volume_layouts.write_nnunet(tmp_path / "raw", largest=3, labels=labels, regions_class_order=[1, 2])
    write_llama(tmp_path / "llama")
    own = {"data.dataset": "nnunet", "data.root": str(tmp_path / "raw"), "split.rule": "official", "split.fold": 0}
    config = tiny_config(tmp_path).override({**SMALL, **own, "training.label_noise.boundary": 1})
    for stage in (fetch_llm, prepare, split, search, train, evaluate, study, report):
        stage(config)
    data, model = Prepared(config.paths.prepared), load_trained(config.paths.model, config.paths.llm_used)
    rows = pd.read_csv(config.paths.evaluation / "cases.csv").set_index(["case", "class"])
    for case in read_split(config.paths.split).test:
        reference = data.original(case)[1].numpy()
        with torch.inference_mode():
            logits = model(data.resampled(case)[0][None])
        whole, cavity = (interpolate(logits, reference.shape, mode="bilinear")[0] > 0).numpy()
        kept = reference != 255
        masks = {"whole": (whole | cavity, np.isin(reference, (1, 2))), "cavity": (cavity, reference == 2)}
        for name, (predicted, true) in masks.items():
            pairs = ((predicted, true), (predicted, ~true), (~predicted, true))
            counts = [(one & other & kept).sum() for one, other in pairs]
            assert rows.loc[(case, name), ["tp", "fp", "fn"]].tolist() == counts
    assert list(json.loads(config.paths.metrics.read_text())["classes"]) == ["whole", "cavity"]
