"""The torch engine against DistributedDataParallel and plain loops; what its steps do on the device; fp16."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.training.engines.plain import TorchEngine
from llm4seg.training.trainer import assemble
from tests.torch_internals import TorchDispatchMode
from tests.worker_group import on_group

CPU = torch.device("cpu")
TORCH = {"engine.name": "torch", "optimizer.schedule": "onecycle"}


def build(config: Config, steps: int = 20) -> TorchEngine:
    engine = TorchEngine(assemble(config, Prepared(config.paths.prepared)), config, steps, CPU)
    engine.train(True)
    return engine


def images(seed: int, number: int = 4) -> Tensor:
    return torch.randn(number, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def step(engine: TorchEngine, *seeds: int, factor: float = 1.0) -> None:
    """The micro-batches of an optimizer step; `factor`: of the loss."""
    for seed in seeds:
        engine.backward(_loss(engine(images(seed))) * factor)
        if engine.at_boundary:
            engine.update()
        engine.advance()


def _loss(logits: Tensor | list[Tensor]) -> Tensor:
    assert isinstance(logits, Tensor)
    return logits.float().square().mean()


def weights(engine: TorchEngine) -> dict[str, Tensor]:
    return engine.trainable_state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def gradients_of(engine: TorchEngine) -> list[Tensor]:
    """A list that gets the gradients with which the optimizer steps next."""
    found: list[Tensor] = []

    def record(*_: Any) -> None:
        gradient = engine._flat.parameter.grad
        assert gradient is not None
        found.extend(one.clone() for one in engine._flat.views(gradient))

    engine._optimizer.register_step_pre_hook(record)
    return found


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_accumulated_and_clipped_gradients_are_a_loops(config: Config, clip_norm: float | None) -> None:
    engine = build(config.override(TORCH | {"engine.accumulation": 2, "optimizer.clip_norm": clip_norm}))
    found, twin = gradients_of(engine), deepcopy(engine._model)
    step(engine, 0, 1)
    for seed in (0, 1):
        (_loss(twin(images(seed))) / 2).backward()
    trained = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    if clip_norm is not None:
        assert clip_grad_norm_(trained, clip_norm) > clip_norm
    for one, parameter in zip(found, trained, strict=True):
        assert parameter.grad is not None
        assert torch.equal(one, parameter.grad)


@pytest.mark.parametrize(("workers", "bound"), [(2, 0.0), (3, 1e-6)])
def test_workers_average_as_distributed_data_parallel(config: Config, workers: int, bound: float) -> None:
    """To the bit on two; on three the sums have another order."""
    params = config.override(TORCH | {"cluster.workers": workers, "training.batch_size": 6}).plain()
    for worst, steps_agree in on_group(workers, _average, params):
        assert worst <= bound
        assert steps_agree


def _average(rank: int, params: dict[str, Any]) -> tuple[float, bool]:
    """The largest difference of a gradient, relative to its largest entry; whether all workers step alike."""
    import torch.distributed as dist

    engine = build(Config.parse(params))
    found, twin = gradients_of(engine), deepcopy(engine._model)
    engine.backward(_loss(engine(images(rank, 2))))
    engine.update()
    engine.advance()
    parallel = DistributedDataParallel(twin)  # kept: without it nothing averages
    _loss(parallel(images(rank, 2))).backward()
    expected = [parameter.grad for parameter in twin.parameters() if parameter.requires_grad]
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        assert other is not None
        worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp(min=1e-3)))
    mine = engine._flat.parameter.detach()
    first = mine.clone()
    dist.broadcast(first, 0)
    return worst, torch.equal(mine, first)


def test_weights_of_the_first_worker_are_everyones(config: Config) -> None:
    """Whatever another one began with."""
    params = config.override(TORCH | {"cluster.workers": 2}).plain()
    one, other = on_group(2, _begin, params)
    assert one == other


def _begin(rank: int, params: dict[str, Any]) -> list[float]:
    config = Config.parse(params)
    model = assemble(config, Prepared(config.paths.prepared))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(rank)
    engine = TorchEngine(model, config, 20, CPU)
    return engine._flat.parameter.detach()[:100].tolist()


class Trace(TorchDispatchMode):
    """Operations with their numbers, and the shapes, strides and addresses of lasting tensors among their arguments."""

    def __init__(self, lasting: set[int]) -> None:
        super().__init__()
        self.lasting = lasting
        self.ops: list[Any] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op.namespace != "profiler":
            self.ops.append((str(op), [*self._described([args, kwargs or {}])]))
        return op(*args, **(kwargs or {}))

    def _described(self, value: Any) -> Iterator[Any]:
        if isinstance(value, Tensor):
            address = value.data_ptr()
            yield value.shape, value.stride(), value.dtype, address if address in self.lasting else None
        elif isinstance(value, dict):
            yield from self._described([*value.values()])
        elif isinstance(value, list | tuple):
            for one in value:
                yield from self._described(one)
        else:
            yield value


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("changes", [{}, {"optimizer.clip_norm": 0.1}, {"engine.precision": "fp16"}], ids=str)
def test_an_update_is_the_same_few_operations_each_time(
    config: Config, optimizer: str, changes: dict[str, Any]
) -> None:
    """With no number of the host's among them, though the learning rate changes, and none read by the host."""
    engine = build(config.override(TORCH | {"optimizer.name": optimizer} | changes))
    step(engine, 0)
    state = [tensor.data_ptr() for tensor in engine._optimizer.state[engine._flat.parameter].values()]
    lasting = {engine._flat.parameter.data_ptr(), engine._lr.data_ptr(), *state}
    rates, traces = [], []
    for seed in (1, 2):
        engine.backward(_loss(engine(images(seed))))
        with Trace(lasting) as trace:
            engine.update()
        engine.advance()
        rates.append(engine.lr)
        traces.append(trace.ops)
    assert rates[0] != rates[1]
    assert traces[0] == traces[1]
    names = [name for name, _ in traces[0]]
    assert sum(f"_fused_{optimizer}_" in name for name in names) == 1
    assert not [name for name in names if "_local_scalar_dense" in name or "nonzero" in name or "lift_fresh" in name]
    per_parameter = len(engine._trained) * ("optimizer.clip_norm" in changes)
    views = ("view", "detach", "split", "reshape", "empty", "alias", "unbind")
    assert sum(not any(view in name for view in views) for name in names) <= 24 + per_parameter


