"""Time a case through a model: by torch, and exported, by onnxruntime; one thread each, in seconds of the processor.

python -m tests.benchmarks.onnx outputs/model
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import torch

import llm4seg
from llm4seg.export.export import export_network, synthetic_images

ROUNDS = 20


def median_ms(run: Callable[[], object]) -> float:
    """The processor's time, which other programs do not lengthen much; the first two rounds warm up."""
    seconds = []
    for _ in range(ROUNDS + 2):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return 1000 * statistics.median(seconds[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of a trained model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = llm4seg.load(given.model, device="cpu")
    with TemporaryDirectory() as folder, torch.no_grad():
        start = time.process_time()
        done = export_network(model, "onnx", Path(folder) / "model.onnx")
        print(f"exported and checked in {time.process_time() - start:.0f} s, {done.file.stat().st_size / 1e6:.1f} MB")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(done.file, options, providers=["CPUExecutionProvider"])
        images_NCS = synthetic_images(done.about["input"]["shape"][1:])[:1]
        by_torch = median_ms(lambda: model.module(images_NCS))
        by_onnx = median_ms(lambda: session.run(None, {"images": images_NCS.numpy()}))
    print(
        f"{tuple(images_NCS.shape)}: torch {by_torch:.2f} ms, onnxruntime {by_onnx:.2f} ms, {done.difference:.1g} apart"
    )


if __name__ == "__main__":
    main()
