#!/usr/bin/env python3
"""Hostile bytes against a live broker, while another client works and checks what it gets.

    tests/reliability/fuzz.py [--seconds 20] [--long] [--seed N] [--rss-mb 400] [--keep]

Valid frames are taken from real clients: librdkafka works through a proxy that keeps what passes. Then several
connections send them again, changed: bytes flipped, cut, repeated, lengths and counts blown up, fields swapped between
frames, versions and keys replaced; and frames of random bytes. Meanwhile a producer and a consumer that go directly to
the broker must not notice. Two of the connections may do anything but change what the others rest on; the other two
have logged in as somebody who has every right to topics, groups and transactions of a prefix, and send what creates, alters
and deletes, too. At the end: no panic in the log, the same process, memory within its budget, sockets
given back. The same seed sends the same bytes in the same order on each connection.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import struct
import sys
import threading
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, Workspace, free_port  # noqa: E402

PYTHON = CACHE / "venv" / "bin" / "python"
if os.environ.get("VIRTUAL_ENV_PYTHON") != "1" and PYTHON.exists() and Path(sys.executable) != PYTHON:
    os.execve(PYTHON, [str(PYTHON), *sys.argv], {**os.environ, "VIRTUAL_ENV_PYTHON": "1", "PYTHONDONTWRITEBYTECODE": "1"})

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, ElectionType, KafkaException, Producer, TopicCollection, TopicPartition  # noqa: E402
from confluent_kafka.admin import (  # noqa: E402
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

CONNECTIONS = 4
API_KEYS = range(0, 94)
FRAME_BYTES_MAX = 1 << 20
# What the hostile frames must not touch: topic and group of the client that checks.
VICTIM = "innocent-bystander"
# Requests that would change what the checks rest on if a mutation made them valid and whoever sends them had every right:
# they may delete any topic, or give the broker another configuration.
DESTRUCTIVE = {19, 37, 20, 21, 32, 33, 34, 44, 45, 47, 49, 51}
# Clients that were silenced for a quota and have gone are noticed after a while.
SETTLE_SECONDS = 60
# Who has rights to its own only, and may send everything.
OWNER, OWNED = "owner", "seeds"
# Partitions a second that the owner may create and delete, so that an hour's run stays within its memory.
OWNER_MUTATIONS = 1.0


class Recorder:
    """Passes bytes between a client and the broker, and keeps the client's frames."""

    def __init__(self) -> None:
        # Known once the broker runs, which has to know the recorder's port before.
        self.target = 0
        self.is_on = True
        self.frames: list[bytes] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.requests, args=(client, broker), daemon=True).start()
            threading.Thread(target=self.answers, args=(broker, client), daemon=True).start()

    def requests(self, client: socket.socket, broker: socket.socket) -> None:
        buffer = b""
        try:
            while data := client.recv(1 << 16):
                broker.sendall(data)
                buffer += data
                while len(buffer) >= 4 and len(buffer) >= 4 + (length := struct.unpack(">i", buffer[:4])[0]):
                    if self.is_on:
                        self.frames.append(buffer[4 : 4 + length])
                    buffer = buffer[4 + length :]
        except OSError:
            pass
        broker.close()

    def answers(self, broker: socket.socket, client: socket.socket) -> None:
        try:
            while data := broker.recv(1 << 16):
                client.sendall(data)
        except OSError:
            pass
        client.close()


def quiet(work) -> None:
    try:
        work()
    except KafkaException:
        # Refusals are answers, too; what counts is that the request was sent.
        pass


