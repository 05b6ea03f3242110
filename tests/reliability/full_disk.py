#!/usr/bin/env python3
"""A disk that is really full: Fleuve on a small tmpfs and a small ext4, filled by a producer until nothing more fits.

    tests/reliability/full_disk.py [--only tmpfs|ext4] [--skip-without-mount] [--keep]

While the disk is full, records are refused with KAFKA_STORAGE_ERROR, and everything that was acknowledged is fetched, offsets are
committed, transactions begin and end, topics come into being, and the broker restarts after a SIGKILL. Once records are deleted,
the producer that has been trying all the time gets through, without anybody's help. Needs root, for mounting: where that is not
allowed the test fails, or says that it was skipped if --skip-without-mount is given. Needs `scripts/setup.sh python`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, Workspace  # noqa: E402
from harness.volume import NoMount, Volume  # noqa: E402

MEBIBYTES = 64
SETTINGS = {
    "fleuve.metrics.listen": "", "group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3", "log.segment.delete.delay.ms": "200", "log.initial.task.delay.ms": "200",
    "log.retention.check.interval.ms": "500", "fleuve.disk.reserve.bytes": str(4 << 20),
}
# Runs in the virtual environment; the broker is killed and started by the parent, which answers on stdin.
WORK = r"""
import hashlib, os, sys, time
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

bootstrap = sys.argv[1]
common = {"bootstrap.servers": bootstrap, "log_level": 2}
admin = AdminClient(common)
admin.create_topics([NewTopic("bulk", 1, 1, config={"segment.bytes": str(4 << 20)})])["bulk"].result(30)
digest = lambda value: hashlib.sha256(value).digest()
acked, refused = {}, []

def delivered(error, message):
    if error is None:
        assert message.offset() not in acked
        acked[message.offset()] = digest(message.value())
    else:
        refused.append(error.code())

def fill(seconds=60):
    # Large records until one is refused, then small ones until one is refused: nothing fits any more.
    before = len(acked)
    with_no_retries = Producer({**common, "acks": "all", "retries": 0, "linger.ms": 0, "batch.num.messages": 1})
    for size in (200_000, 1000):
        refused.clear()
        deadline = time.monotonic() + seconds
        while not refused:
            assert time.monotonic() < deadline, f"{len(acked)} records and no end"
            with_no_retries.produce("bulk", os.urandom(size), on_delivery=delivered)
            with_no_retries.flush(30)
        assert refused == [KafkaError.KAFKA_STORAGE_ERROR], refused
    return len(acked) - before

def read_all(start=0):
    consumer = Consumer({**common, "group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition("bulk", 0, start)])
    found = {}
    while True:
        message = consumer.poll(20)
        assert message is not None, "fetches do not go on"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            break
        found[message.offset()] = digest(message.value())
    return consumer, found

def work_of_the_brokers_own(round_number):
    consumer, found = read_all()
    assert {offset: found.get(offset) for offset in acked} == acked, "acknowledged records are missing or changed"
    consumer.commit(offsets=[TopicPartition("bulk", 0, len(acked) - round_number)], asynchronous=False)
    assert consumer.committed([TopicPartition("bulk", 0)], 30)[0].offset == len(acked) - round_number
    writer = Producer({**common, "transactional.id": "writer"})
    writer.init_transactions(30)
    writer.begin_transaction()
    writer.send_offsets_to_transaction([TopicPartition("bulk", 0, len(acked) - round_number - 1)], consumer.consumer_group_metadata(), 30)
    writer.commit_transaction(30)
    consumer.close()
    name = f"created-{round_number}"
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)

count = fill()
print(f"{count} records fitted", file=sys.stderr)
work_of_the_brokers_own(1)
print("kill", flush=True)
sys.stdin.readline()
assert fill() == 0, "records are taken after the restart"
work_of_the_brokers_own(2)
# One that does not give up.
patient = Producer({**common, "enable.idempotence": True, "delivery.timeout.ms": 60000, "retry.backoff.ms": 50})
outcome = []
patient.produce("bulk", b"patience", on_delivery=lambda error, message: outcome.append((error, message.offset())))
assert patient.flush(2) == 1, f"it was taken on a full disk: {outcome}"
admin.delete_records([TopicPartition("bulk", 0, sorted(acked)[len(acked) // 2])])
assert patient.flush(30) == 0 and outcome[0][0] is None, outcome
start = sorted(acked)[len(acked) // 2]
for offset in [offset for offset in acked if offset < start]:
    del acked[offset]
acked[outcome[0][1]] = digest(b"patience")
more = fill()
assert more > 20, f"only {more} more records were taken"
consumer, found = read_all(start)
consumer.close()
assert {offset: found.get(offset) for offset in acked} == acked, "acknowledged records are missing or changed"
print(f"{more} more fitted when half was deleted", file=sys.stderr)
"""


def fill(workspace: Workspace, kind: str) -> None:
    with Volume(kind, workspace.path / kind, MEBIBYTES) as volume:
        broker = workspace.broker("fleuve", SETTINGS, f"{kind}-data")
        broker.data = volume.path / "data"
        broker.start()
        # A restart keeps the port, so that the clients find it.
        client = subprocess.Popen(
            [CACHE / "venv" / "bin" / "python", "-c", WORK, broker.bootstrap], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            if client.stdout.readline().strip() == "kill":
                broker.kill()
                broker.start()
                client.stdin.write("\n")
                client.stdin.flush()
            if client.wait(240):
                raise RuntimeError(f"the clients ended with {client.returncode}\n{broker.log_tail()}")
            broker.stop()
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()
            # It must be gone before its file system can be.
            if broker.process is not None:
                broker.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["tmpfs", "ext4"])
    parser.add_argument("--skip-without-mount", action="store_true", help="say so and succeed where mounting is not allowed")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    options = parser.parse_args()
    with Workspace("full-disk", options.keep) as workspace:
        for kind in [options.only] if options.only else ["tmpfs", "ext4"]:
            began = time.monotonic()
            try:
                fill(workspace, kind)
            except NoMount as error:
                print(f"{'skipped' if options.skip_without_mount else 'FAILED'} full disk on {kind}: cannot mount here ({error})")
                if not options.skip_without_mount:
                    return 1
            else:
                print(f"ok     full disk on {kind} in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
