#!/usr/bin/env python3
"""Compares topologies with Kafka Streams, live: the oracle runs them on random input, then the Rust test does the same.

    compare.py                    every topology and 20 random programs, 3 seeds
    compare.py --long             200 random programs and more input
    compare.py --record           writes the vectors that `make test` uses
    compare.py --topology sliding --seed 7

Failures name the seed. The jars come from scripts/setup.sh.
"""

import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = ROOT / "crates/streams/tests/vectors"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--topology", action="append")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    named = sorted(path.stem for path in VECTORS.glob("*.json") if not path.stem.startswith("random_"))
    subprocess.run([ROOT / "scripts/setup.sh", "kafka", "streams"], check=True)
    with tempfile.TemporaryDirectory(prefix="fleuve-streams-") as scratch:
        oracle = Oracle(pathlib.Path(scratch))
        if options.record:
            record(oracle, options.topology or named)
            return
        first = options.seed if options.seed is not None else random.randrange(1 << 30)
        for seed in range(first, first + (1 if options.seed is not None else options.seeds)):
            folder = pathlib.Path(scratch) / f"seed-{seed}"
            folder.mkdir()
            programs = 200 if options.long else 20
            names = named + [f"random_{seed * 1000 + number}" for number in range(programs)]
            if options.topology:
                # Random programs are one test in Rust, which wants at least one.
                names = options.topology + [f"random_{seed * 1000}"]
            print(f"seed {seed}: {len(names)} topologies", flush=True)
            oracle.run(folder, seed, 6, 400 if options.long else 150, names)
            if not rust(folder, options.topology):
                kept = pathlib.Path(tempfile.mkdtemp(prefix=f"fleuve-streams-seed-{seed}-"))
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                sys.exit(f"seed {seed} differs; the oracle's answers are in {kept}")
    print("the same, byte for byte")


class Oracle:
    """Kafka Streams' own test driver."""

    def __init__(self, scratch):
        # Several versions may be there; one has the libraries of Kafka Streams' tests.
        version = next((ROOT / ".cache/kafka").glob("*/streams")).parent
        self.classpath = f"{scratch}:{version}/libs/*:{version}/streams/*"
        source = ROOT / "tests/streams/Oracle.java"
        subprocess.run(["javac", "-nowarn", "-cp", self.classpath, "-d", scratch, source], check=True)

    def run(self, folder, seed, runs, records, names):
        command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp", self.classpath, "Oracle", folder]
        command += [str(seed), str(runs), str(records), *names]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the oracle failed:\n{done.stderr[-4000:]}")


def record(oracle, names):
    oracle.run(VECTORS, 5, 4, 30, names)
    # Small random programs: the live comparison has the large ones.
    oracle.run(VECTORS, 5, 2, 30, [f"random_{number}" for number in range(12)])


def rust(folder, topologies):
    command = ["cargo", "test", "-q", "-p", "fleuve-streams", "--test", "differential", "--"]
    command += [*topologies, "--exact"] if topologies else []
    env = {**os.environ, "STREAMS_VECTORS": str(folder), "RUST_BACKTRACE": "0"}
    return subprocess.run(command, cwd=ROOT, env=env).returncode == 0


if __name__ == "__main__":
    main()