def collect(recorder: Recorder) -> list[bytes]:
    """The frames that librdkafka sends while it does most of what it can."""
    common = {"bootstrap.servers": f"127.0.0.1:{recorder.port}"}
    admin = AdminClient(common)
    topic, group = "seeds", "seeds"
    results = lambda futures: [quiet(future.result) for future in futures.values()]  # noqa: E731
    results(admin.create_topics([NewTopic(topic, 2, 1)]))
    producer = Producer({**common, "transactional.id": "seeds", "compression.type": "lz4"})
    producer.init_transactions()
    producer.begin_transaction()
    for index in range(20):
        producer.produce(topic, f"value {index}", key=str(index), headers={"a": b"b"})
    for protocol in ["classic", "consumer"]:
        consumer = Consumer({**common, "group.id": f"{group}-{protocol}", "group.protocol": protocol, "auto.offset.reset": "earliest", "isolation.level": "read_uncommitted"})
        consumer.subscribe([topic])
        for _ in range(50):
            message = consumer.poll(0.1)
            if message is not None and not message.error():
                consumer.commit(message)
                break
        if protocol == "classic":
            producer.flush()
            quiet(lambda: producer.send_offsets_to_transaction([TopicPartition(topic, 0, 1)], consumer.consumer_group_metadata()))
        quiet(lambda: consumer.offsets_for_times([TopicPartition(topic, 0, 1)], 5))
        consumer.close()
    producer.commit_transaction()
    results(admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic), ConfigResource(ResourceType.BROKER, "1")]))
    results(admin.describe_consumer_groups([f"{group}-classic", f"{group}-consumer"]))
    results(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(f"{group}-classic")]))
    results(admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()}))
    results(admin.delete_records([TopicPartition(topic, 0, 1)]))
    quiet(admin.list_consumer_groups().result)
    quiet(admin.describe_cluster().result)
    results(admin.describe_topics(TopicCollection([topic])))
    quiet(admin.describe_acls(AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)).result)
    results(admin.describe_user_scram_credentials(["nobody"]))
    # What creates, alters and deletes.
    results(admin.create_topics([NewTopic(f"{topic}-more", 1, 1, config={"retention.ms": "100000"}), NewTopic(f"{topic}-gone", 1, 1)]))
    results(admin.create_partitions([NewPartitions(topic, 3)]))
    change = ConfigEntry("segment.ms", "60000", incremental_operation=AlterConfigOpType.SET)
    results(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results(admin.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config={"retention.ms": "600000"})]))
    results(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(f"{group}-classic", [TopicPartition(topic, 0, 3)])]))
    results(admin.delete_consumer_groups([f"{group}-consumer"]))
    quiet(lambda: admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, 0)]).result())
    results(admin.delete_topics([f"{topic}-gone"]))
    scram = UserScramCredentialUpsertion("nobody", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), b"secret")
    results(admin.alter_user_scram_credentials([scram]))
    entry = AclBinding(ResourceType.TOPIC, f"{topic}-acl", ResourcePatternType.LITERAL, "User:nobody", "*", AclOperation.READ, AclPermissionType.ALLOW)
    results(admin.create_acls([entry]))
    results(admin.delete_acls([AclBindingFilter(ResourceType.TOPIC, f"{topic}-acl", ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY)]))
    recorder.is_on = False
    return recorder.frames


def header(key: int, version: int, body: bytes, flexible: bool) -> bytes:
    return struct.pack(">hhi", key, version, 7) + struct.pack(">h", 4) + b"fuzz" + (b"\0" if flexible else b"") + body