def test_batchnorm_counts_every_micro_batch(config: Config) -> None:
    """Validation does not count, and no checkpoint counts twice."""
    engine = build(config.override(TORCH | {"engine.accumulation": 2}))
    step(engine, 0, 1)
    engine.train(False)
    engine(images(2))
    engine.train(True)
    weights(engine)
    step(engine, 3, 4)
    counters = {int(value) for name, value in weights(engine).items() if name.endswith("num_batches_tracked")}
    assert counters == {4}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"model.llm.checkpointing": True}, "model.llm.checkpointing is true"),
        ({"model.llm.checkpointing": True, "model.bottleneck": "identity"}, None),
        ({"engine.compile": True}, "engine.compile is true"),
    ],
)
def test_what_keeps_a_step_out_of_a_graph(config: Config, changes: dict[str, Any], reason: str | None) -> None:
    engine = build(config.override(TORCH | changes))
    assert engine.graph_refusal() == reason
    assert engine.capturable == (reason is None)


FP16 = TORCH | {"engine.precision": "fp16"}


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_overflow_skips_the_step_and_halves_the_scale(
    config: Config, optimizer: str, clip_norm: float | None
) -> None:
    """The first step of all, before the optimizer has a state. The schedule goes on; the optimizer's count does not."""
    engine = build(config.override(FP16 | {"optimizer.name": optimizer, "optimizer.clip_norm": clip_norm}))
    parameters, rate = engine._flat.parameter.detach().clone(), engine.lr
    step(engine, 0, factor=float("inf"))
    assert torch.equal(engine._flat.parameter, parameters)
    assert engine.lr > rate
    state, _ = engine.state()
    found = [int(state[name]) for name in ("step", "loss_scale", "steps_since_overflow", "skipped_steps")]
    assert found == [1, 2**15, 0, 1]
    if optimizer == "adamw":
        assert int(engine._optimizer.state[engine._flat.parameter]["step"]) == 0
    step(engine, 1)
    assert engine._flat.parameter.isfinite().all()
    assert not torch.equal(engine._flat.parameter, parameters)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_after_an_overflow_is_equal_to_the_bit(config: Config, optimizer: str) -> None:
    config = config.override(FP16 | {"optimizer.name": optimizer, "engine.accumulation": 2})
    whole = build(config)
    step(whole, 0, 1)
    step(whole, 2, 3, factor=float("inf"))
    step(whole, 4, 5)
    optimizer_state, schedule = whole.state()
    resumed = build(config)
    resumed._model.load_weights(weights(whole))
    resumed.resume(optimizer_state, schedule)
    for engine in (whole, resumed):
        step(engine, 6, 7)
        step(engine, 8, 9, factor=float("inf"))
        step(engine, 10, 11)
    assert same(weights(whole), weights(resumed))
    assert same(whole.state()[0], resumed.state()[0])
    assert whole.state()[1] == resumed.state()[1]
    assert int(whole.state()[0]["skipped_steps"]) == 2
    assert int(whole.state()[0]["loss_scale"]) == 2**14


def test_fp16_computes_in_half_precision_what_fp32_does(config: Config) -> None:
    half, single = build(config.override(FP16)), build(config.override(TORCH))
    logits = half(images(0))
    assert isinstance(logits, Tensor)
    assert logits.dtype == torch.float16
    found, expected = gradients_of(half), gradients_of(single)
    for engine in (half, single):
        step(engine, 0)
    for one, other in zip(found, expected, strict=True):
        if other.norm() > 0.01:  # in theory others are zero, and rounding is all of them
            assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.95
            assert float(one.norm() / other.norm()) == pytest.approx(1, abs=0.1)
