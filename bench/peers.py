# SPDX-License-Identifier: Apache-2.0
"""Kernels beside NumPy, torch and BLIS on one thread and on two: python -m bench.peers [--save] [NAME ...]

Names pick works by their beginning. With --compiled torch's compiler takes part where it may help.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from bench._harness import Row, machine, save
from hotloop import _core
from hotloop.benchmarks import harness, peers
from hotloop.benchmarks.peer_works import works


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    args = parser.parse_args()
    limits = harness.measure_limits()
    rows: list[Row] = []
    counts = [count for count in args.threads if count <= _core.cpu_count()]
    for count in counts:
        for work in works():
            if not args.names or any(work.name.startswith(name) for name in args.names):
                found = peers.measure(work, count, compiled=args.compiled)
                rows += found
                print(peers.report([_plain(row) for row in found], limits).splitlines()[1], flush=True)
    print(peers.report([_plain(row) for row in rows], limits))
    if args.save:
        print(f"saved {save('peers', rows, machine(asdict(limits)))}")


def _plain(row: Row) -> dict[str, object]:
    return {**asdict(row), "median": row.median, "best": row.best}


if __name__ == "__main__":
    main()
