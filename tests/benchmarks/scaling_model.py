"""A model of how training scales: what a step computes, the bytes it moves for each ZeRO stage, and small exchanges.

    step = max(floor, images / rate) + bytes / bandwidth + exchanges x latency

Nothing overlaps, which is the worst case. `docs/notes/scaling.md` says where each number is from.
"""

import math
from dataclasses import dataclass

from llm4seg.tools.memory_model import Sizes

STAGES = ("torch", 0, 1, 2, 3)


@dataclass(frozen=True)
class Fabric:
    """Links between devices: bytes a second and seconds of latency, inside a node and from node to node.

    Devices form a ring, of which one link leaves each node; so the slowest link sets the pace.
    """

    name: str
    devices: int  # in a node
    inside: float
    between: float
    start: float  # latency of any exchange
    hop: float  # and for each doubling of the devices inside a node
    hop_between: float  # and for each doubling of the nodes

    def bandwidth(self, workers: int) -> float:
        return self.inside if workers <= self.devices else self.between

    def latency(self, workers: int) -> float:
        if workers == 1:
            return 0.0
        inside, nodes = min(workers, self.devices), -(-workers // self.devices)
        return self.start + self.hop * math.log2(inside) + self.hop_between * math.log2(nodes)


@dataclass(frozen=True)
class Load:
    """What a step consists of."""

    trained: int  # bytes of trained parameters, and of their gradients
    shared: int  # bytes of frozen matrices that ZeRO 3 shares out
    exchanges: int  # small ones, which wait for each other: BatchNorm's, the loss's
    tensors: int  # trained ones, each of which ZeRO 3 gathers by itself
    rate: float  # images a second that one device computes
    floor: float  # seconds that a step takes however few its images

    @classmethod
    def of(cls, sizes: Sizes, exchanges: int, tensors: int, rate: float, floor: float) -> "Load":
        shared = sum(matrix for matrix in sizes.matrices if matrix > sizes.threshold)
        return cls(sizes.trained, shared, exchanges, tensors, rate, floor)

    def compute(self, images: int) -> float:
        return max(self.floor, images / self.rate)

    def moved(self, stage: str | int, workers: int, accumulation: int = 1) -> float:
        """Bytes that each worker sends in a step.

        A sum over workers moves twice (workers - 1) / workers of the bytes, a gathering and a scattered sum once. Under
        ZeRO 1 and 2 DeepSpeed sums gradients whole, and gathers the parameters after the optimizer; 2 and 3 add up
        every micro-batch at once. ZeRO 3 scatters the sums, and gathers the LLM's matrices for each micro-batch in
        both passes, since they leave the device in between.
        """
        each = self.trained * (workers - 1) / workers
        match stage:
            case "torch" | 0:
                return 2 * each
            case 1:
                return 3 * each
            case 2:
                return (2 * accumulation + 1) * each
            case _:
                return (accumulation + 1) * each + 2 * accumulation * self.shared * (workers - 1) / workers

    def small(self, stage: str | int) -> int:
        """Small exchanges in a step."""
        return self.exchanges + (self.tensors if stage == 3 else 0)

    def step(self, stage: str | int, workers: int, images: int, fabric: Fabric) -> float:
        """Seconds of a step with so many images a worker."""
        moving = self.moved(stage, workers) / fabric.bandwidth(workers)
        return self.compute(images) + moving + self.small(stage) * fabric.latency(workers)

    def weak(self, stage: str | int, workers: int, images: int, fabric: Fabric) -> float:
        """Share of the ideal speed, with so many images a worker whatever the number of workers."""
        return self.step(stage, 1, images, fabric) / self.step(stage, workers, images, fabric)

    def strong(self, stage: str | int, workers: int, batch_size: int, fabric: Fabric) -> float:
        """Share of the ideal speed, with a global batch that workers share."""
        whole = self.step(stage, 1, batch_size, fabric)
        return whole / workers / self.step(stage, workers, max(1, batch_size // workers), fabric)


# Assumed, not measured here. A ring over several nodes uses one network adapter of each.
FABRICS = (
    Fabric("one NVLink node after another over 400 Gb/s EFA", 8, 300e9, 40e9, 15e-6, 3e-6, 12e-6),
    Fabric("the same over 100 Gb/s Ethernet", 8, 300e9, 10e9, 15e-6, 3e-6, 30e-6),
)
