# SPDX-License-Identifier: Apache-2.0
"""Kernels beside NumPy, torch, BLIS, oneDNN and libxsmm: python -m bench.peers [--save] [NAME ...]

Names pick works by their beginning. With --compiled torch's compiler takes part where it may help; with --busy
two threads are compared with one while another process keeps the second processor busy. --save keeps the result
and draws the picture of the README from it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from bench._harness import RESULTS, Row, machine
from hotloop import _core
from hotloop.benchmarks import harness, peers
from hotloop.benchmarks.commands import save_result
from hotloop.benchmarks.peer_works import works


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    args = parser.parse_args()
    limits = harness.measure_limits()
    chosen = [w for w in works() if not args.names or w.name.startswith(tuple(args.names))]
    rows: list[Row] = []
    for count in args.threads:
        if count > _core.cpu_count():
            continue
        for work in chosen:
            found = peers.measure(work, count, compiled=args.compiled)
            rows += found
            print(peers.report(_plain(found), limits).splitlines()[1], flush=True)
    print(peers.report(_plain(rows), limits))
    if args.busy:
        busy = [row for work in chosen for row in peers.measure_busy(work)]
        print(peers.busy_report(busy))
        rows += busy
    if args.save:
        result = harness.record("peers", rows, machine(asdict(limits)))
        print("saved", *save_result(result, RESULTS / f"{result['date']}-peers.json"))


def _plain(rows: list[Row]) -> list[dict[str, object]]:
    return list(harness.record("", rows, {})["rows"])


if __name__ == "__main__":
    main()
