#!/usr/bin/env python3
"""Does what docs/security.md tells newcomers to do, word for word but for the ports.

    tests/foreign/walkthrough.py [--keep]

Blocks marked `sh` must succeed and those marked `sh refused` must not; what runs in the background is ended at the end.
One line per block; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import ROOT, Workspace, free_port  # noqa: E402

BLOCK = re.compile(r"^```sh( refused)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READY_SECONDS_MAX = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep what the blocks leave")
    arguments = parser.parse_args()
    binary = Path(os.environ.get("FLEUVE_BINARY", ROOT / "target" / "release" / "fleuve"))
    text = (ROOT / "docs" / "security.md").read_text()
    section = text.split("## Step by step", 1)[1].split("\n## ", 1)[0]
    ports = [free_port()]
    ports.append(free_port(ports[0] + 1))
    for written, free in zip(["9092", "9093"], ports):
        section = section.replace(written, str(free))
    failed = passed = 0
    with Workspace("walkthrough", arguments.keep) as workspace:
        # The words say `fleuve`, wherever it is installed.
        (workspace.path / "bin").mkdir()
        (workspace.path / "bin" / "fleuve").symlink_to(binary)
        environment = {
            **os.environ,
            "PATH": f"{workspace.path / 'bin'}:{os.environ['PATH']}",
            "FLEUVE_BOOTSTRAP_SERVER": f"localhost:{ports[0]}",
        }
        log = workspace.path / "background.log"
        broker = None
        try:
            for refused, commands in BLOCK.findall(section):
                if commands.rstrip().endswith("&"):
                    with open(log, "wb") as output:
                        command = ["bash", "-ec", commands.rstrip().removesuffix("&")]
                        broker = subprocess.Popen(command, cwd=workspace.path, env=environment, stdout=output, stderr=output, start_new_session=True)
                    deadline = time.monotonic() + READY_SECONDS_MAX
                    while "ready in" not in log.read_text() and broker.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.05)
                    good, said = broker.poll() is None and "ready in" in log.read_text(), log.read_text()
                else:
                    done = subprocess.run(["bash", "-ec", commands], cwd=workspace.path, env=environment, capture_output=True, text=True, timeout=60)
                    good, said = (done.returncode == 0) != bool(refused), done.stdout + done.stderr
                    if refused:
                        good = good and "denied" in said.lower() or "authoriz" in said.lower()
                    elif "consume orders" in commands:
                        good = good and "hello" in done.stdout
                passed += good
                failed += not good
                first = commands.strip().splitlines()[0][:80]
                print(f"{'ok' if good else 'FAILED':6} {first}" + ("" if good else f"\n{said}"), flush=True)
        finally:
            if broker is not None and broker.poll() is None:
                # bash and the broker that it has become or started.
                os.killpg(broker.pid, signal.SIGTERM)
                broker.wait(30)
    print(f"{passed} blocks as they should be, {failed} not")
    return 1 if failed or passed < 5 else 0


if __name__ == "__main__":
    sys.exit(main())
