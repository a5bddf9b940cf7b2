"""`training.init_from`: a model that begins with the weights of a trained one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm4seg.config import Config
from llm4seg.config.config import INIT
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.data.preprocessing import Preprocessing
from llm4seg.models import Hybrid
from llm4seg.models.hybrid import BOTTLENECK
from llm4seg.models.saved import WEIGHTS, describe_drawn, describe_llm, read_metadata, read_weights
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file

ALIKE = 1.1  # times another spacing, at most, for volumes that look alike to a network


def init_from(model: Hybrid, config: Config, data: Prepared) -> list[str]:
    """Initialize a model from the trained model in `training.init_from`: the encoder, tensors of the decoder with equal
    names and shapes, and the bottleneck where it is the same around the same LLM layers.

    `data` are as `training_inputs` gives them. Returns lines for the log: what was taken, and where images look
    otherwise to this network. Raises InputError when the encoder differs, or a class is another logit there.
    """
    folder, expected = config.training.init_from, config.training.init_sha256
    assert folder is not None
    if expected not in (None, sha256 := sha256_file(folder / WEIGHTS)):
        raise InputError(f"training.init_sha256: found {expected}, but that of {folder / WEIGHTS} is {sha256}")
    before = _classes_before(folder, data.scheme)
    trained, initial = read_weights(folder), model.trainable_state_dict()
    reason = _other_bottleneck(config, folder)
    if reason:
        trained = {name: tensor for name, tensor in trained.items() if not name.startswith(BOTTLENECK)}
    taken = {}
    for name, tensor in initial.items():
        if name in trained and trained[name].shape == tensor.shape:
            taken[name] = trained[name]
    new = sorted(name for name in initial.keys() - taken.keys() if not (reason and name.startswith(BOTTLENECK)))
    if missing := [name for name in new if name.startswith("encoder.")]:
        raise InputError(f"{INIT}: found {folder}, whose model has no {missing[0]} like this one's")
    model.load_weights({**initial, **taken})
    not_taken = [f"the bottleneck, since {reason}"] * bool(reason) + new
    line = f"{INIT}: took {len(taken)} tensors of {folder}{before}; new ones: {', '.join(not_taken) or 'none'}"
    return [line, *_other_images(Preprocessing.parse(read_metadata(folder)[0]["data"]), data.preprocessing)]


def _other_images(before: Preprocessing, now: Preprocessing) -> Iterator[str]:
    """Lines where intensities are normalized otherwise than for the trained model, and where its spacing was other."""
    if None not in (before.intensity, now.intensity) and (was := _intensities(before)) != (here := _intensities(now)):
        yield f"{INIT}: its intensities were {was}; here they are {here}"
    if before.spacing is None or now.spacing is None:
        return
    if any(max(old / new, new / old) > ALIKE for old, new in zip(before.spacing, now.spacing, strict=True)):
        yield (
            f"warning: {INIT}: its volumes were at {[*before.spacing]} mm (rows, columns, slices), these are at "
            f"{[*now.spacing]} mm: structures have another size in voxels"
        )


def _intensities(preprocessing: Preprocessing) -> str:
    """A normalization in words: `data.intensity`, with its window, or for `ct` the statistics of each channel."""
    if preprocessing.window is not None and preprocessing.intensity == "window":
        return f"window {[*preprocessing.window]}"
    channels = preprocessing.normalization.foreground if preprocessing.normalization else ()
    statistics = (f"clip {one.low:g} to {one.high:g}, mean {one.mean:.4g}, std {one.std:.4g}" for one in channels)
    return " ".join([str(preprocessing.intensity), *(f"({one})" for one in statistics)])


def _classes_before(folder: Path, scheme: LabelScheme) -> str:
    """The classes of a trained model in words, where its head becomes that of others; else empty.

    Raises InputError when both have a class of one name at different places, or only one has regions: the head would
    begin as that of other things.
    """
    before = LabelScheme.parse(read_metadata(folder)[0]["data"])
    if bool(before.regions) != bool(scheme.regions):
        found, here = (
            f"{'regions' if one.regions else 'classes'} {', '.join(map(str, one.classes))}" for one in (before, scheme)
        )
        raise InputError(f"{INIT}: found {folder}, trained with the {found}, but these data have the {here}")
    trained, classes = before.classes, scheme.classes
    if len(trained) != len(classes) or trained == classes or None in trained:
        return ""
    names = ", ".join(trained)
    if any(one in classes and one != other for one, other in zip(trained, classes, strict=True)):
        raise InputError(
            f"{INIT}: found {folder}, trained with the classes {names}, but these data have {', '.join(classes)}; "
            "allowed: a class of both at the same place, as data.classes orders them"
        )
    return f" (of the classes {names})"


def _other_bottleneck(config: Config, folder: Path) -> str | None:
    """Why a trained model's bottleneck does not fit this one's; None: it fits.

    Names of tensors do not decide: they count LLM layers from the first in the block, so another layer's would match,
    and adapters fit only the layers that they were trained with.
    """
    description, trained = read_metadata(folder)
    if trained.bottleneck != config.model.bottleneck:
        return f"model.bottleneck was {trained.bottleneck}"
    if trained.bottleneck == "identity":
        return None
    for name, value in config.model.llm:
        if name == "source":
            continue  # a name: the layers' sha256 say whether the LLM is the same
        if (was := getattr(trained.llm, name)) != value:
            return f"model.llm.{name} was {_short(was)}"
    old, new = description["llm"] or {}, describe_llm(config) or {}
    same = all(old.get(name) == new.get(name) for name in ("layers", "norm_sha256"))
    same = same and description.get("drawn_sha256", {}) == describe_drawn(config)
    return None if same else "its LLM layers were others"


def _short(value: Any) -> str:
    return str([*value] if isinstance(value, tuple) else value)
