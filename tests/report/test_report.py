# SPDX-License-Identifier: Apache-2.0
"""The report page without a browser: what it says, of which runs, and that nothing of the user's is markup."""

from __future__ import annotations

import copy
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.evidence import Evidence, NormSample, Parameter
from hotloop.history import History
from hotloop.report.predictions import confusion

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

SECTIONS = ("diagnosis", "curves", "lr", "predictions", "norms", "cost", "configuration", "environment")
VOID = {"meta", "link", "br", "hr", "img", "input"}
NASTY = '<script>alert("1")</script>$x^2$ &amp; \'"'


class Page(HTMLParser):
    """Checks that tags nest, and keeps ids, tags, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        references = ("src", "href", "xlink:href", "action", "data")
        self.loads += [v for n, v in attrs if n in references and v and not v.startswith(("#", "data:"))]
        if tag == "section":
            self._section = str(found["id"])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes <{self.stack[-1:]}>"
        self.stack.pop()
        if tag in ("td", "th", "p"):
            self.handle_data(" ")
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.sections[self._section] = self.sections.get(self._section, "") + data


def page_of(run: Any, folder: Path, **options: Any) -> Page:
    path = folder / "run.html"
    assert run.report(path, **options) == str(path)
    page = Page(path.read_text(encoding="utf-8"))
    assert set(SECTIONS) <= set(page.sections)
    assert len(set(page.ids)) == len(page.ids)
    assert page.loads == [] and not page.tags & {"script", "img", "iframe", "object"}
    return page


def words(text: str) -> str:
    return " ".join(text.split())


def digits(**options: Any) -> tuple[Any, Any]:
    """(trainer, run) of a classification; fast, and not perfect."""
    rng = np.random.Generator(np.random.PCG64(0))
    X = rng.normal(size=(400, 6)).astype(np.float32)
    y = (X @ rng.normal(size=(6, 4)) + rng.normal(size=(400, 4))).argmax(axis=1)
    model = hl.nn.Sequential(hl.nn.Linear(6, 16), hl.nn.ReLU(), hl.nn.Linear(16, 4))
    trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(0.01), schedule="cosine", **options)
    return trainer, trainer.fit(X, y, validation=(X[:100], y[:100]), epochs=8, batch_size=32)


def test_classification(tmp_path: Path) -> None:
    trainer, run = digits()
    page = page_of(run, tmp_path)
    text = {name: words(part) for name, part in page.sections.items()}
    X, y = run._context.validation.arrays["x"], run._context.validation.arrays["target"]
    predicted = trainer.predict_label(X)
    assert f"100 rows of the validation set 'val': {np.mean(predicted == y):.1%} right" in text["predictions"]
    cells = re.findall(r'--v:[\d.]+">(\d+)</td>', (tmp_path / "run.html").read_text())
    assert np.array(cells, int).reshape(4, 4).tolist() == confusion(y, predicted, 4).tolist()
    assert "Expected calibration error" in text["calibration"]
    assert "loss" in text["curves"] and "accuracy" in text["curves"] and "training" in text["curves"]
    assert "Cosine(final=0.0" in text["lr"]
    assert "AdamW(lr=0.01" in text["configuration"] and "Linear(in_features=6" in text["configuration"]
    assert run.about["environment"]["instruction set"] in text["environment"]
    plan = trainer.plan(np.zeros((400, 6), np.float32), np.zeros(400, np.int64), 32)
    assert run.about["cost"]["flops_per_epoch"] == plan.flops_per_epoch
    assert run.about["cost"]["seconds_per_epoch"] > 0  # asked for by the page
    assert "an epoch" in text["cost"] and "KiB" in text["cost"]
    assert len(run.epoch_seconds) == run.epochs and 0 < sum(run.epoch_seconds) < run.seconds


def test_regression_in_the_target_unit(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X = rng.normal(size=(200, 3))
    y = 100 + 50 * X[:, 0] + rng.normal(size=200)
    prepare = hl.data.Preprocessor.fit(X, y, task="regression", target_name="price")
    trainer = hl.Trainer(hl.nn.Linear(3, 1), "mse", optimizer=hl.optim.AdamW(0.05))
    trainer.preprocessor = prepare
    x, t = prepare.transform(X), prepare.transform_target(y)
    run = trainer.fit(x, t, validation=(x[:50], t[:50]), epochs=20)
    page = page_of(run, tmp_path)
    text = words(page.sections["predictions"])
    rmse = np.sqrt(np.mean((prepare.inverse_target(trainer.predict(x[:50])) - y[:50]) ** 2))
    assert f"{rmse:.4g}" in text and "predicted price" in text and "residuals" in text
    assert "calibration" not in page.sections


def test_several_outputs(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X = rng.normal(size=(60, 3)).astype(np.float32)
    y = np.stack([X[:, 0], 10 * rng.normal(size=60)], axis=1)
    run = hl.Trainer(hl.nn.Linear(3, 2), "mae").fit(X, y, validation=0.5, epochs=2)
    page = page_of(run, tmp_path)
    assert "The figures show output 1, the one with the largest" in words(page.sections["predictions"])


def test_many_classes_show_the_confused_pairs(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X, y = rng.normal(size=(300, 5)).astype(np.float32), rng.integers(0, 40, 300)
    y[:40] = np.arange(40)
    run = hl.Trainer(hl.nn.Linear(5, 40)).fit(X, y, validation=(X, y), epochs=1)
    page = page_of(run, tmp_path)
    assert 'class="matrix"' not in (tmp_path / "run.html").read_text().partition("<body>")[2]
    assert "Confused most often" in page.sections["predictions"]


def test_scorers_averages_and_shared_updates(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    _, run = digits(
        metrics=("accuracy", "balanced_accuracy"), ema=0.9, accumulate=2, freeze={"0.*": {"until_epoch": 2}}
    )
    page = page_of(run, tmp_path)
    assert "Confusion matrix" in page.sections["predictions"]  # of the averaged weights, which were validated
    assert "balanced_accuracy" in page.sections["curves"] and "FLOP" in page.sections["cost"]
    assert "FreezePlan(" in page.sections["configuration"]


def test_binary(tmp_path: Path) -> None:
    X = np.linspace(-1, 1, 80, dtype=np.float32).reshape(-1, 1)
    run = hl.Trainer(hl.nn.Linear(1, 1)).fit(X, (X[:, 0] > 0).astype(int), validation=0.5, epochs=2)
    found = run._context.predictions(run)
    assert found.probability.shape == (40, 2) and set(found.true) == {0, 1}
    page_of(run, tmp_path)


def test_given_data_and_sealed_test_set(tmp_path: Path) -> None:
    _, run = digits()
    X = np.zeros((7, 6))
    text = words(page_of(run, tmp_path, data=(X, np.ones(7, int))).sections["predictions"])
    assert text.startswith("Confusion matrix 7 rows of the data given to the report")
    assert "could not be checked" not in text
    parts = hl.split(np.zeros((40, 6)), np.arange(40) % 4)
    page_of(run, tmp_path, data=parts.test)
    with pytest.raises(hl.LabelError, match=r"\[report\] y"):
        run.report(tmp_path / "no.html", data=(np.zeros((7, 6)), np.full(7, 4)))
    with pytest.raises(TypeError, match=r"\[report\] data must be \(X, y\)"):
        run.report(tmp_path / "no.html", data=np.zeros((7, 6)))
    assert not (tmp_path / "no.html").exists()


def test_norms(tmp_path: Path) -> None:
    _, run = digits()
    text = words(page_of(run, tmp_path).sections["norms"])
    evidence = run.evidence
    last = evidence.norms[-1]
    place = [parameter.name for parameter in evidence.parameters].index("2.weight")
    assert f"2.weight 64 {evidence.norms[0].gradients[place]:.4g} {last.gradients[place]:.4g}" in text
    assert f"{last.gradients[place] / last.weights[place]:.4g}" in text
    assert "gradient norm" in text and "weight norm" in text


def test_norms_of_deep_and_broken_runs(tmp_path: Path) -> None:
    names = [f"{i}.weight" for i in range(200)]
    samples = [NormSample(e, (float(e), None, 0.0) + (1.0,) * 197, (2.0,) * 200) for e in (1, 2)]
    parameters = tuple(Parameter(name, 4, "linear", True) for name in names)
    run = History(
        {"loss": [1.0, 1.0]}, epochs=2, evidence=Evidence(parameters=parameters, norms=tuple(samples))
    )
    text = words(page_of(run, tmp_path).sections["norms"])
    assert "and 120 parameters more" in text
    assert "1.weight 4 - - 2 2 -" in text  # a gradient that was not finite


def test_diagnosis(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 3)) * 1000
    y = (X[:, 0] > 0).astype(int)
    run = hl.Trainer(hl.nn.Linear(3, 2)).fit(X, y, validation=0.5, epochs=3)
    page = page_of(run, tmp_path)
    text = words(page.sections["diagnosis"])
    assert len(run.diagnosis) > 0
    for finding in run.diagnosis:
        assert words(finding.reason) in text and words(f"Next: {finding.next_step}") in text
    healthy = words(page_of(digits()[1], tmp_path).sections["diagnosis"])
    assert healthy.startswith("Diagnosis Nothing is wrong") or "Next:" in healthy
    assert "Looked at: the curves of 8 epochs" in healthy
    nothing = History({"loss": []}, epochs=0)
    assert "There was nothing to look at" in page_of(nothing, tmp_path).sections["diagnosis"]


# --- what is missing, and why ---


def test_a_changed_model_is_not_shown(tmp_path: Path) -> None:
    trainer, run = digits()
    weights = trainer.model.state_dict()
    weights["0.bias"] = weights["0.bias"] + 0.5
    trainer.model.load_state_dict(weights)
    text = words(page_of(run, tmp_path).sections["predictions"])
    assert "The model is not any more what the run left: its loss on 'val' is" in text


def test_an_older_run_has_lost_its_model(tmp_path: Path) -> None:
    trainer, first = digits()
    second = trainer.fit(np.zeros((40, 6)), np.arange(40) % 4, epochs=1)
    assert "The model is not at hand" in page_of(first, tmp_path).sections["predictions"]
    assert "The run had no validation data" in page_of(second, tmp_path).sections["predictions"]
    with pytest.raises(ValueError, match="has no model any more"):
        first.report(tmp_path / "no.html", data=(np.zeros((4, 6)), np.arange(4)))


def test_a_loaded_model_reports(tmp_path: Path) -> None:
    trainer, run = digits()
    trainer.save(tmp_path / "m.safetensors")
    again = hl.load(tmp_path / "m.safetensors").history
    assert again == run and again.about == run.about
    page = page_of(again, tmp_path)
    assert "give some" in page.sections["predictions"]
    assert "AdamW(lr=0.01" in page.sections["configuration"] and "KiB" in page.sections["cost"]
    page = page_of(again, tmp_path, data=(np.zeros((9, 6)), np.ones(9, int)))
    text = words(page.sections["predictions"])
    assert "9 rows of the data given" in text and "could not be checked" in text


def test_a_history_does_not_hold_on_to_much_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hotloop.fit import context

    monkeypatch.setattr(context, "_VALIDATION_BYTES", 1000)
    monkeypatch.setattr(context, "_TRAIN_BYTES", 1000)
    _, run = digits()
    page = page_of(run, tmp_path)
    assert "are not at hand any more" in page.sections["predictions"]
    assert run.about["cost"]["seconds_per_epoch"] is None and "KiB" in page.sections["cost"]


def test_an_old_history_reports(tmp_path: Path) -> None:
    data = History({"loss": [2.0, 1.0], "lr": [0.1, 0.1]}, best_epoch=2, monitor="loss", epochs=2).to_dict()
    del data["about"], data["epoch_seconds"]
    page = page_of(History.from_dict(data), tmp_path)
    assert "holds no configuration" in page.sections["configuration"]
    assert "holds no cost plan" in page.sections["cost"]


def test_a_run_without_an_epoch(tmp_path: Path) -> None:
    trainer, _ = digits()
    run = trainer.fit(
        np.zeros((40, 6)), np.arange(40) % 4, validation=0.5, epochs=5, batch_size=4, max_time=0.0
    )
    assert run.epochs == 0
    page = page_of(run, tmp_path)
    assert "No epoch ended" in page.sections["curves"] and "No epoch" in page.sections["predictions"]
    assert run._repr_html_() is None
    with pytest.raises(ValueError, match="no epoch of this run ended"):
        run.plot()


def test_a_dry_run_is_told_apart(tmp_path: Path) -> None:
    trainer = hl.Trainer(hl.nn.Linear(6, 4))
    run = trainer.fit(np.zeros((40, 6)), np.arange(40) % 4, epochs=5, dry_run=True)
    assert "a dry run" in words(page_of(run, tmp_path).sections[""])


def test_not_a_number_is_no_obstacle(tmp_path: Path) -> None:
    values = [1.0, float("nan"), float("inf"), 0.5]
    run = History({"loss": values, "val_loss": [float("nan")] * 4, "lr": [0.0] * 4}, epochs=4)
    page_of(run, tmp_path)
    trainer = hl.Trainer(hl.nn.Linear(1, 1), "mse", optimizer=hl.optim.SGD(1e30))
    X = np.ones((8, 1))
    with pytest.warns(hl.HotloopWarning):
        diverged = trainer.fit(X, X, validation=(X, X), epochs=5)
    assert "diverged" in words(page_of(diverged, tmp_path).sections[""])


def test_losses_of_ones_own_and_several_labels(tmp_path: Path) -> None:
    def own(prediction: Any, target: Any) -> Any:
        error = prediction - target
        return (error**2).sum(axis=1), 2 * error

    X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(-1, 2)
    run = hl.Trainer(hl.nn.Linear(2, 1), own).fit(X, X[:, 0], validation=0.5, epochs=2)
    page = page_of(run, tmp_path)
    assert "holds no cost plan" in page.sections["cost"] and "RMSE" in page.sections["predictions"]
    labels = (X > 0).astype(np.float32)
    run = hl.Trainer(hl.nn.Linear(2, 2), "bce_with_logits").fit(X, labels, validation=0.5, epochs=2)
    assert "Several yes-or-no outputs" in page_of(run, tmp_path).sections["predictions"]


# --- safety and size ---


def test_names_are_text(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    X, y = rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 3
    model = hl.nn.Sequential()
    model.register_module(NASTY.replace(".", ""), hl.nn.Linear(3, 3))
    trainer = hl.Trainer(model)
    names = [NASTY, "<b>", "\u4e2d\u6587"]
    trainer.preprocessor = hl.data.Preprocessor.fit(X, y, task="classification", class_names=names)
    run = trainer.fit(X, y, validation={NASTY: (X, y), "\u4e2d\u6587\ud800": (X, y)}, epochs=3)
    page = page_of(run, tmp_path)  # no script, image or unbalanced tag
    for section in ("configuration", "predictions"):
        assert NASTY in page.sections[section]
    assert '<script>alert("1")</script>$x^2$' in page.sections["curves"]  # and the rest of a long name cut
    assert "&lt;script" in run._repr_html_()
    assert "<script" not in run._repr_html_() + run.plot()._repr_svg_()


def test_long_runs_make_no_large_pages(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    values = (1 + rng.uniform(size=20_000)).tolist()
    values[12_345] = 9.0
    run = History(
        {"loss": values, "val_loss": values, "lr": values}, best_epoch=1, epochs=20_000, seconds=9.0
    )
    page_of(run, tmp_path)
    assert (tmp_path / "run.html").stat().st_size < 400_000
    from hotloop.report.curves import thinned

    points = list(zip(*thinned(values)))
    assert len(points) <= 800 and (12_346, 9.0) in points


def test_the_same_run_makes_the_same_page(tmp_path: Path) -> None:
    _, run = digits()
    texts = []
    for name in ("a.html", "b.html"):
        run.report(tmp_path / name)
        texts.append(re.sub(r"Written [^.]*\.", "", (tmp_path / name).read_text(encoding="utf-8")))
    assert texts[0] == texts[1]


# --- the pieces ---


def test_plot(tmp_path: Path) -> None:
    _, run = digits()
    figure = run.plot(tmp_path / "curves.png")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert list(drawn["training"]) == run.history["loss"] and list(drawn["val"]) == run.history["val_loss"]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert run._repr_html_().startswith("<div><p>History(8 epochs")


def test_metrics_that_repeat_the_loss_have_no_panel() -> None:
    from hotloop.report.curves import groups

    run = History({"loss": [1.0], "mse": [1.0], "mae": [2.0], "val_loss": [3.0], "val_mse": [3.0]}, epochs=1)
    assert list(groups(run)) == ["loss", "mae"]


def test_missing_libraries_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    run = History({"loss": [1.0]}, epochs=1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs matplotlib and jinja2; .*pip install 'hotloop\[plot\]'"):
        run.report(tmp_path / "run.html")
    with pytest.raises(ImportError, match=r"\[plot\] needs matplotlib;"):
        run.plot()
    assert run._repr_html_() is None


def test_copies_and_records_do_not_hold_the_model() -> None:
    _, run = digits()
    assert run._context is not None
    for other in (copy.deepcopy(run), pickle.loads(pickle.dumps(run)), History.from_dict(run.to_dict())):
        assert other == run and other._context is None
