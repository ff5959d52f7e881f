"""Cost of one beat through ONNX, ours against the study's CNN: ``python benchmarks/peers/beat.py``.

One thread, batches of 64, the same engine and settings for both, taken in turns so that a busy machine slows both; the
median of the rounds. The network alone is timed (what makes its input is in ``rhythmwatch bench``). Weights don't
change the cost, so the study's network keeps its random ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from inference.training.baselines.study_cnn import SIDE, StudyCnn, to_onnx

BATCH: Final = 64
STUDY: Final = "the study's CNN"
MODEL: Final = Path(__file__).parents[2] / "inference" / "models" / "beat.onnx"


def session(model: bytes) -> Any:
    """Open a session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def inputs(running: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Random rows for a session's inputs, `BATCH` of them."""
    shapes = {item.name: (BATCH, *item.shape[1:]) for item in running.get_inputs()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def measure(models: dict[str, bytes], rounds: int) -> dict[str, float]:
    """Median CPU microseconds of a beat, by model."""
    rng = np.random.default_rng(0)
    running = {name: session(model) for name, model in models.items()}
    rows = {name: inputs(own, rng) for name, own in running.items()}
    spent: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 3):
        for name, own in running.items():
            began = time.thread_time()
            own.run(None, rows[name])
            if number >= 3:
                spent[name].append((time.thread_time() - began) * 1e6 / BATCH)
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="our beat network")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="file whose entry 'cost' is written")
    options = parser.parse_args()
    network = StudyCnn()
    models = {STUDY: to_onnx(network).SerializeToString()}
    if options.model.exists():
        models["ours"] = options.model.read_bytes()
    else:
        print(f"no {options.model}: only the study's CNN is measured; train ours with rhythmwatch train")
    figures = measure(models, options.rounds)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"study's CNN: {parameters:,} parameters, picture {SIDE}x{SIDE}x3; batch {BATCH}, one thread")
    for name, value in figures.items():
        print(f"{name}: {value:.2f} us a beat")
    if "ours" in figures:
        print(f"ratio: 1/{figures[STUDY] / figures['ours']:.1f}")
    if options.json:
        content = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {}
        content["cost"] = {name: round(value, 2) for name, value in figures.items()}
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
