# SPDX-License-Identifier: Apache-2.0
"""Runs every case of every kernel once on a device: what compute-sanitizer watches.

    python tools/kernel_driver.py [--device cuda|simt] [--only matmul,adam] [--most N]

Results are not compared (tests/gpu does that); an operand that was written out of its place is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.cases import CASES
from tests.gpu.kernel_harness import run_device
from tests.kernels.harness import initial


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "simt"), default="cuda")
    parser.add_argument("--only", help="kernels, with commas between; default: all")
    parser.add_argument("--most", type=int, default=1 << 30, help="cases of one kernel at most")
    arguments = parser.parse_args()
    wanted = None if arguments.only is None else set(arguments.only.split(","))
    unknown = (wanted or set()) - {case.kernel for case in CASES}
    if unknown:
        parser.error(f"no cases of {sorted(unknown)}")
    done: Counter[str] = Counter()
    for case in CASES:
        if (wanted is None or case.kernel in wanted) and done[case.kernel] < arguments.most:
            run_device(arguments.device, case, initial(case, case.fields(np.float32)))
            done[case.kernel] += 1
    print(f"{sum(done.values())} cases of {len(done)} kernels ran on {arguments.device}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
