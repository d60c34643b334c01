# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can show, in one command and under eight minutes; works offline.

    python tools/gpu_check.py [--out FOLDER]              build, test, watch and measure on this machine's GPU
    python tools/gpu_check.py --device simt [--out ...]   the same parts on the emulator, tiny: a test of this tool

Each part is a process of its own with a limit in seconds; what it printed is in FOLDER/<part>.log, and a part that
fails, hangs or dies takes none of the others with it, nor does Ctrl-C, which ends the part in hand. A table comes
last. Benchmarks, and a summary of all parts, are dated JSON files in bench/results, and what the GPU answered in the
part "twins" becomes a fixture in tests/simt/fixtures; with --out all of that goes to FOLDER instead.

The package is built from this tree (pip install --no-build-isolation --target) unless --installed is given; that
needs nvcc, CMake, ninja, scikit-build-core and pybind11, which the machine must have; the part "tests" needs pytest,
pytest-timeout and hypothesis. What is missing is told first. Without a GPU that can be used: one line, and exit code 2.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FIXTURES = ROOT / "bench" / "results", ROOT / "tests" / "simt" / "fixtures"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
TOTAL_S = 470.0  # of all parts
SKIPPED = "skipped"
NO_GPU = 2  # exit code
#: Modules that parts need, and what needs them.
NEEDED = {
    "build": ("pip", "scikit_build_core", "pybind11"),
    "everything": ("numpy", "safetensors"),
    "tests": ("pytest", "pytest_timeout", "hypothesis"),
    "peers in the benchmarks": ("torch", "jax"),
}


@dataclass(frozen=True)
class Part:
    """``limit_s``: after which it is stopped. ``needs``: a part without which this one makes no sense."""

    name: str
    command: Sequence[str]
    limit_s: float
    needs: str = ""


@dataclass(frozen=True)
class Outcome:
    part: str
    result: str  # "passed", "FAILED (n)", "stopped at its limit", "skipped"
    seconds: float
    note: str  # the last line that it printed, or why it was skipped


def why_no_gpu() -> str:
    """Why CUDA's driver shows no GPU; empty if it does. Asked of the driver itself: nothing is built yet."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error})"
    found, count = int(driver.cuInit(0)), ctypes.c_int()
    if found == 0:
        found = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if found != 0:
        return f"the NVIDIA driver answers with error {found}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if count.value else f"the NVIDIA driver shows none (CUDA_VISIBLE_DEVICES={hidden!r})"


def missing_tools(*, builds: bool) -> list[str]:
    """A line for each purpose of which something is not installed."""
    lines = []
    for purpose, modules in NEEDED.items():
        lacking = [name for name in modules if importlib.util.find_spec(name) is None]
        if lacking and (builds or purpose != "build"):
            lines.append(f"not installed: {', '.join(lacking)} (for {purpose})")
    return lines


def gpu_name() -> str:
    """The GPU's name as a file's; empty where nvidia-smi does not tell it."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return re.sub(r"[^a-z0-9]+", "_", found.stdout.split("\n")[0].lower()).strip("_")


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def build_part(site: Path) -> Part:
    """The package with the CUDA part for this machine's GPU."""
    command = python("-m", "pip", "install", "--no-build-isolation", "--no-deps", "--upgrade", "--target", str(site),
                     "-C", "cmake.define.HOTLOOP_CUDA=ON", str(ROOT))  # fmt: skip
    return Part("build", command, 200.0)


