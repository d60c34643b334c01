# SPDX-License-Identifier: Apache-2.0
"""Models as ONNX files: every layer, models with a forward of their own, random networks; equal to 1e-5."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

import hotloop as hl
from hotloop import nn
from tests.export.runtime import assert_equal_to_1e5, outputs, session

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(6), (6, 5)),
    "Dropout": (lambda: nn.Dropout(0.4), (7,)),
    "ELU": (lambda: nn.ELU(0.5), (7,)),
    "Flatten": (lambda: nn.Flatten(), (3, 2, 4)),
    "GELU": (lambda: nn.GELU("tanh"), (7,)),
    "Identity": (lambda: nn.Identity(), (7,)),
    "LayerNorm": (lambda: nn.LayerNorm((3, 4), elementwise_affine=False), (2, 3, 4)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1), (7,)),
    "Linear": (lambda: nn.Linear(7, 3, bias=False), (7,)),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), (5, 3)),
    "Mish": (lambda: nn.Mish(), (7,)),
    "RMSNorm": (lambda: nn.RMSNorm(7), (7,)),
    "ReLU": (lambda: nn.ReLU(), (7,)),
    "SELU": (lambda: nn.SELU(), (7,)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2)), (3, 7)),
    "SiLU": (lambda: nn.SiLU(), (7,)),
    "Sigmoid": (lambda: nn.Sigmoid(), (7,)),
    "Softmax": (lambda: nn.Softmax(), (7,)),
    "Softplus": (lambda: nn.Softplus(2.0, 1.0), (7,)),
    "Tanh": (lambda: nn.Tanh(), (7,)),
}
#: Not layers, or tested below: how modules are made, and modules of ids or of a stored graph.
OTHERS = {"Module", "ModuleList", "GraphModule", "Embedding"}


def numbers(*shape: int, seed: int = 0) -> Any:
    return 2 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def shaken(model: nn.Module, seed: int = 3) -> nn.Module:
    """The model with other numbers than it begins with, running statistics too."""
    rng = np.random.default_rng(seed)
    state = model.state_dict()
    for name, array in state.items():
        if array.dtype == np.float32:
            state[name] = rng.uniform(0.2, 1.2, array.shape).astype(np.float32)
    model.load_state_dict(state)
    return model


def test_every_layer_is_exported() -> None:
    modules = {
        n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Module)
    }
    assert modules == set(LAYERS) | OTHERS


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str, tmp_path: Path) -> None:
    make, shape = LAYERS[name]
    assert_equal_to_1e5(shaken(make()), numbers(33, *shape), tmp_path / "model.onnx")


def test_an_embedding_alone_takes_int64_ids(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (33, 4)).astype(np.int32)
    assert_equal_to_1e5(nn.Embedding(9, 3), ids, tmp_path / "model.onnx")
    (border,) = session(tmp_path / "model.onnx").get_inputs()
    assert (border.type, border.shape) == ("tensor(int64)", ["batch", 4])


class Tabular(nn.Module):
    """Named inputs, a table of ids, a residual around a norm, and weights that are used twice."""

    def __init__(self) -> None:
        self.cat = nn.Embedding(11, 4)
        self.first = nn.Linear(6 + 2 * 4, 16)
        self.norm = nn.BatchNorm1d(16)
        self.again = nn.ModuleList([nn.Linear(16, 16)] * 2)
        self.scale = nn.Parameter(np.ones(16, np.float32))
        self.out = nn.Linear(16, 3)

    def forward(self, num: Any, cat: Any) -> Any:
        h = nn.functional.concat([num, self.cat(cat).flatten(1)], 1)
        h = nn.functional.gelu(self.norm(self.first(h)))
        for layer in self.again:
            h = h + self.scale * nn.functional.silu(layer(h))
        return self.out(h)


def test_a_model_of_ones_own_with_named_inputs(tmp_path: Path) -> None:
    X = {"num": numbers(33, 6), "cat": np.random.default_rng(1).integers(0, 11, (33, 2))}
    model = shaken(Tabular())
    path = tmp_path / "model.onnx"
    assert_equal_to_1e5(model, X, path)
    stored = {t.name for t in onnx.load(str(path)).graph.initializer}
    assert {"cat.weight", "first.weight", "norm.running_var", "again.0.weight", "scale"} <= stored
    assert "again.1.weight" not in stored  # one tensor under two names


def test_the_model_that_training_left_and_its_reloaded_file_are_exported_alike(tmp_path: Path) -> None:
    X, y = numbers(64, 5), np.arange(64) % 3
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    trainer = hl.Trainer(model, "cross_entropy", progress=False)
    trainer.fit(X, y, epochs=3)
    model.export_onnx(tmp_path / "a.onnx")  # its inputs are those of fit
    trainer.save(tmp_path / "model.safetensors")
    loaded = hl.load(tmp_path / "model.safetensors")
    loaded.model.export_onnx(tmp_path / "b.onnx")
    a, b = (outputs(tmp_path / name, {"x": X})["output"] for name in ("a.onnx", "b.onnx"))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, trainer.predict(X), rtol=1e-5, atol=1e-5)
    trainer.fit(X, y, epochs=3)
    model.export_onnx(tmp_path / "a.onnx")  # the numbers of now
    found = outputs(tmp_path / "a.onnx", {"x": X})["output"]
    np.testing.assert_allclose(found, trainer.predict(X), rtol=1e-5, atol=1e-5)
    assert abs(found - a).max() > 1e-3


ACTIVATIONS = [nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.Mish, nn.SELU, nn.Softplus, nn.LeakyReLU]


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return x + self.inner(x)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, int]:
    """A network of 1 to 4 blocks, each of a product, perhaps a norm, an activation and a residual."""
    width = features = draw(st.integers(1, 20))
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        new = draw(st.integers(1, 24))
        layers.append(nn.Linear(width, new, bias=draw(st.booleans())))
        width = new
        norm = draw(st.sampled_from([None, nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d]))
        layers += [] if norm is None else [norm(width)]
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
        if draw(st.booleans()):
            layers.append(Residual(nn.Sequential(nn.Linear(width, width), nn.Dropout(0.3), nn.Tanh())))
    return nn.Sequential(*layers, nn.Linear(width, 2)), features


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=networks(), seed=st.integers(0, 99))
def test_random_networks(made: tuple[nn.Module, int], seed: int, tmp_path: Path) -> None:
    model, features = made
    model.initialize(seed)
    assert_equal_to_1e5(model, numbers(33, features, seed=seed), tmp_path / "model.onnx")


# ---- what stands around the numbers


def classifier(classes: int) -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, classes)), numbers(33, 4)


def test_probabilities_and_labels_of_classes(tmp_path: Path) -> None:
    model, X = classifier(3)
    trainer = hl.Trainer(model, "cross_entropy", progress=False)
    raw = trainer.predict(X)
    model.export_onnx(tmp_path / "m.onnx", probabilities="softmax", class_names=("low", "middle", "high"))
    found = outputs(tmp_path / "m.onnx", {"x": X})
    assert list(found) == ["output", "probabilities", "label"]
    np.testing.assert_allclose(found["output"], raw, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], trainer.predict_proba(X), rtol=1e-5, atol=1e-5)
    assert found["label"].tolist() == [("low", "middle", "high")[i] for i in raw.argmax(1)]
    model.export_onnx(tmp_path / "m.onnx", probabilities="softmax")
    label = outputs(tmp_path / "m.onnx", {"x": X})["label"]
    assert label.dtype == np.int64
    np.testing.assert_array_equal(label, trainer.predict_label(X))


@pytest.mark.parametrize("width", [1, 3])
def test_probabilities_and_labels_of_binary_outputs(width: int, tmp_path: Path) -> None:
    model, X = classifier(width)
    trainer = hl.Trainer(model, "bce_with_logits", progress=False)
    trainer.predict(X)
    model.export_onnx(tmp_path / "m.onnx", probabilities="sigmoid")
    found = outputs(tmp_path / "m.onnx", {"x": X})
    np.testing.assert_allclose(found["probabilities"], trainer.predict_proba(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["label"], trainer.predict_label(X))
    if width == 1:
        model.export_onnx(tmp_path / "m.onnx", probabilities="sigmoid", class_names=("no", "yes"))
        names = outputs(tmp_path / "m.onnx", {"x": X})["label"]
        assert names.tolist() == [("no", "yes")[i] for i in trainer.predict_label(X)]


def test_names_that_collide_with_parameters_give_way_and_the_given_ones_stay(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            self.x = nn.Parameter(np.full(3, 2.0, np.float32))

        def forward(self, x: Any) -> Any:
            return x * self.x

    X = numbers(2, 3)
    Named().export_onnx(tmp_path / "m.onnx", X)
    np.testing.assert_array_equal(outputs(tmp_path / "m.onnx", {"x": X})["output"], 2 * X)
    Named().export_onnx(tmp_path / "m.onnx", X, input_names={"x": "features"}, output_name="score")
    assert list(outputs(tmp_path / "m.onnx", {"features": X})) == ["score"]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    nn.Linear(3, 2).export_onnx(tmp_path / "m.onnx", numbers(1, 3))
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert (model.producer_name, model.producer_version) == ("hotloop", hl.__version__)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    first = (tmp_path / "m.onnx").read_bytes()
    nn.Linear(3, 2).export_onnx(tmp_path / "m.onnx", numbers(1, 3))
    assert (tmp_path / "m.onnx").read_bytes() == first  # the same model, the same bytes


# ---- what is refused, before a file is touched


def test_a_model_without_known_inputs_asks_for_an_example(tmp_path: Path) -> None:
    with pytest.raises(hl.GraphError, match=r"\[export_onnx\].*not seen data.*export_onnx\(path, X\[:1\]\)"):
        nn.Linear(3, 2).export_onnx(tmp_path / "m.onnx")
    with pytest.raises(hl.ShapeError, match="last dimension must be 3"):
        nn.Linear(3, 2).export_onnx(tmp_path / "m.onnx", numbers(1, 4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"probabilities": "odds"}, ValueError, "must be 'softmax', 'sigmoid' or None, got 'odds'"),
        ({"class_names": ("a", "b")}, ValueError, "class_names need probabilities"),
        ({"probabilities": "softmax", "class_names": ("a",)}, ValueError, "must be 2 texts.*got 1"),
        ({"input_names": {"z": "y"}}, hl.GraphError, "names no input of the model, got 'z'; inputs: x"),
        ({"output_name": "x"}, hl.GraphError, "must be different and not empty, got 'x'"),
    ],
)
def test_options_that_cannot_be_met(options: Any, error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        nn.Linear(3, 2).export_onnx(tmp_path / "m.onnx", numbers(1, 3), **options)
    assert list(tmp_path.iterdir()) == []


def test_probabilities_of_what_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(hl.ShapeError, match="need an output"):
        nn.ReLU().export_onnx(tmp_path / "m.onnx", numbers(1, 3, 4), probabilities="softmax")


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"\[export_onnx\].*pip install 'hotloop\[onnx\]'"):
        nn.Linear(3, 2).export_onnx(tmp_path / "m.onnx", numbers(1, 3))
