# SPDX-License-Identifier: Apache-2.0
"""The report page in a real browser: it asks for nothing, complains of nothing, and fits a phone.

Skipped where there is no Chromium; `.ci/run browser` installs Debian's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from tests.browser import Browser, executable

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
datasets = pytest.importorskip("sklearn.datasets")
pytestmark = pytest.mark.skipif(executable() is None, reason="no Chromium on this machine")

HEADINGS = {"Diagnosis", "Curves", "Learning rate", "Gradient and weight norms", "Cost: plan and reality",
            "Configuration", "Environment"}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def classification() -> Any:
    X, y = datasets.load_digits(return_X_y=True)
    model = hl.nn.Sequential(hl.nn.Linear(64, 32), hl.nn.ReLU(), hl.nn.Dropout(0.1), hl.nn.Linear(32, 10))
    trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(3e-3), schedule="cosine")
    # a name that would be a page's doom if it were markup, and one that is longer than a phone is wide
    names = {"<script>console.error(1)</script>": (X[:300] / 16, y[:300]), "v" * 60: (X[:50] / 16, y[:50])}
    return trainer.fit(X / 16, y, validation=names, epochs=5)


def regression() -> Any:
    X, y = datasets.load_diabetes(return_X_y=True)
    trainer = hl.Trainer(hl.nn.Sequential(hl.nn.Linear(10, 16), hl.nn.GELU(), hl.nn.Linear(16, 1)), "mse")
    return trainer.fit(X / X.std(axis=0), (y - y.mean()) / y.std(), validation=0.2, epochs=5)


@pytest.fixture(scope="module", params=[classification, regression], ids=lambda make: make.__name__)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(request.param().report(tmp_path_factory.mktemp("page") / "run.html"))


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1200, False), (1200, True)])
def test_in_a_browser(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.requests() == []
    assert browser.complaints() == []
    assert browser.evaluate("document.compatMode") == "CSS1Compat"
    assert browser.evaluate("document.documentElement.scrollWidth") == width  # no sideways scrolling
    assert browser.evaluate("document.scripts.length") == 0
    headings = browser.evaluate("[...document.querySelectorAll('h2')].map(h => h.innerText)")
    assert set(headings) >= HEADINGS
    assert {"Confusion matrix", "Calibration"} <= set(headings) or "Residuals" in headings
    # every figure is drawn, and no larger than its card
    sizes = browser.evaluate(
        "[...document.querySelectorAll('svg')].map(s => [s.getBoundingClientRect().width,"
        " s.closest('section').getBoundingClientRect().width, s.getBoundingClientRect().height])"
    )
    assert len(sizes) >= 4 and all(150 < inner <= outer and high > 100 for inner, outer, high in sizes)
    # ink and paper differ, in the figures' text as in the page's
    ink, paper, text = browser.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('section')).backgroundColor,"
        " getComputedStyle(document.querySelector('svg text')).fill]"
    )
    assert abs(_brightness(ink) - _brightness(paper)) > 0.6
    assert abs(_brightness(text) - _brightness(paper)) > 0.3
    assert (_brightness(paper) < 0.3) == dark


def test_the_check_sees_requests_and_errors(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src='missing.png'><div style='width:2000px'>x</div><script>nothing()</script>"
    )
    browser.open(bad, width=360)
    assert [url.rsplit("/", 1)[1] for url in browser.requests()] == ["missing.png"]
    assert any("nothing is not defined" in text for text in browser.complaints())
    assert browser.evaluate("document.documentElement.scrollWidth") >= 2000


def test_a_screenshot_is_a_picture(browser: Browser, page: Path) -> None:
    browser.open(page, width=500)
    assert browser.screenshot("#curves")[:8] == b"\x89PNG\r\n\x1a\n"


def _brightness(colour: str) -> float:
    """Mean of the channels of "rgb(r, g, b)", 0 to 1."""
    return float(np.mean([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]])) / 255