def direct_frames() -> list[bytes]:
    """Frames in older versions than librdkafka sends, built by hand."""
    text = lambda value: struct.pack(">h", len(value)) + value  # noqa: E731
    one = struct.pack(">i", 1)
    batch = bytes.fromhex("0000000000000000" "00000032" "00000000" "02" "00000000" "0000" "00000000" "0000000000000000" "0000000000000000" "ffffffffffffffff" "ffff" "ffffffff" "00000000")
    produce = struct.pack(">hhi", -1, -1, 1000) + one + text(b"seeds") + one + struct.pack(">i", 0) + struct.pack(">i", len(batch)) + batch
    fetch = struct.pack(">iiiibii", -1, 10, 1, 1 << 20, 0, 0, -1) + one + text(b"seeds") + one + struct.pack(">iiqqi", 0, -1, 0, -1, 1 << 20) + struct.pack(">i", 0) + text(b"")
    join = text(b"fuzzers") + struct.pack(">ii", 6000, 6000) + text(b"") + struct.pack(">h", -1) + text(b"consumer") + one + text(b"range") + struct.pack(">i", 4) + b"\0\0\0\0"
    commit = text(b"fuzzers") + struct.pack(">i", -1) + text(b"") + struct.pack(">h", -1) + one + text(b"seeds") + one + struct.pack(">iqi", 0, 1, -1) + text(b"")
    frames = [header(0, 8, produce, False), header(1, 11, fetch, False), header(11, 5, join, False), header(8, 7, commit, False)]
    frames += [header(10, 2, text(b"fuzzers") + b"\0", False), header(22, 1, struct.pack(">hi", -1, 60000), False), header(22, 1, text(b"fuzz") + struct.pack(">i", 60000), False)]
    # Reassignments, log directories, offsets and quotas, which librdkafka does not change.
    frames += [header(47, 0, text(b"seeds-classic") + one + text(b"seeds") + one + struct.pack(">i", 0), False)]
    frames += [header(34, 1, one + text(b"/tmp") + one + text(b"seeds") + one + struct.pack(">i", 0), False)]
    frames += [header(45, 0, struct.pack(">i", 1000) + b"\x02\x06seeds\x02" + struct.pack(">i", 0) + b"\x02" + one + b"\0\0\0", True)]
    frames += [header(49, 0, one + one + text(b"user") + text(b"nobody") + one + text(b"producer_byte_rate") + struct.pack(">d", 1e9) + b"\0\1", False)]
    frames += [header(2, 5, struct.pack(">ib", -1, 0) + one + text(b"seeds") + one + struct.pack(">iiq", 0, -1, -1), False)]
    return frames


def mutate(frame: bytes, others: list[bytes], chance: random.Random) -> bytes:
    data = bytearray(frame)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(9):
            case 0 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del data[at:]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 64))
            case 4:
                # A count or a length that nobody can have.
                data[at : at + 4] = struct.pack(">i", chance.choice([-2, -1, 0x7FFFFFFF, 0x00FFFFFF, 1 << 20, 65536]))
            case 5:
                data[at : at + 5] = b"\xff\xff\xff\xff\x0f"
            case 6:
                piece = data[at : at + chance.randrange(1, 32)]
                data[at:at] = piece * chance.randrange(1, 50)
            case 7:
                other = chance.choice(others)
                data[at:] = other[min(at, len(other)) :]
            case 8 if len(data) >= 4:
                data[2:4] = struct.pack(">h", chance.randrange(0, 20))
    return bytes(data[:FRAME_BYTES_MAX])


def arbitrary(chance: random.Random) -> bytes:
    body = chance.choice([b"\0", b"\xff", b"\x01", b"\x7f", None])
    size = chance.randrange(0, 200)
    content = chance.randbytes(size) if body is None else body * size
    return header(chance.choice(API_KEYS), chance.randrange(0, 20), content, chance.random() < 0.5)


def log_in(connection: socket.socket) -> bool:
    """Authenticates by PLAIN; false if the broker has hung up."""
    token = f"\0{OWNER}\0{OWNER}".encode()
    for key, version, body in [(17, 1, struct.pack(">h", 5) + b"PLAIN"), (36, 0, struct.pack(">i", len(token)) + token)]:
        frame = header(key, version, body, False)
        try:
            connection.sendall(struct.pack(">i", len(frame)) + frame)
            length = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))[0]
            answer = connection.recv(length, socket.MSG_WAITALL)
        except (OSError, struct.error):
            return False
        if answer[4:6] != b"\0\0":
            raise RuntimeError(f"the owner is not let in: {answer!r}")
    return True


