#!/usr/bin/env python3
"""Makes the picture of a demo on a terminal: runs it on one, and has a browser draw its last picture.

    tests/demos/picture.py FILE [--seconds 12] [--] DEMO [OPTION...]
"""

import argparse
import fcntl
import html
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

from browser import Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))
ROWS, COLUMNS = 30, 100
COLORS = {"1": "font-weight:700", "2": "color:#8b8fa8", "32": "color:#8fd46a", "33": "color:#f2b84b", "36": "color:#6fb7f5"}
PAGE = """<style>
body { margin: 0; padding: 26px 30px; background: #14161f; }
p, pre { margin: 0; color: #eceaf4; font: 15px/21px "DejaVu Sans Mono", monospace; }
p { margin-bottom: 12px; } p::before { content: "$ "; color: #8fd46a; }
pre span { display: inline-block; height: 21px; vertical-align: top; }
</style><p>%s</p><pre>%s</pre>"""


def watch(arguments, seconds):
    """Runs the demo for so long on a terminal of its own, and returns all that it wrote."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        os.execv(BINARY, ["fleuve", "demo", *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    written, until, interrupted = b"", time.monotonic() + seconds, False
    while True:
        if not interrupted and time.monotonic() > until:
            os.kill(child, signal.SIGINT)
            interrupted = True
        readable, _, _ = select.select([terminal], [], [], 0.1)
        if readable:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:
                break
            if not data:
                break
            written += data
    os.waitpid(child, 0)
    return written.decode()


def colored(text):
    """Escape sequences as spans."""
    out = []
    for piece in re.split(r"(\x1b\[\d+m)", html.escape(text)):
        code = re.fullmatch(r"\x1b\[(\d+)m", piece)
        if code is None:
            out.append(piece)
        elif code[1] == "0":
            out.append("</span>")
        else:
            out.append(f'<span style="{COLORS[code[1]]}">')
    return "".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("demo", nargs="+")
    options = parser.parse_args()
    written = watch(options.demo, options.seconds).replace("\r", "")
    # A picture begins where the one before is wiped away; the last one but the end is the fullest.
    pictures = re.split(r"\x1b\[\d+A\x1b\[J", written)
    last = pictures[-1].rstrip("\n").rsplit("\n", 1)[0]
    page = PAGE % (html.escape("fleuve demo " + " ".join(options.demo)), colored(last))
    with Browser(width=1000, height=100) as browser:
        browser.run(f"document.documentElement.innerHTML = {json.dumps(page)}")
        height = browser.run("Math.ceil(document.body.getBoundingClientRect().height)")
        size = {"width": 1000, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.picture(options.file)
    print(f"{options.file}: {len(pictures)} pictures were drawn, this is the last")


if __name__ == "__main__":
    sys.exit(main())
