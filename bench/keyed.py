#!/usr/bin/env python3
"""Fills a topic with keyed records for the compaction row: keyed.py BOOTSTRAP TOPIC RECORDS KEYS SIZE; runs in .cache/venv."""

import os
import random
import sys

from confluent_kafka import Producer


def main() -> None:
    bootstrap, topic = sys.argv[1:3]
    records, keys, size = map(int, sys.argv[3:6])
    problems = []
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000, "batch.num.messages": 1000})
    noise = os.urandom(1 << 20)
    # The same keys in the same order for both brokers.
    chance = random.Random(7)

    def delivered(error, _message) -> None:
        if error is not None:
            problems.append(error)

    for _ in range(records):
        at = chance.randrange(len(noise) - size)
        while True:
            try:
                producer.produce(topic, noise[at : at + size], b"%012d" % chance.randrange(keys), partition=0, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    if producer.flush(120) or problems:
        sys.exit(f"not all records were delivered: {problems[:1]}")


if __name__ == "__main__":
    main()
