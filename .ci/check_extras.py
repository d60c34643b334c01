# SPDX-License-Identifier: Apache-2.0
"""What an extra is for, done once with the wheel and that extra alone; without any, the messages that name them.

python .ci/check_extras.py --list "OTHERS"    the extras of pyproject.toml that have a job, OTHERS left out
python .ci/check_extras.py EXTRA | none       in the environment of that extra
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What an extra brings, none of which `import hotloop` may load.
BRINGS = {
    "audio": ("soundfile",),
    "cli": ("cyclopts", "rich"),
    "data": ("narwhals", "pyarrow"),
    "image": ("PIL",),
    "onnx": ("onnx",),
    "plot": ("matplotlib", "jinja2"),
    "sklearn": ("sklearn", "scipy"),
    "tensorboard": ("tensorboardX",),
}


def arrays() -> tuple[Any, Any]:
    import numpy as np

    X = np.random.default_rng(0).standard_normal((120, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def trained(**options: Any) -> tuple[Any, Any]:
    """A small classifier and its run."""
    import hotloop as hl

    model = hl.nn.Sequential(hl.nn.Linear(4, 8), hl.nn.ReLU(), hl.nn.Linear(8, 2))
    trainer = hl.Trainer(model, "cross_entropy", optimizer=hl.optim.AdamW(0.02), progress=False, **options)
    return trainer, trainer.fit(*arrays(), validation=0.25, epochs=5)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hotloop", *arguments], capture_output=True, text=True, check=False
    )


def job_none() -> None:
    trainer, run = trained()
    assert run.history["val_accuracy"][-1] > 0.7, run.history
    trainer.save("model.safetensors")
    import hotloop as hl

    assert (hl.load("model.safetensors").predict(arrays()[0]) == trainer.predict(arrays()[0])).all()
    for extra, attempt in MISSING:
        message = attempt(trainer, run)
        assert f"hotloop[{extra}]" in message, f"{extra}: {message!r} does not name the extra"
        print(f"  without {extra}: {message.strip()}")


def job_cli() -> None:
    import numpy as np

    X, y = arrays()
    np.savez("data.npz", X=X, y=y)
    for arguments in (["info"], ["train", "data.npz", "--target", "y", "--epochs", "3", "--out", "out"]):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
    assert list(Path("out").rglob("*.safetensors")), list(Path("out").rglob("*"))


def job_data() -> None:
    import pyarrow as pa

    import hotloop as hl
    from hotloop.nn.tabular import tabular_model

    X, y = arrays()
    frame = pa.table(
        {"a": X[:, 0], "b": [None if v < -1 else float(v) for v in X[:, 1]], "c": list("uvw") * 40}
    )
    prepared = hl.data.Preprocessor.fit(frame, y, text="embedding")
    trainer = hl.Trainer(tabular_model(prepared, hidden=(8,)), "cross_entropy", progress=False)
    trainer.fit(prepared.transform(frame), y, epochs=3)
    assert trainer.predict(prepared.transform(frame)).shape == (120, 2)


def example(name: str) -> None:
    """An example of the repository, which needs nothing but its extra."""
    path = Path(__file__).resolve().parents[1] / "examples" / name
    subprocess.run([sys.executable, "-W", "error", str(path)], check=True)


def job_audio() -> None:
    example("audio.py")


def job_image() -> None:
    example("images.py")


def job_onnx() -> None:
    import onnx

    trainer, _ = trained()
    trainer.export_onnx("model.onnx")
    model = onnx.load("model.onnx")
    assert [o.name for o in model.graph.output] == ["output", "probabilities", "label"]


def job_plot() -> None:
    _, run = trained()
    run.report("report.html")
    assert "<svg" in Path("report.html").read_text(encoding="utf-8")


def job_sklearn() -> None:
    import hotloop as hl

    _, run = trained(metrics=("f1_macro",))
    assert 0 < run.history["val_f1_macro"][-1] <= 1
    X, y = arrays()
    estimator = hl.MLPClassifier((8,), learning_rate_init=0.02, early_stopping=True, random_state=0).fit(X, y)
    assert estimator.score(X, y) > 0.7


def job_tensorboard() -> None:
    import hotloop as hl

    trained(callbacks=[hl.callbacks.TensorBoard("runs")])
    assert list(Path("runs").rglob("events.out.tfevents.*"))


def said(attempt: Callable[[], Any]) -> str:
    """The message of the exception that an attempt without its extra raises."""
    try:
        attempt()
    except Exception as error:  # whichever it is: its message is what is looked at
        return str(error)
    return "nothing was raised"


def no_parquet() -> None:
    import hotloop as hl

    Path("t.parquet").write_bytes(b"PAR1")
    hl.data.read("t.parquet")


def no_estimator() -> None:
    import hotloop as hl

    hl.MLPClassifier((8,))


def no_torch() -> None:
    import hotloop.torch

    hotloop.torch.Module  # noqa: B018


#: What needs an extra, and the extra.
MISSING: tuple[tuple[str, Callable[[Any, Any], str]], ...] = (
    ("cli", lambda trainer, run: command("info").stderr),
    ("data", lambda trainer, run: said(no_parquet)),
    ("sklearn", lambda trainer, run: said(no_estimator)),
    ("sklearn", lambda trainer, run: said(lambda: trained(metrics="f1_macro"))),
    ("torch", lambda trainer, run: said(no_torch)),
    ("onnx", lambda trainer, run: said(lambda: trainer.export_onnx("m.onnx"))),
    ("plot", lambda trainer, run: said(lambda: run.report("r.html"))),
    ("tensorboard", lambda trainer, run: said(lambda: trained(callbacks=[tensorboard("runs")]))),
)


def tensorboard(folder: str) -> Any:
    import hotloop as hl

    return hl.callbacks.TensorBoard(folder)


def check_import(extra: str) -> None:
    """Importing hotloop loads nothing of the extra, though it is there; the others are not even there."""
    import importlib.util

    import hotloop as hl

    for name in hl.__all__:
        # an estimator is a class of scikit-learn's, so only asking for it may load that
        if name not in ESTIMATORS:
            getattr(hl, name)
    loaded = [m for modules in BRINGS.values() for m in modules if m in sys.modules]
    assert not loaded, f"import hotloop loads {loaded}"
    for module in BRINGS.get(extra, ()):
        assert importlib.util.find_spec(module), f"the extra {extra} does not bring {module}"


ESTIMATORS = {"MLPClassifier", "MLPRegressor", "cross_validate"}


def extras() -> list[str]:
    """The optional dependencies of pyproject.toml; without tomllib, because Python 3.10 has none."""
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    return re.findall(r"^(\w+) = \[", section, re.MULTILINE)


def main() -> None:
    if sys.argv[1] == "--list":
        alone = [extra for extra in extras() if extra not in sys.argv[2].split()]
        assert set(alone) == set(BRINGS), (
            f"{set(alone) ^ set(BRINGS)}: an extra without a job, or the reverse"
        )
        print(*alone)
        return
    extra = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        check_import(extra)
        globals()[f"job_{extra}"]()
        os.chdir("/")
    print(f"{extra}: passed")


if __name__ == "__main__":
    main()
