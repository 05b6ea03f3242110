"""Drives a headless Chromium through its debugging pipe; needs nothing but Python.

The pipe carries JSON messages, each followed by a zero byte: requests on descriptor 3 of the browser, answers and events on
descriptor 4.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


class BrowserError(Exception):
    """The browser, or a script in a page, did not do what it should."""


class Browser:
    def __init__(self, width=1280, height=900):
        binary = shutil.which("chromium")
        if binary is None:
            raise BrowserError("chromium is missing: scripts/setup.sh chromium")
        self.profile = tempfile.TemporaryDirectory(prefix="fleuve-browser-", ignore_cleanup_errors=True)
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()

        def place_pipe():
            # First out of the way: one of the two may sit on the other's place.
            reading, writing = os.dup(to_browser), os.dup(from_browser)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self.process = subprocess.Popen(
            [
                binary, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars",
                "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={self.profile.name}",
                f"--window-size={width},{height}", "about:blank",
            ],
            preexec_fn=place_pipe, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.numbers = itertools.count(1)
        self.buffer = b""
        self.log = []
        targets = self.call("Target.getTargets", session=None)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", session=None, targetId=page, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    session = None

    def call(self, method, session=True, timeout=60, **params):
        """Sends a command and returns its answer; events that come meanwhile are kept in the log."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if session and self.session:
            message["sessionId"] = self.session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout
        while True:
            answer = self._receive(until, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self, until, waiting_for):
        while b"\0" not in self.buffer:
            readable, _, _ = select.select([self.read_end], [], [], max(0, until - time.monotonic()))
            if not readable:
                raise BrowserError(f"no answer in time: {waiting_for}")
            data = os.read(self.read_end, 1 << 20)
            if not data:
                raise BrowserError("the browser has ended")
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        self._note(message)
        return message

    def _note(self, message):
        """Keeps what a page complains about."""
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.log.append(details.get("exception", {}).get("description") or details["text"])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.log.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.log.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script, timeout=60):
        """Runs an expression in the page, waits for its promise, and returns its value."""
        answer = self.call(
            "Runtime.evaluate", timeout=timeout, expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, condition, timeout=60):
        """Waits until an expression is true in the page."""
        until = time.monotonic() + timeout
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > until:
                raise BrowserError(f"never true: {condition}")
            time.sleep(0.1)

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        try:
            self.call("Browser.close", session=None, timeout=10)
        except (BrowserError, OSError):
            self.process.kill()
        self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        self.profile.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
