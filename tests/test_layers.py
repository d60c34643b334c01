# SPDX-License-Identifier: Apache-2.0
"""The direction of dependencies, read from the #include and import lines: nothing imports upward."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "hotloop"

CPP_ALLOWED = {
    "core": {"core"},
    "cpu": {"cpu", "core"},
    "cuda": {"cuda", "core"},
    "kernels": {"kernels", "cpu", "cuda", "core"},
    "runtime": {"runtime", "kernels", "cpu", "cuda", "core"},
    "bindings": {"bindings", "runtime", "kernels", "cpu", "cuda", "core"},
    "device": {"device", "kernels", "cuda", "core"},  # the root of the device library
}

# Written by the build about itself.
GENERATED = {"build_info.h"}
# The one header that has a half outside of csrc: the emulator's, for kernels under test.
EMULATED = ("cuda", "simt/portable_host.h")

# Which unit (a module, or a sub-package as a whole) may import which.
BASE = {"errors", "arguments", "graph", "patterns"}
RULES = BASE | {"rules"}
DESCRIBE = RULES | {"trace", "compile.plan"}
COMPILE = RULES | {"compile", "reference"}
SETTINGS = {"losses", "optim", "schedules", "metrics", "scoring", "freeze_plan"}
SESSION = (
    COMPILE
    | SETTINGS
    | {"env", "threads", "device", "executable", "trace", "nn", "data", "grouping", "model_memory", "session"}
)
STEP = SESSION | {
    "block_engine", "callable_engine", "direct", "engine", "fit_setup", "scored_engine", "stream_data",
    "train_step",
}  # fmt: skip
RUN = STEP | {
    "callbacks", "checkpoint", "classes", "cost", "device_choice", "diagnosis", "fit_device", "dry_run", "early_stopping", "evidence", "files",
    "fit_evidence", "fit_job", "fit_loop", "history", "hyper_schedules", "interrupt", "progress", "provenance",
    "run_buffers", "run_record", "witness",
}  # fmt: skip
TRAINER = RUN | {
    "checkpoint_file",
    "fit_prepare",
    "learning_curve",
    "model_file",
    "model_info",
    "predictor",
    "setting",
    "probes",
    "predictions",
    "data_inputs",
    "raw_inputs",
    "run_about",
    "run_context",
    "tabular",
    "trainer",
}  # a file becomes a trainer, a trainer a file
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "env": {"errors"},
    "graph": {"errors"},
    "patterns": set(),
    "reference": {"reference"},
    "rules": RULES,
    "ops": BASE | {"env", "threads", "compile.plan", "device", "optim", "ops"},
    "trace": RULES | {"trace"},
    "nn": DESCRIBE | {"nn", "export"},  # a module knows how to be exported
    "losses": DESCRIBE | {"losses"},
    "optim": DESCRIBE | {"optim"},
    "schedules": DESCRIBE | {"schedules"},
    "scoring": BASE | {"classes", "scoring"},
    "metrics": DESCRIBE | {"metrics", "losses", "scoring"},
    "compile": COMPILE,
    "export": DESCRIBE | {"compile", "data", "files", "losses", "nn", "export"},
    "freeze_plan": BASE,
    "grouping": COMPILE | SETTINGS,
    "threads": BASE | {"env", "compile.plan"},
    "files": BASE,
    "dry_run": BASE,
    "evidence": BASE,
    # a history knows how to be judged, and the judges read nothing but it
    "history": BASE | {"diagnosis", "dry_run", "evidence", "files", "report"},
    "diagnosis": BASE | {"diagnosis", "evidence", "history", "early_stopping", "learning_curve"},
    "predictions": BASE,
    "report": BASE | {"files", "history", "metrics", "predictions", "report"},
    "run_about": TRAINER,
    "run_context": TRAINER,
    "checkpoint": BASE | {"files"},
    "run_record": BASE | {"history"},
    "interrupt": set(),
    "early_stopping": BASE | {"history"},
    "callbacks": BASE | {"history"},
    "progress": BASE | {"history", "callbacks"},
    "data": BASE | {"data", "ops"},  # arrays of others that lie on a device
    "model_memory": SESSION - {"session"},
    "session": SESSION,
    "device": BASE | {"env", "threads"},
    "executable": BASE | {"compile", "compile.plan", "data"},
    "device_choice": COMPILE | {"device", "threads"},
    "fit_device": STEP | {"device_choice"},
    "tabular": DESCRIBE | {"nn", "data"},
    "direct": SESSION | {"direct"},
    "engine": STEP,
    "block_engine": STEP,
    "stream_data": STEP,
    "raw_inputs": STEP | {"predictor"},
    "data_inputs": STEP | {"raw_inputs", "predictor", "trainer"},
    "callable_engine": STEP,
    "classes": BASE,
    "scored_engine": STEP,
    "train_step": STEP,
    "fit_setup": STEP,
    "hyper_schedules": STEP,
    "run_buffers": SESSION,
    "witness": STEP | {"classes", "evidence", "witness"},
    "fit_evidence": RUN,
    "learning_curve": TRAINER,
    "fit_job": RUN,
    "fit_loop": RUN,
    "cost": RUN,
    "checkpoint_file": TRAINER,
    "model_file": TRAINER,
    "model_info": TRAINER,
    "provenance": RUN,
    "predictor": RUN | {"raw_inputs", "data_inputs", "export"},
    "probes": RUN | {"probes", "raw_inputs"},
    "fit_prepare": TRAINER,
    "setting": set(),
    "parallel": BASE | {"interrupt", "threads"},
    "sklearn": TRAINER | {"parallel", "sklearn"},
    "trainer": TRAINER,
    "torch": STEP | {"ops", "torch"},
    "report_text": BASE | {"history", "metrics", "data"},
    "benchmarks": TRAINER | {"ops", "benchmarks", "__init__"},
    "cli": TRAINER | {"benchmarks", "report", "report_text", "__init__"},
    "__main__": {"cli"},
    "__init__": TRAINER | {"ops", "sklearn", "torch"},
}
# Who may import the extension: execution, and the check of a plan against the kernels' schema.
NATIVE = {
    "model_memory",
    "device",
    "device_choice",
    "executable",
    "session",
    "direct",
    "engine",
    "block_engine",
    "stream_data",
    "callable_engine",
    "train_step",
    "interrupt",
    "parallel",
    "sklearn.stochastic",
    "provenance",
    "cost",
    "witness",
    "threads",
    "export.builder",
    "ops.elementwise",
    "ops.device",
    "ops.launch",
    "cli.info",
    "ops.linear",
    "ops.loss",
    "ops.update",
    "torch.kernels",
    "torch.optim",
    "compile.check",
    "torch.passes",
    "benchmarks.harness",
    "benchmarks.kernel_settings",
    "benchmarks.kernels",
    "benchmarks.commands",
    "benchmarks.training",
    "__init__",
}


def unit_of(module: str, names: dict[str, set[str]]) -> str:
    """`compile.lower` -> `compile`: the longest prefix that the table knows."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in names:
            return ".".join(parts[:end])
    return parts[0]


