#!/usr/bin/env python3
"""System calls that are interrupted or fail, injected into a real broker by strace.

    tests/reliability/calls.py [--skip-without-strace] [--keep]

Interrupted: every third write to a file says EINTR, and nobody notices. Full: four syncs of one partition's segment say
ENOSPC; what was sent is acknowledged once there is space, what comes meanwhile is refused, and no record is lost or there
twice. Failing: every sync of another's says EIO; its records are refused and not acknowledged, the others go on. After
SIGKILL everything acknowledged is there. Needs strace and the right to trace; without them the test fails, or says that it was skipped if --skip-without-strace is
given. Needs `scripts/setup.sh python`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, Broker, Workspace  # noqa: E402

SETTINGS = {"fleuve.metrics.listen": "", "log.initial.task.delay.ms": "60000"}
WORK = r"""
import sys
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
bootstrap, step = sys.argv[1:3]
common = {"bootstrap.servers": bootstrap, "log_level": 2}
def send(partition, count, prefix):
    told = []
    producer = Producer({**common, "acks": "all", "retries": 0, "linger.ms": 0, "batch.num.messages": 5})
    for number in range(count):
        producer.produce("words", f"{prefix}{number}", partition=partition, on_delivery=lambda error, message: told.append(error))
        producer.poll(0)
    assert producer.flush(60) == 0
    return told
def send_until_taken(partition, values):
    refused = 0
    while values:
        left = []
        def told(error, message):
            if error:
                assert error.code() == KafkaError.KAFKA_STORAGE_ERROR, error
                left.append(message.value().decode())
        producer = Producer({**common, "acks": "all", "retries": 0, "linger.ms": 0, "batch.num.messages": 5})
        for value in values:
            producer.produce("words", value, partition=partition, on_delivery=told)
            producer.poll(0.01)
        assert producer.flush(60) == 0
        refused += len(left)
        values = left
    return refused
def read(partition):
    consumer = Consumer({**common, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition("words", partition, 0)])
    values = []
    while True:
        message = consumer.poll(30)
        assert message is not None
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            consumer.close()
            return values
        values.append(message.value().decode())
expected = [f"a{number}" for number in range(400)]
full = sorted(f"f{number}" for number in range(300))
if step == "create":
    admin = AdminClient(common)
    admin.create_topics([NewTopic("words", 3, 1)])["words"].result(30)
elif step == "write":
    for partition in (0, 1):
        assert not any(send(partition, 400, "a"))
        assert read(partition) == expected
elif step == "full":
    assert send_until_taken(2, full), "nothing was refused"
    assert sorted(read(2)) == full, "lost, or there twice"
elif step == "fail":
    refusals = send(0, 20, "b")
    assert {error and error.code() for error in refusals} == {KafkaError.KAFKA_STORAGE_ERROR}, refusals
    assert not any(send(1, 100, "b"))
    assert read(0) == expected, "what was not synced is shown"
elif step == "after":
    assert read(0)[:400] == expected
    assert read(1) == expected + [f"b{number}" for number in range(100)]
    assert not any(send(0, 10, "c"))
    assert sorted(read(2)) == full, "lost, or there twice, after SIGKILL"
"""


def work(broker: Broker, step: str) -> None:
    command = [CACHE / "venv" / "bin" / "python", "-c", WORK, broker.bootstrap, step]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if ended.returncode:
        raise RuntimeError(f"{step}: {ended.stderr[-800:]}\n{broker.log_tail()}")


def traced(*arguments: str) -> list[str]:
    # -D leaves the broker our child, so that signals reach it and not strace.
    return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *arguments]


def can_trace() -> str:
    try:
        tried = subprocess.run(traced("-e", "trace=none", "true"), capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return "strace is not installed"
    return "" if tried.returncode == 0 else tried.stderr.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-without-strace", action="store_true", help="say so and succeed where tracing is not possible")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    options = parser.parse_args()
    if reason := can_trace():
        print(f"{'skipped' if options.skip_without_strace else 'FAILED'} failing calls: {reason}")
        return 0 if options.skip_without_strace else 1
    with Workspace("calls", options.keep) as workspace:
        broker = workspace.broker("fleuve", SETTINGS)
        broker.start()
        work(broker, "create")
        broker.stop()

        calls = "pwritev,pwrite64"
        broker.command_prefix = traced("-e", f"trace={calls}", "-e", f"inject={calls}:error=EINTR:when=1+3")
        broker.start()
        work(broker, "write")
        broker.stop()
        print("ok     every third write is interrupted: nobody notices", flush=True)

        segment = broker.data / "words-2" / "00000000000000000000.log"
        broker.command_prefix = traced("-P", str(segment), "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=ENOSPC:when=1..4")
        broker.start()
        work(broker, "full")
        broker.kill()
        print("ok     syncs of a partition find no space for a while: what was sent is acknowledged later, or refused", flush=True)

        segment = broker.data / "words-0" / "00000000000000000000.log"
        broker.command_prefix = traced("-P", str(segment), "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO")
        broker.start()
        work(broker, "fail")
        broker.kill()
        broker.command_prefix = []
        broker.start()
        work(broker, "after")
        broker.stop()
        print("ok     syncs of a partition fail: nothing is acknowledged there, and nothing lost elsewhere", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
