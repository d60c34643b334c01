# SPDX-License-Identifier: Apache-2.0
"""How well `Trainer.plan` predicts the time of an epoch: python -m bench.cost [--save] [--networks ...]

Prediction and run alternate, each on a fresh trainer, so that a busy spell of the machine falls on both. The
target is a prediction within 25 % of what is then measured.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict

from bench._harness import Row, machine, save, settle, table
from hotloop.benchmarks.harness import measure_limits
from hotloop.benchmarks.networks import Network, selected
from hotloop.benchmarks.run_hotloop import HotloopRunner

ROUNDS = 5
#: Of a timed run: what `fit` does once (checks, set-up) is below a hundredth of it.
RUN_S = 0.3
TARGET = 0.25


def measured(network: Network) -> list[Row]:
    """One row of predicted and one of measured seconds per epoch, and how long each answer took."""
    predicted, found, answers = [], [], []
    for _ in range(ROUNDS):
        runner = HotloopRunner(network, None)
        settle()  # the data was made with NumPy's BLAS, whose threads spin for a while
        begin = time.perf_counter()
        plan = runner.trainer.plan(runner.x, runner.y, batch_size=network.batch)
        answers.append(time.perf_counter() - begin)
        predicted.append(plan.seconds_per_epoch)
        epochs = max(1, round(RUN_S / plan.seconds_per_epoch))
        begin = time.perf_counter()
        runner.run(epochs, shuffle=True)
        found.append((time.perf_counter() - begin) / epochs)
    ratios = [p / m for p, m in zip(predicted, found, strict=True)]
    extra = {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "answer_s": round(statistics.median(answers), 3),
    }
    return [
        Row(network.name, "predicted", tuple(predicted), extra),
        Row(network.name, "measured", tuple(found)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-cost.json")
    parser.add_argument("--networks", help="keys such as 64-128-10,784-30-10; all by default")
    arguments = parser.parse_args()
    rows, lines = [], []
    for network in selected(arguments.networks):
        predicted, real = measured(network)
        rows += [predicted, real]
        ratio = predicted.extra["ratio"]
        verdict = "ok" if abs(ratio - 1) <= TARGET else "MISSED"
        times = [f"{row.median * 1e3:.3f}" for row in (predicted, real)]
        lines.append([network.name, *times, f"{ratio:.2f}", f"{predicted.extra['answer_s']:.2f}", verdict])
    print(table(["network", "predicted ms", "measured ms", "ratio", "answer s", "within 25 %"], lines))
    if arguments.save:
        print(f"saved {save('cost', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