class Attacker(threading.Thread):
    """One connection after the other, each until the broker ends it."""

    def __init__(self, port: int, seeds: list[bytes], seed: int, until: float, is_owner: bool):
        super().__init__(daemon=True)
        self.is_owner = is_owner
        self.port, self.seeds, self.chance, self.until = port, seeds, random.Random(seed), until
        self.sent = self.connections = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                self.attack()
        except BaseException as error:  # noqa: BLE001
            self.failure = error

    def attack(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            self.connections += 1
            if self.is_owner and not log_in(connection):
                return
            for _ in range(self.chance.randrange(1, 200)):
                frame = mutate(self.chance.choice(self.seeds), self.seeds, self.chance) if self.chance.random() < 0.8 else arbitrary(self.chance)
                if not self.is_owner and len(frame) >= 2 and struct.unpack(">h", frame[:2])[0] in DESTRUCTIVE:
                    continue
                if VICTIM.encode() in frame:
                    continue
                length = len(frame) if self.chance.random() < 0.98 else self.chance.choice([-1, 0x7FFFFFFF, len(frame) + 7, 0])
                try:
                    connection.sendall(struct.pack(">i", length) + frame)
                    self.sent += 1
                    # Answers are taken as they come, so that the broker has no reason to wait.
                    connection.setblocking(False)
                    try:
                        while connection.recv(1 << 16):
                            pass
                        return
                    except BlockingIOError:
                        pass
                    finally:
                        connection.settimeout(10)
                except OSError:
                    return
                if time.monotonic() >= self.until:
                    return


class Bystander(threading.Thread):
    """Produces numbered records and consumes them again, in order and whole."""

    def __init__(self, bootstrap: str):
        super().__init__(daemon=True)
        self.bootstrap = bootstrap
        self.stopping = threading.Event()
        self.produced = self.consumed = 0
        self.problems: list[str] = []

    def run(self) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 5})
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": VICTIM, "auto.offset.reset": "earliest", "session.timeout.ms": 10000})
        consumer.assign([TopicPartition(VICTIM, 0, 0)])

        def delivered(error, message) -> None:
            if error:
                self.problems.append(f"not acknowledged: {error}")

        def take(message) -> None:
            if message is None:
                return
            if message.error():
                self.problems.append(f"fetch: {message.error()}")
                return
            expected = f"{self.consumed:012d}"
            if message.value().decode() != expected:
                self.problems.append(f"{expected} was expected and {message.value()!r} came")
            self.consumed += 1

        while not self.stopping.is_set():
            for _ in range(20):
                producer.produce(VICTIM, f"{self.produced:012d}", on_delivery=delivered)
                self.produced += 1
            producer.flush(30)
            take(consumer.poll(0.01))
            for message in consumer.consume(50, 0.05):
                take(message)
            consumer.commit(asynchronous=True)
        producer.flush(30)
        deadline = time.monotonic() + 60
        while self.consumed < self.produced and time.monotonic() < deadline:
            take(consumer.poll(1))
        consumer.close()


def give_rights(admin: AdminClient, port: int) -> None:
    """The owner may do everything to what is its own, and change little of it at a time."""
    kinds = [ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID]
    entries = [AclBinding(kind, OWNED, ResourcePatternType.PREFIXED, f"User:{OWNER}", "*", AclOperation.ALL, AclPermissionType.ALLOW) for kind in kinds]
    cluster = [AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.IDEMPOTENT_WRITE]
    entries += [AclBinding(ResourceType.BROKER, "kafka-cluster", ResourcePatternType.LITERAL, f"User:{OWNER}", "*", operation, AclPermissionType.ALLOW) for operation in cluster]
    for future in admin.create_acls(entries).values():
        future.result()
    # librdkafka has no call for quotas.
    text = lambda value: struct.pack(">h", len(value)) + value  # noqa: E731
    one = struct.pack(">i", 1)
    quota = one + one + text(b"user") + text(OWNER.encode()) + one + text(b"controller_mutation_rate") + struct.pack(">d", OWNER_MUTATIONS) + b"\0\0"
    frame = header(49, 0, quota, False)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        length = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))[0]
        answer = connection.recv(length, socket.MSG_WAITALL)
    # Correlation id, throttle time, and one entry, which begins with its error code.
    if answer[12:14] != b"\0\0":
        raise RuntimeError(f"the owner's quota is refused: {answer!r}")


