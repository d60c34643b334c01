# SPDX-License-Identifier: Apache-2.0
"""What a wheel must be: small, complete, free of foreign libraries, quick to import, starting no threads.

python .ci/check_wheel.py hotloop-*.whl      (with that wheel installed in this environment)
python .ci/check_wheel.py --cuda hotloop-*.whl      (a wheel with the CUDA part, from its files alone)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MAX_BYTES = 5_000_000
MAX_CUDA_BYTES = 25_000_000
MAX_IMPORT_SECONDS = 0.1
# What `hotloop.Trainer` loads on first use is Python alone, so a slow machine's numpy is the measure beside the
# seconds: it stands at about 1.0 times numpy's import (most of it 70 frozen dataclasses), from 0.85 to 1.1 by machine.
MAX_TRAINER_SECONDS = 0.15
MAX_TRAINER_OVER_NUMPY = 1.5
DEVICE_LIBRARY = "hotloop/_cuda.so"
#: libcuda is not among them: the CUDA runtime inside the library opens it, if there is one.
ALLOWED_LIBRARIES = ("libstdc++.so", "libm.so", "libgcc_s.so", "libc.so", "libpthread.so",
                     "libdl.so", "librt.so", "ld-linux")  # fmt: skip
MUST_HOLD = {
    "hotloop/__init__.py", "hotloop/py.typed", "hotloop/_core.pyi", "hotloop/cli/__init__.py", "hotloop/cli/app.py",
    "hotloop/benchmarks/commands.py", "hotloop/benchmarks/worker.py",
    "hotloop/report/page.html.jinja", "hotloop/report/page.css",
}  # fmt: skip
MAY_HOLD = re.compile(
    r"hotloop/.*\.(py|pyi|typed|so)$|hotloop/report/page\.(html\.jinja|css)$|hotloop-[^/]+\.dist-info/"
)

IMPORT_TIME = """
import time
start = time.process_time(); import numpy; numpys = time.process_time() - start
start = time.process_time(); import hotloop; bare = time.process_time() - start
start = time.process_time(); hotloop.Trainer; trainers = time.process_time() - start
import os; print(numpys, bare, trainers, len(os.listdir("/proc/self/task")))
"""
THREADS_OF_NUMPY = 'import numpy, os; print(len(os.listdir("/proc/self/task")))'


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed_libraries(wheel: zipfile.ZipFile, cuda: bool) -> set[str]:
    with tempfile.TemporaryDirectory() as folder:
        shared = sorted(name for name in wheel.namelist() if name.endswith(".so"))
        device = [DEVICE_LIBRARY] if cuda else []
        assert len(shared) == 1 + len(device) and shared[1:] == device, f"unexpected libraries: {shared}"
        dynamic = "".join(run("readelf", "-dW", wheel.extract(name, folder)) for name in shared)
        if cuda:
            library = str(Path(folder) / DEVICE_LIBRARY)
            symbols = run("nm", "-D", "--defined-only", library).split()[2::3]
            assert symbols == ["hotloop_device_api"], f"{DEVICE_LIBRARY} exports {symbols}"
            assert ".nv_fatbin" in run("readelf", "-SW", library), f"{DEVICE_LIBRARY} holds no device code"
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic, "a library carries a run path"
    return set(re.findall(r"NEEDED.*\[(.+)\]", dynamic))


def main() -> None:
    cuda = "--cuda" in sys.argv
    path = Path(sys.argv[-1])
    size, allowed = path.stat().st_size, MAX_CUDA_BYTES if cuda else MAX_BYTES
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        libraries = needed_libraries(wheel, cuda)
    print(f"{path.name}: {size / 1e6:.2f} MB, {len(names)} files, needs {sorted(libraries)}")
    assert size < allowed, f"the wheel has {size} bytes, allowed {allowed}"
    assert names >= MUST_HOLD, f"missing from the wheel: {MUST_HOLD - names}"
    foreign = [name for name in names if not MAY_HOLD.match(name)]
    assert not foreign, f"does not belong in the wheel: {foreign}"
    strange = {name for name in libraries if not name.startswith(ALLOWED_LIBRARIES)}
    assert not strange, f"the libraries link {strange}"
    if not cuda:
        check_import()


def check_import() -> None:
    base_threads = int(run(sys.executable, "-c", THREADS_OF_NUMPY))
    # Processor time, the best of nine: the question is what an import costs, not how busy the machine is.
    runs = [[float(number) for number in run(sys.executable, "-c", IMPORT_TIME).split()] for _ in range(9)]
    numpys, bare, trainers = (min(r[i] for r in runs) for i in range(3))
    print(
        f"import hotloop: {bare * 1e3:.1f} ms over numpy's {numpys * 1e3:.0f}, Trainer {trainers * 1e3:.1f} ms"
    )
    assert bare < MAX_IMPORT_SECONDS, f"importing takes {bare:.3f} s, allowed {MAX_IMPORT_SECONDS}"
    # Side by side in one process: a machine may be slow for one of two processes.
    over = min(r[2] / max(r[0], MAX_TRAINER_SECONDS / MAX_TRAINER_OVER_NUMPY) for r in runs)
    assert over < MAX_TRAINER_OVER_NUMPY, (
        f"loading Trainer takes {over:.2f} of numpy's time ({trainers:.3f} s)"
    )
    assert {int(r[3]) for r in runs} == {base_threads}, "importing hotloop starts threads"


if __name__ == "__main__":
    main()
