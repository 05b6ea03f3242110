#!/usr/bin/env python3
"""Every demo against the broker under test, as `fleuve demo NAME --bootstrap-server` runs it where nobody watches.

    tests/demos/run.py [--broker fleuve|kafka|cluster|HOST:PORT] [--keep]

Word count runs twice, the second time in two instances at once that share the work: the counts go on, and stay exact.
`tests/streams/faults.py --demos` runs each once on the cluster that it has.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import Workspace, add_broker_argument  # noqa: E402

BINARY = os.environ.get("FLEUVE_BINARY", str(HERE.parents[1] / "target" / "release" / "fleuve"))
PATIENCE_SECONDS = 300
EXPECTED = {
    "word-count": "every count equals a plain one",
    "page-views": "every count equals a plain join",
    "music": "every post is counted",
}


def begin(bootstrap: str, name: str) -> subprocess.Popen:
    return subprocess.Popen(
        [BINARY, "demo", name, "--bootstrap-server", bootstrap], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def end(demo: subprocess.Popen, name: str, wanted: tuple[str, ...]) -> bool:
    try:
        output, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        demo.kill()
        output, _ = demo.communicate()
    last = output.strip().splitlines()[-1] if output.strip() else "(nothing)"
    good = demo.returncode == 0 and last.endswith(wanted)
    print(f"{'ok  ' if good else 'FAIL'}  {last}", flush=True)
    return good


def run_each_once(bootstrap: str) -> bool:
    """Every demo, all at the same time, on brokers that run."""
    demos = [(begin(bootstrap, name), name, verdict) for name, verdict in EXPECTED.items()]
    return all([end(demo, name, (verdict,)) for demo, name, verdict in demos])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_broker_argument(parser)
    options = parser.parse_args()
    began = time.monotonic()
    good = True
    with Workspace("demos", options.keep) as workspace:
        broker = workspace.broker(options.broker, {"group.initial.rebalance.delay.ms": "0"}).start()
        for name, verdict in EXPECTED.items():
            good &= end(begin(broker.bootstrap, name), name, (verdict,))
        pair = [begin(broker.bootstrap, "word-count") for _ in range(2)]
        # Whoever is done first may find that the other has sent more lines than are counted by then.
        either = (EXPECTED["word-count"], "others have been counting, too")
        for demo in pair:
            good &= end(demo, "word-count", either)
        good &= end(begin(broker.bootstrap, "word-count"), "word-count", (EXPECTED["word-count"],))
    print(f"demos: {'all well' if good else 'FAILED'} in {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
