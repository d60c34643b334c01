# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium over its debugging pipe: what a page asks the network for, what it complains about, how
wide it is, what it looks like.

The DevTools protocol as JSON between zero bytes on two pipes: all that is needed, without a package.
As a script: ``python browser.py PAGE WIDTH[:dark] PICTURE [SELECTOR]`` takes a screenshot.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_TIMEOUT_S = 60.0


def executable() -> str | None:
    """The browser of this machine; None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One headless browser with one empty tab, as a `with` block; its profile goes to ``folder``."""

    def __init__(self, folder: Path) -> None:
        program = executable()
        assert program is not None
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]  # fmt: skip

        # The protocol's pipes are the child's descriptors 3 and 4; a shell puts them there.
        shell = f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}'
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # a sanitizer's, as a rule
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *options, "about:blank"], pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._to)  # the browser ends when nobody talks to it
        os.close(self._from)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path, *, width: int, height: int = 800, dark: bool = False) -> None:
        """Load a file in a window of this size, and wait for the end of it."""
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()
        time.sleep(0.2)  # a request for an icon would come after the page
        self.evaluate("0")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """Addresses that the page asked for, without the page itself and data within it."""
        sent = [e["params"]["request"]["url"] for e in self._of("Network.requestWillBeSent")]
        return [url for url in sent[1:] if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Everything in the console, and uncaught errors."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for kind in kinds for event in self._of(kind)]

    def screenshot(self, selector: str | None = None) -> bytes:
        """The whole page, or one element of it, as PNG."""
        where = "document.documentElement" if selector is None else f"document.querySelector({selector!r})"
        box = self.evaluate(
            f"(() => {{ const r = {where}.getBoundingClientRect();"
            " return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}; })()"
        )
        picture = self.call("Page.captureScreenshot", clip=box, captureBeyondViewport=True)
        return base64.b64decode(picture["data"])

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["method"] == method]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], _TIMEOUT_S)
            assert ready, "the browser does not answer"
            part = os.read(self._from, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


def _main(page: str, size: str, picture: str, selector: str | None = None) -> None:
    import tempfile

    width, _, scheme = size.partition(":")
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        browser.open(Path(page), width=int(width), dark=scheme == "dark")
        Path(picture).write_bytes(browser.screenshot(selector))
        print(
            browser.requests(), browser.complaints(), browser.evaluate("document.documentElement.scrollWidth")
        )


if __name__ == "__main__":
    _main(*sys.argv[1:])