def status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise SystemExit(f"no {name} for {pid}")


# The bystander's clients and the administrator's may still be connected at the end.
SOCKETS_OF_OTHERS = 8


def sockets(pid: int) -> int:
    """Open sockets of a process; files are not counted, since logs of topics that mutations create stay open."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--long", action="store_true", help="an hour")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rss-mb", type=int, default=400, help="the budget of memory")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    arguments = parser.parse_args()
    seconds = 3600 if arguments.long else arguments.seconds
    print(f"seed {arguments.seed}, {seconds} s", flush=True)
    with Workspace("fuzz", arguments.keep) as workspace:
        recorder = Recorder()
        # All clients go through the recorder, because that is the address they are told.
        limited_port = free_port()
        settings = {"queued.max.request.bytes": str(64 << 20), "fleuve.receive.timeout.ms": "5000", "group.initial.rebalance.delay.ms": "0"}
        broker = workspace.broker("fleuve", settings)
        port = broker.port = free_port(limited_port + 1)
        settings |= {
            "listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{limited_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{recorder.port},SASL_PLAINTEXT://127.0.0.1:{limited_port}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{OWNER}="{OWNER}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        broker.settings = settings
        broker.start()
        # It names the owner's listener last.
        recorder.target = broker.port = port
        seeds = [frame for frame in collect(recorder) + direct_frames() if len(frame) >= 8]
        kinds = sorted({struct.unpack(">h", frame[:2])[0] for frame in seeds})
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(VICTIM, 1, 1)])[VICTIM].result()
        give_rights(admin, broker.port)
        pid = broker.pid
        before_rss, before_sockets = status(pid, "VmRSS") // 1024, sockets(pid)
        bystander = Bystander(broker.bootstrap)
        bystander.start()
        until = time.monotonic() + seconds
        attackers = [Attacker(limited_port if index % 2 else broker.port, seeds, arguments.seed + index, until, bool(index % 2)) for index in range(CONNECTIONS)]
        for attacker in attackers:
            attacker.start()
        peak = before_rss
        while any(attacker.is_alive() for attacker in attackers):
            time.sleep(0.5)
            broker.check_alive()
            peak = max(peak, status(pid, "VmRSS") // 1024)
        bystander.stopping.set()
        bystander.join(120)
        deadline = time.monotonic() + SETTLE_SECONDS
        while sockets(pid) > before_sockets + SOCKETS_OF_OTHERS and time.monotonic() < deadline:
            time.sleep(0.2)
        after_rss, after_sockets = status(pid, "VmRSS") // 1024, sockets(pid)
        broker.stop()
        with open(broker.log_path, errors="replace") as log:
            faults = [line.rstrip() for line in log if "panicked" in line or " ERROR " in line]
        failures = [f"attacker: {attacker.failure!r}" for attacker in attackers if attacker.failure]
        failures += faults[:5] + bystander.problems[:5]
        if bystander.is_alive() or bystander.consumed != bystander.produced:
            failures.append(f"the bystander consumed {bystander.consumed} of {bystander.produced} records")
        if after_sockets > before_sockets + SOCKETS_OF_OTHERS:
            failures.append(f"{after_sockets} sockets open, {before_sockets} before")
        if peak > arguments.rss_mb:
            failures.append(f"{peak} MB of memory, more than {arguments.rss_mb}")
        print(f"{sum(a.sent for a in attackers)} frames from {len(seeds)} seeds of {len(kinds)} APIs over {sum(a.connections for a in attackers)} connections")
        print(f"memory {before_rss} MB before, {peak} peak, {after_rss} after; sockets {before_sockets} before, {after_sockets} after")
        print(f"bystander: {bystander.produced} records produced, {bystander.consumed} consumed in order")
        for failure in failures:
            print(f"FAILED {failure}")
        if failures:
            raise RuntimeError(f"run again with --seed {arguments.seed}")
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
