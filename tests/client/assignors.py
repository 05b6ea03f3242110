#!/usr/bin/env python3
"""The cooperative-sticky assignor of the native client beside Java's, on random groups.

    tests/client/assignors.py [--seed N] [--groups N]

A few recorded divisions are in crates/client/testdata and part of `cargo test`; this makes new ones.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.broker import KAFKA_LIBS, ROOT  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--groups", type=int, default=500)
    options = parser.parse_args()
    print(f"assignors: seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["javac", "-cp", f"{KAFKA_LIBS}/*", "-d", folder, str(Path(__file__).with_name("Assignments.java"))], check=True)
        divisions = Path(folder) / "divisions.txt"
        with open(divisions, "w") as output:
            java = ["java", "-Xmx128m", "-cp", f"{folder}:{KAFKA_LIBS}/*", "Assignments", str(options.seed), str(options.groups)]
            subprocess.run(java, check=True, stdout=output, stderr=subprocess.DEVNULL)
        test = ["cargo", "test", "-q", "-p", "fleuve-client", "--lib", "assignor::kafkas", "--", "--nocapture"]
        return subprocess.run(test, cwd=ROOT, env={**os.environ, "FLEUVE_TEST_ASSIGNMENTS": str(divisions)}).returncode


if __name__ == "__main__":
    sys.exit(main())
