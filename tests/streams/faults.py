#!/usr/bin/env python3
"""Two instances of an application that counts exactly once, killed and stopped at random together with the brokers they
run on.

    tests/streams/faults.py [--broker fleuve|kafka|cluster] [--kills N | --long] [--protocol P] [--demos] [--seed N] [--keep]

Each kill is a SIGKILL of an instance or of a broker (with `cluster`, of one of three nodes of Apache Kafka), which
comes back a moment later, or a SIGSTOP of an instance, which goes on when its group has given it up. The broker shares
out the tasks where it can (KIP-1071); `--protocol classic` leaves that to the instances. Either keeps the state of each
task in the other instance, too. Every record that a reader of committed records gets is held against the one before it
of its key: each change of each count has to be there once and in order. `--long` does so 100 times. `--demos` runs every
demo on the brokers that were killed.

What a kill costs is mostly waiting, which the settings keep short: for the session of who died, and for its transaction,
behind which readers of committed records see nothing.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from counting import Failed, Instance, Lines, ours, use_environment  # noqa: E402
from demos.run import run_each_once  # noqa: E402
from harness.broker import BrokerFailed, Cluster, Workspace, add_broker_argument  # noqa: E402

KILLS, KILLS_LONG = 4, 100
LINES_PER_KILL = 300
# Members that were killed are missed soon, whichever protocol the group speaks.
SETTINGS = {
    "group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000", "offsets.topic.num.partitions": "4",
    "group.streams.initial.rebalance.delay.ms": "200", "group.streams.assignment.interval.ms": "200",
    "group.streams.min.heartbeat.interval.ms": "200", "group.streams.heartbeat.interval.ms": "500",
    "group.streams.min.session.timeout.ms": "1000", "group.streams.session.timeout.ms": "3000", "group.streams.num.standby.replicas": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
}  # fmt: skip
# Longer than the session, and now and then than the transaction.
STOPPED_SECONDS = (3.5, 8.0)
INSTANCE = [
    "processing.guarantee=exactly_once_v2", "session.timeout.ms=3000", "transaction.timeout.ms=5000",
    "num.stream.threads=2", "num.standby.replicas=1",
]  # fmt: skip


class Scene:
    """The brokers, two instances, and what was said."""

    def __init__(self, broker, folder: Path, seed: int, protocol: str):
        self.broker, self.folder, self.protocol = broker, folder, protocol
        self.random = random.Random(seed)
        self.nodes = broker.nodes if isinstance(broker, Cluster) else [broker]
        self.lines = Lines(broker, seed, replication=len(self.nodes))
        self.started = 0
        self.victims: list[str] = []
        self.instances: list[Instance] = [self.start(), self.start()]

    def start(self) -> Instance:
        self.started += 1
        return ours(f"instance-{self.started}", self.broker, self.folder, *INSTANCE, f"group.protocol={self.protocol}")

    def go_on(self, seconds: float) -> None:
        """Reads what comes out for a while; the instances have to live."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.lines.read(0.1)
            for instance in self.instances:
                instance.check_alive()

    def kill(self) -> str:
        # Of any four in a row one is a broker, and one an instance that is only stopped.
        kinds = ["instance", "instance", "broker", "stopped"]
        self.victims = self.victims or self.random.sample(kinds, len(kinds))
        victim = self.victims.pop()
        if victim == "stopped":
            instance = self.random.choice(self.instances)
            instance.process.send_signal(signal.SIGSTOP)
            try:
                self.go_on(self.random.uniform(*STOPPED_SECONDS))
            finally:
                instance.process.send_signal(signal.SIGCONT)
            return f"{instance.name}, stopped for a while"
        away = self.random.uniform(0.2, 2.0)
        if victim == "instance":
            place = self.random.randrange(len(self.instances))
            killed = self.instances.pop(place)
            killed.kill()
            self.go_on(away)
            self.instances.insert(place, self.start())
            return killed.name
        node = self.random.choice(self.nodes)
        node.kill()
        self.go_on(away)
        node.spawn()
        node.await_ready()
        return node.bootstrap

    def run(self, kills: int, note) -> None:
        self.lines.say(LINES_PER_KILL)
        self.lines.await_counted(self.instances)
        note(f"two instances count {self.lines.said} lines")
        for number in range(1, kills + 1):
            self.lines.say(LINES_PER_KILL)
            self.go_on(self.random.uniform(0.0, 1.0))
            began = time.monotonic()
            killed = self.kill()
            self.lines.say(LINES_PER_KILL)
            # Now and then everything is counted before the next kill; mostly the next one comes in between.
            recovered = ""
            if len(self.nodes) > 1 or number % 3 == 0 or number == kills:
                self.lines.await_counted(self.instances, 0.5 if number == kills else 0.0)
                recovered = f", all counted {time.monotonic() - began:.1f} s later"
            note(f"kill {number}: {killed}{recovered}; {sum(self.lines.seen.values())} changes so far, each once and in order")
        for instance in self.instances:
            instance.leave()

    def close(self) -> None:
        for instance in self.instances:
            instance.end()
        self.lines.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--long", action="store_true", help=f"{KILLS_LONG} kills")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--demos", action="store_true", help="run every demo on the brokers afterwards")
    parser.add_argument("--protocol", choices=["auto", "classic", "streams"], default="auto", help="group.protocol of the instances")
    options = parser.parse_args()
    use_environment()
    started = time.monotonic()
    kills = KILLS_LONG if options.long else options.kills
    print(f"faults: seed {options.seed}, {kills} kills", flush=True)
    failed = 0
    with Workspace("faults", options.keep) as workspace:
        broker = workspace.broker(options.broker, SETTINGS)
        scene = None
        try:
            broker.start()
            scene = Scene(broker, workspace.path, options.seed, options.protocol)
            scene.run(kills, lambda text: print(f"ok     faults        {text} ({time.monotonic() - started:.0f} s)", flush=True))
            if options.demos and not run_each_once(broker.bootstrap):
                raise Failed("a demo did not do what it says")
            broker.stop()
        except (Failed, BrokerFailed) as failure:
            failed = 1
            workspace.keep = True
            print(f"FAILED faults        seed {options.seed}: {failure}", flush=True)
        finally:
            if scene:
                scene.close()
    print(f"faults: {'failed' if failed else 'passed'} ({time.monotonic() - started:.0f} s)")
    return failed


if __name__ == "__main__":
    sys.exit(main())
