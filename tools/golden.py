# SPDX-License-Identifier: Apache-2.0
"""Writes the files that every later version must still read: python tools/golden.py NAME, as in v0.1.0.

One folder of tests/golden per version, never written again: small model files, checkpoints of runs in
mid-epoch, and in expected.npz the inputs and what the version itself made of them. The plain C++ kernels are
used, because every machine runs them and a run goes on only with the kernels that it began with.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["HOTLOOP_ISA"] = "generic"

import numpy as np

import hotloop as hl
from hotloop.nn.tabular import tabular_model

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "golden"
#: Of the checkpoint's run: five steps an epoch, stored after the second of the second epoch.
FIT: dict[str, Any] = {"epochs": 4, "batch_size": 12}
STORED_AT = 7


class TwoInputs(hl.nn.Module):
    """Numbers (n, 3) and ids (n,) below 5 to two classes."""

    def __init__(self) -> None:
        self.table = hl.nn.Embedding(5, 2)
        self.body = hl.nn.Sequential(hl.nn.Linear(5, 6), hl.nn.LayerNorm(6), hl.nn.SiLU())
        self.head = hl.nn.Linear(6, 2)

    def forward(self, num: Any, cat: Any) -> Any:
        return self.head(self.body(hl.nn.functional.concat([num, self.table(cat)], 1)))


class Count(hl.Callback):
    """Counts epochs, in a state that travels."""

    epochs = 0

    def on_epoch_end(self, state: Any) -> None:
        self.epochs += 1

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: Any) -> None:
        self.epochs = state["epochs"]


def _numbers(rows: int, columns: int) -> Any:
    return np.random.Generator(np.random.PCG64(7)).normal(size=(rows, columns)).astype(np.float32)


def classifier(path: Path) -> dict[str, Any]:
    """A network with its preprocessing and class names."""
    raw = _numbers(60, 4) * 10 + 3
    labels = (raw[:, 0] > raw[:, 1]).astype(np.int64) + (raw[:, 2] > 10)
    prepare = hl.data.Preprocessor.fit(
        raw, labels, task="classification", class_names=["low", "middle", "high"],
        feature_names=["a", "b", "c", "d"], target_name="level",
    )  # fmt: skip
    trainer = hl.Trainer(
        hl.nn.Sequential(hl.nn.Linear(4, 8), hl.nn.ReLU(), hl.nn.Linear(8, 3)),
        hl.losses.CrossEntropy(label_smoothing=0.1, class_weight="balanced"),
        optimizer=hl.optim.AdamW(0.01, decay="weights"), schedule=hl.schedules.Cosine(warmup=0.1),
        early_stopping=hl.EarlyStopping(patience=5), clip_norm=1.0, seed=11,
    )  # fmt: skip
    trainer.preprocessor = prepare
    trainer.split = hl.split(raw, labels).info
    trainer.fit(prepare.transform(raw), labels, validation=0.25, epochs=6, batch_size=16)
    trainer.save(path)
    return {"x": raw, "prediction": trainer.predict_proba(prepare.transform(raw))}


def regression(path: Path) -> dict[str, Any]:
    """Running statistics, dropout, two outputs."""
    x = _numbers(50, 5)
    y = np.stack([x[:, 0] + x[:, 1], x[:, 2] * x[:, 3]], axis=1)
    model = hl.nn.Sequential(
        hl.nn.Linear(5, 8), hl.nn.BatchNorm1d(8), hl.nn.Tanh(), hl.nn.Dropout(0.2), hl.nn.Linear(8, 2)
    )
    trainer = hl.Trainer(
        model, hl.losses.Huber(0.7), optimizer=hl.optim.SGD(0.1, momentum=0.9),
        schedule=hl.schedules.ReduceOnPlateau(0.5, 1), clip_value=0.5,
    )  # fmt: skip
    trainer.fit(x, y, validation=(x[:10], y[:10]), epochs=5, batch_size=10)
    trainer.save(path)
    return {"x": x, "prediction": trainer.predict(x)}


def two_inputs(path: Path) -> dict[str, Any]:
    """Named inputs, an embedding among them."""
    num, cat = _numbers(40, 3), np.arange(40) % 5
    trainer = hl.Trainer(TwoInputs(), optimizer=hl.optim.RMSprop(0.01), restore_best=False)
    trainer.fit({"num": num, "cat": cat}, cat % 2, epochs=4, batch_size=8)
    trainer.save(path)
    return {"num": num, "cat": cat, "prediction": trainer.predict({"num": num, "cat": cat})}


def table(path: Path) -> dict[str, Any]:
    """A network for a table as it comes: gaps, spellings, rare and embedded categories, constant columns."""
    x = _numbers(90, 3).astype(np.float64)
    x[::7, 0] = np.nan
    columns = {
        "gaps": x[:, 0], "far": np.where(x[:, 1] > 2, 1e6, x[:, 1]), "seven": np.full(90, 7.0),
        "few": np.array([("yes", " Yes", "no", "")[i % 4] for i in range(90)]),
        "many": np.array([f"w{i % 11}" if i % 10 else f"rare{i}" for i in range(90)]),
    }  # fmt: skip
    y = 500 + 20 * x[:, 2] + np.arange(90) % 11
    prepare = hl.data.Preprocessor.fit(columns, y, scale="robust", clip=3.0, rare=2, target_name="y")
    trainer = hl.Trainer(tabular_model(prepare, hidden=(6,)), "mse", optimizer=hl.optim.AdamW(0.02))
    trainer.preprocessor = prepare
    inputs = prepare.transform(columns)
    trainer.fit(inputs, prepare.transform_target(y), epochs=4, batch_size=16)
    trainer.save(path)
    given = {f"in_{name}": values for name, values in inputs.items()} if isinstance(inputs, dict) else {}
    return {**columns, **given, "prediction": prepare.inverse_target(trainer.predict(inputs))}


def checkpoint(path: Path) -> dict[str, Any]:
    """A run in its second epoch, and how it ends."""
    return _interrupted(path)


def averaged(path: Path) -> dict[str, Any]:
    """As `checkpoint`, in the midst of a group of batches, with averaged weights and a layer frozen at first."""
    plan = hl.FreezePlan({"0.*": {"until_epoch": 1, "lr_scale": 0.5}})
    return _interrupted(path, accumulate=3, ema=0.9, freeze=plan)


def _interrupted(path: Path, **choices: Any) -> dict[str, Any]:
    x, x_val = _numbers(80, 4)[:60], _numbers(80, 4)[60:]
    y, y_val = ((a[:, 0] > a[:, 1]).astype(np.int64) for a in (x, x_val))
    data = {"X": x, "y": y, "validation": (x_val, y_val)}

    def trainer() -> hl.Trainer:
        return hl.Trainer(
            hl.nn.Sequential(hl.nn.Linear(4, 8), hl.nn.GELU(), hl.nn.Dropout(0.3), hl.nn.Linear(8, 2)),
            optimizer=hl.optim.Adam(0.02), schedule=hl.schedules.OneCycle(), seed=5,
            early_stopping=hl.EarlyStopping(patience=3), progress=False, callbacks=[Count()],
            **choices,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        files = hl.Checkpoint(folder, every=1000)
        for step in range(STORED_AT):  # a run whose time is up ends after one step
            trainer().fit(**data, **FIT, checkpoint=files, max_time=0, resume=folder if step else None)
        (stored,) = Path(folder).glob(f"*-step{STORED_AT:012d}.safetensors")
        path.write_bytes(stored.read_bytes())
    whole = trainer()
    run = whole.fit(**data, **FIT)
    return {
        "x": x, "y": y, "x_val": x_val, "y_val": y_val, **FIT,
        "prediction": whole.predict(x), "loss": run.history["loss"], "val_loss": run.history["val_loss"],
        "counted": run.epochs,
    }  # fmt: skip


def main(name: str) -> None:
    folder = FOLDER / name
    folder.mkdir(parents=True)  # FileExistsError: what a version wrote stays as it is
    expected: dict[str, Any] = {}
    for write in (classifier, regression, two_inputs, table, checkpoint, averaged):
        kind = write.__name__
        found = write(folder / f"{kind}.safetensors")
        expected.update({f"{kind}/{key}": np.asarray(value) for key, value in found.items()})
    np.savez_compressed(folder / "expected.npz", **expected)
    print("\n".join(f"{path.stat().st_size:>7} {path}" for path in sorted(folder.iterdir())))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
