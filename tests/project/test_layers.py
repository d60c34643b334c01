# SPDX-License-Identifier: Apache-2.0
"""The direction of dependencies, read from the #include and import lines: nothing imports upward."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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

# Which unit (a module, or a sub-package as a whole) may import which. A name allows what lies below it.
BASE = {"errors", "arguments", "graph", "patterns"}
RULES = BASE | {"rules"}
DESCRIBE = RULES | {"trace", "compile.plan"}
COMPILE = RULES | {"compile", "reference"}
SETTINGS = {"losses", "optim", "schedules", "metrics", "scoring", "freeze_plan"}
RUNTIME = COMPILE | SETTINGS | {"env", "trace", "nn", "data", "runtime"}
SETUP = RUNTIME | {"engine", "fit.setup"}
RUN = SETUP | {
    "callbacks", "classes", "diagnosis", "early_stopping", "evidence", "fit", "history", "probes.dry_result",
    "progress", "storage.checkpoint", "storage.files", "train_step",
}  # fmt: skip
TRAINER = RUN | {
    "inputs", "model_info", "predictor", "probes", "report.predictions", "setting", "storage", "trainer",
}  # fmt: skip  # a file becomes a trainer, a trainer a file
ALLOWED: dict[str, set[str]] = {
    # what everything may name
    "errors": set(),
    "arguments": {"errors"},
    "env": {"errors"},
    "graph": {"errors"},
    "patterns": set(),
    "setting": set(),
    # models, and what a run is described with
    "reference": {"reference"},
    "rules": RULES,
    "trace": RULES | {"trace"},
    "nn": DESCRIBE | {"nn", "export"},  # a module knows how to be exported
    "nn.tabular": DESCRIBE | {"nn", "data"},
    "losses": DESCRIBE | {"losses"},
    "optim": DESCRIBE | {"optim"},
    "schedules": DESCRIBE | {"schedules"},
    "classes": BASE,
    "scoring": BASE | {"classes", "scoring"},
    "metrics": DESCRIBE | {"metrics", "losses", "scoring"},
    "freeze_plan": BASE,
    "data": BASE | {"data", "ops"},  # ops: arrays of others that lie on a device
    "compile": COMPILE,
    "export": DESCRIBE | {"compile", "data", "storage.files", "losses", "nn", "export"},
    # native memory, programs, threads and devices
    "runtime": RUNTIME - {"runtime"},
    "runtime.interrupt": set(),
    "runtime.threads": BASE | {"env", "compile.plan"},
    "runtime.device": BASE | {"env", "runtime.threads"},
    "runtime.device_choice": COMPILE | {"runtime.device", "runtime.threads"},
    "runtime.executable": COMPILE | {"data"},
    "runtime.grouping": COMPILE | SETTINGS,
    "runtime.parallel": BASE | {"runtime.interrupt", "runtime.threads"},
    "runtime.memory": RUNTIME - {"runtime"},
    "runtime.session": RUNTIME,
    "runtime.direct": RUNTIME,
    "ops": BASE | {"env", "runtime.threads", "compile.plan", "runtime.device", "optim", "ops"},
    # passes over data, runs, and who judges them
    "engine": SETUP,
    "train_step": SETUP,
    "fit": RUN,
    "fit.setup": SETUP,
    "fit.buffers": RUNTIME,
    "fit.record": BASE | {"history"},
    "fit.about": TRAINER,
    "fit.context": TRAINER,
    "fit.prepare": TRAINER,
    "evidence": BASE,
    "early_stopping": BASE | {"history"},
    "callbacks": BASE | {"history"},
    "progress": BASE | {"history", "callbacks"},
    # a history knows how to be judged, and the judges read nothing but it
    "history": BASE | {"diagnosis", "evidence", "probes.dry_result", "report", "storage.files"},
    "diagnosis": BASE | {"diagnosis", "evidence", "history", "early_stopping", "probes.learning_curve"},
    "report": BASE | {"storage.files", "history", "metrics", "report"},
    "report.predictions": BASE,
    "report.text": BASE | {"history", "metrics", "data"},
    "probes": RUN | {"probes", "inputs.frames"},
    "probes.dry_result": BASE,
    "probes.learning_curve": TRAINER,
    # files, and the faces to the user
    "storage": TRAINER,
    "storage.files": BASE,
    "storage.checkpoint": BASE | {"storage.files"},
    "inputs": SETUP | {"inputs", "predictor", "trainer"},
    "inputs.frames": SETUP | {"predictor"},
    "predictor": RUN | {"inputs", "export"},
    "model_info": TRAINER,
    "trainer": TRAINER,
    "sklearn": TRAINER | {"sklearn"},
    "torch": SETUP | {"train_step", "ops", "torch"},
    "benchmarks": TRAINER | {"ops", "benchmarks", "__init__"},
    "cli": TRAINER | {"benchmarks", "report", "__init__"},
    "__main__": {"cli"},
    "__init__": TRAINER | {"ops", "sklearn", "torch"},
}
# Who may import the extension: execution, the check of numbers that come in, and that of a plan against the kernels'
# schema.
NATIVE = {
    "__init__",
    "benchmarks.commands",
    "benchmarks.harness",
    "benchmarks.kernel_settings",
    "benchmarks.kernels",
    "benchmarks.training",
    "data.border",
    "cli.info",
    "compile.check",
    "engine.blocks",
    "engine.callable",
    "engine.native",
    "engine.streams",
    "export.builder",
    "fit.cost",
    "fit.provenance",
    "fit.witness",
    "ops.device",
    "ops.elementwise",
    "ops.launch",
    "ops.linear",
    "ops.loss",
    "ops.random",
    "ops.rows",
    "ops.update",
    "runtime.device",
    "runtime.device_choice",
    "runtime.direct",
    "runtime.executable",
    "runtime.interrupt",
    "runtime.memory",
    "runtime.parallel",
    "runtime.session",
    "runtime.threads",
    "sklearn.base",
    "sklearn.stochastic",
    "torch.kernels",
    "torch.optim",
    "torch.passes",
    "torch.there",
    "train_step",
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


def test_every_row_names_a_module() -> None:
    names = {module_name(path) for path in PACKAGE.rglob("*.py")}
    rows = set(ALLOWED) | {name for row in ALLOWED.values() for name in row} | NATIVE
    assert rows - names == set()


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
