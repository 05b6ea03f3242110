#!/usr/bin/env python3
"""Cuts the power of the broker's disk at random moments under load, then has the whole history judged.

    tests/reliability/power.py [--cuts 5 | --long] [--seed N] [--set key=value] [--skip-without-mount] [--keep]

The data directory is on an ext4 of its own. A cut makes the kernel drop everything that was not synced, journal included (the ioctl
that file systems' own tests use), ends the broker, and mounts what is left. Clients and judgement are those of kill.py: nothing
acknowledged is lost, nothing is there twice, nothing a consumer saw vanishes. Needs root, and `scripts/setup.sh python`; where
mounting is not allowed the test fails, or says that it was skipped if --skip-without-mount is given.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from harness.broker import Broker, BrokerFailed, Workspace  # noqa: E402
from harness.volume import NoMount, Volume  # noqa: E402
from history import violations  # noqa: E402
from kill import PARTITIONS, TOPIC, AdminClient, Load, NewTopic, run_kills  # noqa: E402

CUTS = 5
LONG_CUTS = 100
MEBIBYTES = 1024


def cut_power(broker: Broker, volume: Volume) -> None:
    """In place of a mere SIGKILL.

    The broker goes first: a sync that is under way when ext4 is told to stop may still report success, to somebody whom a real
    power cut would have ended as well.
    """
    type(broker).kill(broker)
    volume.stop_writing()
    volume.boot()


def run(broker: Broker, volume: Volume, cuts: int, seed: int) -> tuple[list[str], str]:
    broker.data = volume.path / "data"
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        future.result(30)
    broker.kill = lambda: cut_power(broker, volume)
    load = Load(broker.bootstrap)
    load.start()
    while_starting = 0
    try:
        while_starting = run_kills(broker, load, cuts, random.Random(seed))
        time.sleep(1)
    except BrokerFailed as error:
        load.errors.append(str(error))
        broker.process = None
    load.stop_producers()
    load.stop_consumer()
    if not load.errors:
        load.read_log()
    problems = load.errors[:20]
    if not problems:
        for number, history in enumerate(load.partitions):
            problems += violations(number, history)
        if not all(history.consumed for history in load.partitions):
            problems.append("the consumer saw no records of some partition")
        broker.stop()
    stored = sum(len(history.log) for history in load.partitions)
    return problems, (
        f"{cuts} cuts ({while_starting} more while starting), {load.acknowledged()} records acknowledged, {stored} stored; "
        "none lost, none twice, offsets contiguous"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--long", action="store_true", help=f"{LONG_CUTS} cuts")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="broker setting; fleuve.flush.before.ack=false must fail")
    parser.add_argument("--skip-without-mount", action="store_true", help="say so and succeed where mounting is not allowed")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    options = parser.parse_args()
    cuts = LONG_CUTS if options.long else options.cuts
    settings = {"group.initial.rebalance.delay.ms": "0", "fleuve.metrics.listen": "", **dict(each.split("=", 1) for each in options.set)}
    print(f"power test: {cuts} cuts, seed {options.seed}", flush=True)
    with Workspace("power", options.keep) as workspace:
        broker = workspace.broker("fleuve", settings)
        try:
            with Volume("ext4", workspace.path / "disk", MEBIBYTES) as volume:
                try:
                    problems, told = run(broker, volume, cuts, options.seed)
                finally:
                    # It must be gone before its file system can be.
                    if broker.process is not None and broker.process.poll() is None:
                        broker.process.kill()
                        broker.process.wait()
        except NoMount as error:
            print(f"{'skipped' if options.skip_without_mount else 'FAILED'} power test: cannot mount here ({error})")
            return 0 if options.skip_without_mount else 1
        for problem in problems:
            print(f"FAILED power test: {problem}")
        if problems:
            print(f"FAILED power test: replay with --seed {options.seed} --cuts {cuts}")
            workspace.keep = True
            return 1
        print(f"ok     power test: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
