"""A page in the real Chromium, driven by the DevTools protocol over two pipes."""

import base64
import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

WORDS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")


class Page:
    """An open page, in a browser of its own.

    Args:
        folder: for the browser's files.
        url: the page.
        size: width and height in pixels.
    """

    def __init__(self, folder: Path, url: str, size: tuple[int, int] = (1400, 900)) -> None:
        from_browser, its_output = os.pipe()
        its_input, to_browser = os.pipe()
        words = [
            "chromium",
            *WORDS,
            f"--user-data-dir={folder}",
            "--window-size={},{}".format(*size),
        ]
        # It reads from 3 and writes to 4.
        command = f"exec {shlex.join(words)} 3<&{its_input} 4>&{its_output}"
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(its_input, its_output),
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        self._from_browser = os.fdopen(from_browser, "rb")
        self._to_browser = os.fdopen(to_browser, "wb")
        self._sent = 0
        self._received = b""
        self._session: dict[str, str] = {}
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.go(url)

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(60)
        self._from_browser.close()
        self._to_browser.close()

    def send(self, method: str, **params):
        """Send a command; gives its result."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params} | self._session
        self._to_browser.write(json.dumps(message).encode() + b"\0")
        self._to_browser.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._received:
            part = self._from_browser.read1()
            assert part, "the browser ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def go(self, url: str) -> None:
        """Open another page in this one's place."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState == 'complete'")

    def evaluate(self, expression: str):
        """The value of an expression in JavaScript, or of its promise."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until a condition in JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, condition
            time.sleep(0.1)

    def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])
