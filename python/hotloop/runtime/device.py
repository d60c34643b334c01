# SPDX-License-Identifier: Apache-2.0
"""Devices: which there are, and if one cannot be used, why.

The CUDA part of hotloop is a library of its own beside the package, opened on first need; asking for a GPU
makes no context, opening one does. ``"simt"`` is the same library on an emulator, where the developers' build
has made it: slow, and for tests only.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from hotloop import _core, env
from hotloop.arguments import choice
from hotloop.errors import DeviceError
from hotloop.runtime.threads import get_num_threads

Kind = Literal["cpu", "cuda", "simt"]
Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")

_FOLDER = Path(__file__).parents[1]  # the package, where the libraries lie
_FILES = {"cuda": "_cuda.so", "simt": "_simt.so"}
#: DeviceStatus of csrc/cuda/api.h.
_NO_DRIVER, _TOO_OLD, _NO_DEVICE = 1, 2, 3
#: Contexts do not survive a fork: a device belongs to the process that opened it.
_opened: dict[str, tuple[int, Any]] = {}


@dataclass(frozen=True)
class Device:
    """One device: ``kind`` "cpu" or "cuda", whether it can be used, and if not, why."""

    kind: str
    name: str
    available: bool
    detail: str


def devices() -> list[Device]:
    """The devices hotloop knows of, usable or not, with one clear reason for each that is not.

    Looks for GPUs, but opens none.
    """
    kernels = f"kernels {_core.best_isa()} (of {', '.join(_core.isas())}), {get_num_threads()} threads"
    found = [Device("cpu", platform.processor() or platform.machine(), True, kernels)]
    reason = why_not("cuda")
    if reason is not None:
        return [*found, Device("cuda", "", False, reason)]
    built = f"kernels for {_core.build_info()['cuda'] or 'CUDA'}"
    return [*found, *(Device("cuda", f"GPU {i}", True, built) for i in range(library("cuda").count()))]


def show_config() -> None:
    """Print the version, the kernels in use, the threads and where their limits come from, and the devices."""
    from hotloop import __version__

    isa = env.isa() or _core.best_isa()
    print(f"hotloop {__version__}")
    print(f"python  {platform.python_version()} on {platform.platform()}")
    print(f"kernels {isa} (this machine runs {', '.join(_core.isas())}; {env.ISA}={env.isa() or 'unset'})")
    own, omp = (os.environ.get(name, "unset") for name in (env.NUM_THREADS, env.OMP_NUM_THREADS))
    print(f"threads {get_num_threads()} (processors {_core.cpu_count()}; {env.NUM_THREADS}={own}; "
          f"{env.OMP_NUM_THREADS}={omp})")  # fmt: skip
    for device in devices():
        print(f"{device.kind:<7} {'ready' if device.available else 'not available'}: {device.detail}")


def check_device(device: str, where: str) -> None:
    """Raises `DeviceError` if it cannot be used here, with the reason, and `ValueError` for an unknown name."""
    emulated = ("simt",) if (_FOLDER / _FILES["simt"]).exists() else ()
    choice(where, "device", device, ("auto", "cpu", "cuda", *emulated))
    if device == "cuda":
        _require(device, where)


def first_kind(device: str) -> Kind:
    """Where a device that passed `check_device` begins: "auto" on the CPU, until somebody knows a reason."""
    return "cpu" if device == "auto" else cast(Kind, device)


def _require(kind: str, where: str) -> None:
    reason = why_not(kind)
    if reason is not None:
        raise DeviceError(f"[{where}] device={kind!r} cannot be used: {reason}; device='cpu' works")


@cache
def library(kind: str) -> Any:
    """The device library. Raises `DeviceError` if there is none, or one of another version."""
    path = _FOLDER / _FILES[kind]
    if not path.exists():
        why = _core.build_info()["cuda_reason"] if kind == "cuda" else "the developers' build makes it"
        raise DeviceError(f"this build of hotloop has no {kind.upper()} part" + (f" ({why})" if why else ""))
    return _core.DeviceLibrary(str(path))


def why_not(kind: str) -> str | None:
    """Why no device of that kind can be used; None if one can."""
    try:
        found = library(kind)
        return None if found.count() > 0 else _no_device()
    except DeviceError as error:
        status = getattr(error, "status", None)
        if status == _NO_DRIVER:
            return f"no NVIDIA driver was found ({error}); install one"
        if status == _TOO_OLD:
            return _too_old(library(kind))
        return _no_device() if status == _NO_DEVICE else str(error)


def _no_device() -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden!r} may hide it)"
    return f"there is no NVIDIA GPU{seen}"


def _too_old(found: Any) -> str:
    try:
        driver, built_for = found.versions()
    except DeviceError:
        return "the NVIDIA driver is too old for this build; update it"
    if driver == 0:  # how CUDA's runtime answers where it finds no driver, or one that it cannot use
        return "no NVIDIA driver was found (libcuda.so.1 is missing or broken); install one"
    # Code built with a release runs with the drivers of every release of the same major number.
    return (
        f"the NVIDIA driver is too old: it knows CUDA {driver // 1000}.{driver % 1000 // 10}, this build needs "
        f"{built_for // 1000}.0; update the driver"
    )


def open_device(kind: str, where: str) -> Any:
    """The process's `_core.Device` of that kind, with a context: up to a second at the first call.

    Raises `DeviceError`, also in a process forked off one that had opened the device.
    """
    pid = os.getpid()
    if kind in _opened:
        owner, device = _opened[kind]
        if owner == pid:
            return device
        raise DeviceError(
            f"[{where}] the {kind} device was opened before this process was forked off, which CUDA does not "
            "survive; start processes with multiprocessing's 'spawn'"
        )
    _require(kind, where)
    _opened[kind] = pid, _core.Device(library(kind), 0)
    return _opened[kind][1]


def is_open(kind: str) -> bool:
    """Whether a context is there already, so that using it costs no time."""
    return kind in _opened and _opened[kind][0] == os.getpid()
