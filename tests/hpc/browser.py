"""A real browser for tests: Debian's chromium without a window and without a network, spoken to through a pipe.

In: an HTML file. Out: a `Page` that evaluates JavaScript, and remembers requests, errors and what was logged.
`python -m tests.hpc.browser FILE.html PICTURE.png [WIDTH]` makes a picture of a whole page.

The DevTools protocol goes over two pipes (descriptors 3 and 4 of the browser), one JSON object each, ended by a zero
byte: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser")
NO_CHROMIUM = "no chromium: apt-get install chromium"
TIMEOUT_S = 60.0
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)


def program() -> str | None:
    """The browser, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Pipe:
    """Commands to the browser, its answers, and its events in the order of arrival."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command. RuntimeError when the browser refuses it, TimeoutError when it says nothing."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") != self._number:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for(self, event: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not any(seen.get("method") == event for seen in self.events):
            self.events.append(self._next(deadline, event))

    def _send(self, message: bytes) -> None:
        while message:
            message = message[os.write(self._out, message) :]

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {TIMEOUT_S:.0f} s: {what}")
            heard = os.read(self._in, 1 << 20)
            if not heard:
                raise RuntimeError(f"the browser ended before {what}")
            self._buffer += heard
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@dataclass
class Page:
    """A loaded page."""

    pipe: Pipe
    session: str
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, data: left out."""
    errors: list[str] = field(default_factory=list)
    """Exceptions of scripts, and errors that the browser logged."""

    def evaluate(self, script: str) -> Any:
        """The value of an expression, promises awaited."""
        answer = self.pipe.call(
            "Runtime.evaluate", self.session, expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def listen(self) -> None:
        """Sort what has happened so far into `requests` and `errors`."""
        self.evaluate("new Promise(done => setTimeout(done, 50))")
        events, self.pipe.events = self.pipe.events, []
        for event in events:
            method, told = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
                self.requests.append(told["request"]["url"])
            elif method == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(told["exceptionDetails"]))
            elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
                self.errors.append(told["entry"]["text"])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the page, or (not `whole`) of what the window shows."""
        answer = self.pipe.call("Page.captureScreenshot", self.session, format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """As it is printed."""
        return base64.b64decode(self.pipe.call("Page.printToPDF", self.session, printBackground=True)["data"])


@contextlib.contextmanager
def opened(html: Path, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A page in a browser of its own, loaded to the end; the browser is gone afterwards.

    Raises:
        FileNotFoundError: there is no chromium.
    """
    if (found := program()) is None:
        raise FileNotFoundError(NO_CHROMIUM)
    with _browser(found) as pipe:
        target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
        session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            pipe.call(f"{domain}.enable", session)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        pipe.call("Emulation.setDeviceMetricsOverride", session, **metrics)
        pipe.events.clear()
        pipe.call("Page.navigate", session, url=html.resolve().as_uri())
        pipe.wait_for("Page.loadEventFired")
        page = Page(pipe, session)
        page.listen()
        yield page
        page.listen()


@contextlib.contextmanager
def _browser(name: str) -> Iterator[Pipe]:
    commands_read, commands_write = os.pipe()
    answers_read, answers_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        script = 'in=$1 out=$2; shift 2; exec 3<&"$in" 4>&"$out" "$@"'
        arguments = [*ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(commands_read), str(answers_write), name, *arguments],
            pass_fds=(commands_read, answers_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands_read)
        os.close(answers_write)
        try:
            yield Pipe(commands_write, answers_read)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(commands_write)
            os.close(answers_read)


def main(html: str, picture: str, width: str = "1280") -> int:
    with opened(Path(html), int(width)) as page:
        page.screenshot(Path(picture))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