def sanitizer_parts() -> list[Part]:
    """compute-sanitizer over the kernel driver; races and barriers take longest, and get fewer cases."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    parts = []
    for name in SANITIZERS:
        most = ["--most", "6"] if name in ("racecheck", "initcheck") else ["--most", "15"]
        command = [tool, "--tool", name, "--error-exitcode", "9", *python("tools/kernel_driver.py", *most)]
        parts.append(Part(name, command, 60.0, needs="info"))
    return parts


def twins_part(out: Path, kind: str) -> Part:
    library = python(
        "-c", f"import hotloop, pathlib; print(pathlib.Path(hotloop.__file__).with_name('_{kind}.so'))"
    )
    where = f"$({' '.join(map(quoted, library))})"
    save = quoted(str(out / "twins.npz"))
    command = f"exec {quoted(sys.executable)} -m tests.simt.conformance --library {where} --save {save}"
    return Part("twins", ["sh", "-c", command], 40.0, needs="info")


def gpu_parts(out: Path, results: Path) -> list[Part]:
    """What is right comes before what is fast, and before both whether the instructions are what we take them for."""
    several = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    memcheck, *others = sanitizer_parts()
    save = ["--save", "--out", str(results)]
    return [
        Part("info", python("-c", INFO), 60.0),
        twins_part(out, "cuda"),
        Part("tests", python("-m", "pytest", "-q", "--maxfail=20", "-p", "no:cacheprovider", *several, "tests/gpu"),
             150.0, needs="info"),
        memcheck,
        Part("kernels", python("-m", "bench.gpu.kernels", *save), 150.0, needs="info"),
        Part("training", python("-m", "bench.gpu.training", *save), 150.0, needs="info"),
        *others,
    ]  # fmt: skip


def emulator_parts(out: Path, results: Path) -> list[Part]:
    """The same on the emulator, as far as CI has the seconds for it."""
    simt = ["--device", "simt"]
    save = ["--save", "--out", str(results)]
    return [
        Part("info", python("-c", INFO), 60.0),
        twins_part(out, "simt"),
        Part("driver", python("tools/kernel_driver.py", *simt, "--most", "1"), 90.0, needs="info"),
        Part("kernels", python("-m", "bench.gpu.kernels", *simt, *save), 90.0, needs="info"),
        Part("training", python("-m", "bench.gpu.training", *simt, *save), 90.0, needs="info"),
        *([] if shutil.which("compute-sanitizer") else [Part("memcheck", [], 1.0)]),
    ]


INFO = "import hotloop; hotloop.show_config()"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def run_part(part: Part, limit_s: float, environment: Mapping[str, str], log: Path) -> Outcome:
    """Run it, show what it prints as it comes, and stop it with all its children at the limit."""
    begin = time.monotonic()
    with log.open("w+", encoding="utf-8", errors="replace") as written:
        try:
            process = subprocess.Popen(
                part.command, cwd=ROOT, env=dict(environment), stdout=written, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Outcome(part.name, SKIPPED, 0.0, str(error))
        shown, interrupted = 0, False
        try:
            while (status := process.poll()) is None and time.monotonic() - begin < limit_s:
                time.sleep(0.2)
                shown = show(log, shown)
        except KeyboardInterrupt:
            status, interrupted = None, True
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    show(log, shown)
    seconds = time.monotonic() - begin
    stopped = "stopped by Ctrl-C" if interrupted else "stopped at its limit"
    result = stopped if status is None else "passed" if status == 0 else f"FAILED ({status})"
    return Outcome(part.name, result, round(seconds, 1), last_line(log))


def show(log: Path, shown: int) -> int:
    """Print what has been added; the new length."""
    with log.open("rb") as stream:
        stream.seek(shown)
        new = stream.read()
    sys.stdout.write(new.decode(errors="replace"))
    sys.stdout.flush()
    return shown + len(new)


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "")


def run_all(parts: Sequence[Part], environment: Mapping[str, str], out: Path, results: Path) -> list[Outcome]:
    deadline = time.monotonic() + TOTAL_S
    outcomes: list[Outcome] = []
    failed: set[str] = set()
    for part in parts:
        left = deadline - time.monotonic()
        print(f"\n=== {part.name}", flush=True)
        if part.needs in failed:
            outcome = Outcome(part.name, SKIPPED, 0.0, f"needs {part.needs}")
        elif left < 5.0:
            outcome = Outcome(part.name, SKIPPED, 0.0, "no time was left")
        elif not part.command or not shutil.which(part.command[0]):
            outcome = Outcome(
                part.name, SKIPPED, 0.0, f"{(part.command or ['compute-sanitizer'])[0]} is not there"
            )
        else:
            outcome = run_part(part, min(part.limit_s, left), environment, out / f"{part.name}.log")
        if outcome.result != "passed":
            failed.add(part.name)
        outcomes.append(outcome)
        write_summary(outcomes, results)  # kept whatever comes next
    return outcomes


def keep_fixture(outcomes: Sequence[Outcome], out: Path) -> None:
    """What a GPU answered goes where the emulator is held to it."""
    answers = out / "twins.npz"
    if any(o.part == "twins" and o.result == "passed" for o in outcomes) and answers.exists():
        target = FIXTURES / f"{gpu_name() or 'gpu'}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(answers, target)
        print(f"\nthe GPU's answers: {target}")


def write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"name": "gpu_check", "date": date, "parts": [asdict(o) for o in outcomes]}, indent=1)
    (out / f"{date}-gpu_check.json").write_text(text + "\n", encoding="utf-8")


def summary(outcomes: Sequence[Outcome]) -> str:
    lines = [f"{'part':<10} {'seconds':>8}  {'result':<22} last line"]
    lines += [f"{o.part:<10} {o.seconds:>8.1f}  {o.result:<22} {o.note}" for o in outcomes]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "simt"), default="cuda")
    parser.add_argument(
        "--out", type=Path, help="folder for logs and results; default: a new one, and bench/results"
    )
    parser.add_argument("--installed", action="store_true", help="check the hotloop that is installed")
    parser.add_argument("--only", help="names of parts, with commas between")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and (reason := why_no_gpu()):
        print(
            f"gpu_check: no GPU to check here: {reason}; nothing was run (--device simt tries the tool itself)"
        )
        return NO_GPU
    out = (arguments.out or Path(tempfile.mkdtemp(prefix="hotloop-gpu-check-"))).resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = out if arguments.out or arguments.device == "simt" else RESULTS
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    parts = (gpu_parts if arguments.device == "cuda" else emulator_parts)(out, results)
    if arguments.device == "cuda" and not arguments.installed:
        site = out / "site"
        parts.insert(0, build_part(site))
        parts[1] = Part("info", parts[1].command, parts[1].limit_s, needs="build")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    if arguments.only:
        wanted = arguments.only.split(",")
        unknown = sorted(set(wanted) - {part.name for part in parts})
        if unknown:
            parser.error(f"no part {unknown[0]!r}; there are {', '.join(part.name for part in parts)}")
        parts = [part for part in parts if part.name in wanted]
    for line in missing_tools(builds=parts[0].name == "build"):
        print(line, flush=True)
    outcomes = run_all(parts, environment, out, results)
    if arguments.device == "cuda" and results == RESULTS:
        keep_fixture(outcomes, out)
    print(f"\nlogs: {out}\nresults: {results}\n{summary(outcomes)}", flush=True)
    return int(any(o.result not in ("passed", SKIPPED) for o in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
