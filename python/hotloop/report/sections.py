# SPDX-License-Identifier: Apache-2.0
"""What the page says, section by section: plain data for the template, and figures as SVG."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop.metrics import regression
from hotloop.report import curves, panels
from hotloop.report.predictions import Predictions, Unavailable, confusion, reliability
from hotloop.report.style import svg
from hotloop.report.words import amount, bytes_text, flop_text, label, named, number, seconds_text

if TYPE_CHECKING:
    from hotloop.history import History

#: Classes in a whole confusion matrix; of more, the pairs that are confused most.
_MAX_CLASSES, _MAX_PAIRS = 25, 25
_MAX_ROWS, _MAX_OUTPUTS = 80, 20
#: Lines of a figure that can be told apart.
_MAX_LINES = 6

STOPPED = {
    "epochs": "all epochs done",
    "early_stopping": "early stopping",
    "time": "time limit",
    "interrupt": "interrupted",
    "divergence": "diverged",
    "callback": "a callback",
    "dry_run": "a dry run",
}


def summary(history: History) -> dict[str, Any]:
    """The tiles at the top."""
    tiles = [("epochs", str(history.epochs), STOPPED[history.stop_reason])]
    best = history.best_epoch
    if best is not None:
        monitored = history.history.get(history.monitor)
        tiles.append(("best epoch", str(best), f"by {history.monitor}"))
        if monitored:
            tiles.append((history.monitor, number(monitored[best - 1]), f"in epoch {best}"))
        for name in _headline_metrics(history):
            tiles.append((name, named(name, history.history[name][best - 1]), f"in epoch {best}"))
    per_epoch = history.epoch_seconds
    more = f"{seconds_text(statistics.median(per_epoch))} an epoch" if per_epoch else ""
    tiles.append(("time", seconds_text(history.seconds), more))
    return {"tiles": tiles, "title": _title(history), "subtitle": _subtitle(history)}


def _headline_metrics(history: History) -> list[str]:
    """The first metric beside the loss on the monitored set."""
    names = [n for n in history.history if n not in (history.monitor, "lr") and not n.endswith("loss")]
    sets = [s for s in curves.set_names(history) if any(n.startswith(f"{s}_") for n in names)]
    chosen = [n for n in names if n.startswith(f"{sets[0]}_")] if sets else names
    preferred = [n for n in chosen if n.endswith(("accuracy", "r2"))]
    return (preferred or chosen)[:1]


def _title(history: History) -> str:
    model = history.about.get("configuration", {}).get("model")
    if model is None:
        return "A training run"
    return f"{model['name']} with {amount(model['parameters'])} parameters"


def _subtitle(history: History) -> str:
    """One line: on what, how, and by what."""
    rows = (history.about.get("cost") or {}).get("rows")
    settings = history.about.get("configuration", {}).get("settings", {})
    parts = [f"trained on {amount(rows)} rows"] if rows else ["a training run"]
    if settings:
        parts += [settings["loss"].partition("(")[0], settings["optimizer"].partition("(")[0]]
        parts.append(f"batches of {settings['batch size']}")
    version = history.about.get("environment", {}).get("hotloop", "")
    return " · ".join([*parts, f"hotloop {version}".strip()])


def learning_rate(history: History) -> dict[str, Any] | None:
    """The figure, and what the schedule did in words."""
    rates = history.history.get("lr")
    if not rates:
        return None
    settings = history.about.get("configuration", {}).get("settings", {})
    schedule = [("schedule", settings["schedule"])] if "schedule" in settings else []
    return {
        "figure": svg(curves.panel(history, "lr"), "lr", label="learning rate"),
        "rows": [*schedule, ("first epoch", number(rates[0])), ("largest", number(max(rates))),
                 ("last epoch", number(rates[-1]))],
    }  # fmt: skip


def curve_figures(history: History) -> list[str]:
    """A figure per metric."""
    return [
        svg(curves.panel(history, metric), f"curve{i}", label=f"curve {i + 1}")
        for i, metric in enumerate(curves.groups(history))
    ]


def predictions(history: History, data: Any) -> dict[str, Any]:
    """Confusion and calibration, or residuals; or ``missing``: why not."""
    try:
        if history._context is None:
            if data is not None:
                raise ValueError(
                    "[report] data were given, but this history has no model any more; call it on "
                    "trainer.history of the trainer that made it, or of hl.load(path)"
                )
            raise Unavailable(
                "The model is not at hand. Report right after fit, or load the model and give data: "
                "hl.load(path).history.report(page, data=(X, y))."
            )
        found: Predictions = history._context.predictions(history, data)
    except Unavailable as reason:
        return {"missing": str(reason)}
    if not len(found.true):
        return {"missing": "There are no rows to predict."}
    parts = _of_classes(found) if found.probability is not None else _of_numbers(found)
    return {**parts, "checked": found.checked}


def _of_classes(found: Predictions) -> dict[str, Any]:
    assert found.probability is not None
    names = found.names()
    true = np.asarray(found.true, np.int64)
    counts = confusion(true, found.probability.argmax(axis=1), len(names))
    support = counts.sum(axis=1)
    right = np.diag(counts)
    result: dict[str, Any] = {
        "source": found.source,
        "rows": amount(len(true)),
        "accuracy": f"{right.sum() / len(true):.1%}",
        "wrong": amount(int(len(true) - right.sum())),
        "matrix": None,
    }
    if len(names) <= _MAX_CLASSES:
        share = counts / np.maximum(support, 1)[:, None]
        result["matrix"] = [  # by the root of the share, for few mistakes are to be seen as well
            (name, [(int(n), f"{s**0.5:.2f}", i == j) for j, (n, s) in enumerate(zip(row, part, strict=True))],
             f"{share[i, i]:.0%}" if support[i] else "-")
            for i, (name, row, part) in enumerate(zip(names, counts, share, strict=True))
        ]  # fmt: skip
        result["names"] = names
    off = counts - np.diag(right)
    order = np.argsort(-off, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [divmod(int(k), len(names)) for k in order if off.flat[k]]
    result["pairs"] = [
        (names[i], names[j], int(off[i, j]), f"{off[i, j] / support[i]:.0%}") for i, j in pairs
    ]
    trust = reliability(true, found.probability)
    result["calibration"] = {
        "figure": svg(panels.calibration(trust), "calibration", label="reliability diagram"),
        "error": f"{trust.error:.1%}",
        "gap": f"{abs(trust.gap):.1%}",
        "word": "over" if trust.gap > 0 else "under",
    }
    return result


def _of_numbers(found: Predictions) -> dict[str, Any]:
    assert found.predicted is not None
    true, predicted = np.asarray(found.true, np.float64), found.predicted
    table = []
    for j in range(min(true.shape[1], _MAX_OUTPUTS)):
        t, error = true[:, j], predicted[:, j] - true[:, j]
        center = t - t.mean()
        sums = (len(t), error @ error, np.abs(error).sum(), center.sum(), center @ center)
        scores = regression([float(value) for value in sums])
        table.append((str(j), scores["mse"] ** 0.5, scores["mae"], scores["r2"], float(error.mean())))
    worst = max(range(len(table)), key=lambda j: -math.inf if math.isnan(table[j][1]) else table[j][1])
    unit = label(found.unit) if len(table) == 1 else f"(output {worst})"
    return {
        "source": found.source,
        "rows": amount(len(true)),
        "scores": [(name, *map(number, scores)) for name, *scores in table],
        "outputs": true.shape[1],
        "shown": worst,
        "unit": found.unit,
        "figures": [
            svg(
                panels.fit_of_values(true[:, worst], predicted[:, worst], unit),
                "fit",
                label="predicted and true",
            ),
            svg(panels.residuals(true[:, worst], predicted[:, worst], unit), "residuals", label="residuals"),
        ],
    }


def norms(history: History) -> dict[str, Any] | None:
    """Norms of gradients and weights: figures of a few matrices, and a table of all parameters."""
    evidence = history.evidence
    if evidence is None or not evidence.norms or not evidence.parameters:
        return None
    samples = evidence.norms
    epochs = [sample.epoch for sample in samples]
    names = [parameter.name for parameter in evidence.parameters]
    matrices = [i for i, p in enumerate(evidence.parameters) if p.matrix] or list(range(len(names)))
    few = [
        matrices[i * len(matrices) // min(len(matrices), _MAX_LINES)]
        for i in range(min(len(matrices), _MAX_LINES))
    ]

    def lines(kind: str) -> list[tuple[str, list[Any]]]:
        return [(names[i], [getattr(sample, kind)[i] for sample in samples]) for i in few]

    def figure(kind: str, title: str) -> str:
        return svg(panels.norms(epochs, lines(kind), title), f"norms_{kind}", label=title)

    rows = []
    for i, parameter in enumerate(evidence.parameters[:_MAX_ROWS]):
        first, last = samples[0], samples[-1]
        gradient, weight = last.gradients[i], last.weights[i]
        ratio = "-" if not gradient or not weight else number(gradient / weight)
        values = (first.gradients[i], gradient, first.weights[i], weight)
        rows.append((parameter.name, amount(parameter.size), *map(number, values), ratio))
    return {
        "figures": [figure("gradients", "gradient norm"), figure("weights", "weight norm")],
        "rows": rows, "more": max(len(names) - _MAX_ROWS, 0), "first": epochs[0], "last": epochs[-1],
    }  # fmt: skip


def cost(history: History) -> dict[str, Any] | None:
    """What was counted and predicted, beside what was measured."""
    plan = history.about.get("cost")
    if not plan:
        return None
    if plan.get("seconds_per_epoch") is None and history._context is not None:
        plan["seconds_per_epoch"] = history._context.seconds_per_epoch(history)
    predicted, measured, mean = plan.get("seconds_per_epoch"), None, None
    if history.epoch_seconds:
        # the median: a thawed layer is compiled in the middle of a run, and machines have other things to do
        measured, mean = statistics.median(history.epoch_seconds), statistics.fmean(history.epoch_seconds)
    flops = plan["flops_per_epoch"]
    total = plan["memory_bytes"] + plan["program_bytes"] + plan["snapshot_bytes"]
    rows = [
        ("training of one epoch", seconds_text(predicted), f"{seconds_text(measured)} (mean {seconds_text(mean)})"),
        ("floating-point operations", f"{flop_text(flops)} an epoch",
         "-" if not measured else f"{flop_text(flops / measured)}/s"),
        ("steps", f"{plan['steps_per_epoch']} of {plan['batch_size']} rows",
         "-" if not measured else f"{seconds_text(measured / plan['steps_per_epoch'])} a step"),
        ("memory: parameters, gradients, moments", bytes_text(plan["memory_bytes"]), ""),
        ("memory: activations and scratch", bytes_text(plan["program_bytes"]), ""),
        ("memory: copy of the best epoch", bytes_text(plan["snapshot_bytes"]), ""),
        ("memory together", bytes_text(total), _peak(history)),
    ]  # fmt: skip
    ratio = None
    if predicted and measured:
        ratio = f"{max(measured / predicted, predicted / measured):.2f} times {'slower' if measured > predicted else 'faster'}"
    share = None
    if history.epoch_seconds and history.seconds:
        share = f"{min(sum(history.epoch_seconds) / history.seconds, 1.0):.0%}"
    return {"rows": rows, "ratio": ratio, "share": share}


def _peak(history: History) -> str:
    peak = history.about.get("process_peak_bytes")
    return f"{bytes_text(peak)}: the process, with Python and data" if peak else ""


def findings(history: History) -> dict[str, Any]:
    """What the diagnosis found, worst first, and what it looked at."""
    diagnosis = history.diagnosis
    return {
        "found": [(f.severity, f.rule.replace("_", " "), f.reason, f.next_step) for f in diagnosis.findings],
        "looked_at": diagnosis.looked_at,
        "missing": diagnosis.missing,
    }


def configuration(history: History) -> dict[str, Any] | None:
    """Layers and settings."""
    found: dict[str, Any] | None = history.about.get("configuration")
    return found