def imported_modules(tree: ast.AST, *, module: str, package: Path = PACKAGE) -> set[str]:
    """Modules of hotloop that a file imports, without the leading `hotloop.`; `TYPE_CHECKING` counts too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "hotloop"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import, line {node.lineno}"
            base = node.module or ""
            if base.split(".")[0] == "hotloop":
                names = [a.name for a in node.names if a.name != "__version__"]  # a text, not a layer
                found |= {f"{base}.{n}" if is_module(base, n, package) else base for n in names}
    return {name.removeprefix("hotloop").removeprefix(".") or "__init__" for name in found}


def is_module(base: str, name: str, package: Path) -> bool:
    path = package.joinpath(*base.split(".")[1:], name)
    return name == "_core" or path.is_dir() or path.with_suffix(".py").exists()


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def python_violations(module: str, imports: set[str]) -> list[str]:
    unit = unit_of(module, ALLOWED)
    if unit not in ALLOWED:
        return [f"{module}: a new unit; add a row to ALLOWED"]
    allowed = ALLOWED[unit]
    bad = []
    for name in sorted(imports):
        if name.split(".")[0] == "_core":
            legal = module in NATIVE
        else:
            legal = any(name == a or name.startswith(a + ".") for a in allowed | {unit})
        if not legal:
            bad.append(f"{module} imports {name}; allowed: {', '.join(sorted(allowed))}")
    return bad


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports_point_downward(path: Path) -> None:
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert python_violations(module, imported_modules(tree, module=module)) == []


def test_an_upward_import_would_be_seen() -> None:
    tree = ast.parse("from hotloop.trainer import Trainer\nfrom hotloop import _core\nimport hotloop.graph")
    imports = imported_modules(tree, module="ops.matmul")
    assert imports == {"trainer", "_core", "graph"}
    assert len(python_violations("ops.matmul", imports)) == 2


def cpp_files() -> list[Path]:
    return sorted(p for p in CSRC.rglob("*") if p.suffix in {".h", ".cc", ".cu", ".def"})


@pytest.mark.parametrize("path", cpp_files(), ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_point_downward(path: Path) -> None:
    layer = path.relative_to(CSRC).parts[0]
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE):
        if target in GENERATED:
            continue
        assert "/" in target, f"{path.name}: write {target} from csrc/, as in kernels/vec.h"
        if (layer, target) == EMULATED:
            continue
        assert target.split("/")[0] in CPP_ALLOWED[layer], f"{layer}/{path.name} includes {target}"
    if layer != "bindings":
        assert not re.search(r"#\s*include\s+<(pybind11|Python\.h)", text), f"{path.name} sees Python"


# The headers a unit compiled with wide-vector flags may use: no inline templates that the linker could
# share with units for every processor.
SIMD_HEADERS = {"arm_neon.h", "cstddef", "cstdint", "cstring", "immintrin.h", "math.h", "time.h"}
# Declares the schema beside the table; nothing of std is called through it in a SIMD unit.
SCHEMA = CSRC / "kernels" / "table.h"
NAMESPACE_OBJECT = re.compile(
    r"^(?:static\s+)?(?:const\s+)?(?:Vec|Mask|__m\d+\w*|float|double|int|bool)\b[^()]*[=;{]"
)


def simd_sources() -> list[Path]:
    """The *_cpu.cc units and every header of ours they reach."""
    reached: set[Path] = set()
    queue = sorted((CSRC / "kernels").glob("*_cpu.cc")) + sorted((CSRC / "cpu").glob("vec_*.h"))
    while queue:
        path = queue.pop()
        if path in reached or not path.exists():
            continue
        reached.add(path)
        queue += [CSRC / t for t in re.findall(r'#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"))]
    return sorted(reached - {SCHEMA})


@pytest.mark.parametrize("path", simd_sources(), ids=lambda p: str(p.relative_to(CSRC)))
def test_simd_units_share_nothing_with_other_processors(path: Path) -> None:
    text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    headers = set(re.findall(r"#\s*include\s+<([^>]+)>", text))
    assert headers <= SIMD_HEADERS, f"{path.name} includes {headers - SIMD_HEADERS}"
    templates = set(re.findall(r"std::(\w+)\s*<", text))
    assert not templates, f"{path.name} instantiates std::{templates}"
    objects = [line for line in text.splitlines() if NAMESPACE_OBJECT.match(line)]
    assert not objects, f"{path.name} has objects at namespace scope: {objects}"
