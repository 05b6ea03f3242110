"""The broker under test, as a process: Fleuve, or Apache Kafka as the oracle, or one that already runs.

All drivers take `--broker fleuve|kafka|kafka3|cluster|HOST:PORT`. A check that fails against Apache Kafka is a wrong check.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FLEUVE_CACHE", ROOT / ".cache"))
KAFKA_VERSION = "4.3.1"
KAFKA_LIBS = CACHE / "kafka" / KAFKA_VERSION / "libs"
# The last Kafka 3, for clients that are to work with it too.
KAFKA3_VERSION = "3.9.1"
# Only a deadline: on a busy machine three JVMs take more than a minute.
READY_SECONDS_MAX = 180
STOP_SECONDS_MAX = 30


class BrokerFailed(Exception):
    """The broker did not start, stop or stay up; the message carries the end of its log."""


def free_port(first: int = 0) -> int:
    """A port that is free now, below the range from which the kernel takes outgoing ones."""
    for port in range(first or 20000 + os.getpid() % 10000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise BrokerFailed("no free port below 32000")


def fleuve(*arguments: str) -> str:
    """Runs our command-line tool against whichever broker, and returns what it printed."""
    binary = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))
    ended = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=READY_SECONDS_MAX)
    if ended.returncode:
        raise RuntimeError(f"fleuve {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr[-500:]}")
    return ended.stdout


class Broker:
    """One broker process with its data directory; restartable on the same port."""

    name = "?"

    def __init__(self, data: Path, settings: dict[str, str]):
        self.data = data
        # A setting's value may say {port}, for those that name the broker's own address.
        self.settings = dict(settings)
        # Chosen at the first start unless set before it, and kept over restarts.
        self.port = 0
        # Where the controller listens, if it does.
        self.controller = 0
        self.prepared = False
        # Put before the broker's command, for pinning it to cores.
        self.command_prefix: list[str] = []
        self.process: subprocess.Popen | None = None
        self.stop_seconds_max: float = STOP_SECONDS_MAX
        self.log_path = data.with_name(data.name + ".broker.log")

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        """Work before the first start that is not part of starting (formatting, choosing a port)."""

    def spawn(self) -> None:
        """Starts the process without waiting for it to be ready."""
        if not self.prepared:
            self.prepare()
            self.prepared = True
        self.data.parent.mkdir(parents=True, exist_ok=True)
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen([*self.command_prefix, *self.command()], stdout=subprocess.PIPE, stderr=log, cwd=self.data.parent)
        log.close()

    def start(self) -> "Broker":
        """Starts the process and returns once it accepts connections."""
        self.spawn()
        self.await_ready()
        return self

    def await_ready(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Clean shutdown, by SIGTERM."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: nothing of the broker's own gets to run."""
        self._end(signal.SIGKILL)

    def end_hard(self) -> None:
        """Waits a little for a process that was asked to end, and kills it."""
        process, self.process = self.process, None
        if process is not None:
            try:
                process.wait(self.stop_seconds_max)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is not None:
            raise BrokerFailed(f"{self.name} had already ended by itself with {process.returncode}\n{self.log_tail()}")
        process.send_signal(how)
        try:
            process.wait(self.stop_seconds_max)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BrokerFailed(f"{self.name} did not stop within {self.stop_seconds_max:.0f} s of {how.name}\n{self.log_tail()}")

    def check_alive(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            raise BrokerFailed(f"{self.name} ended by itself with {self.process.returncode}\n{self.log_tail()}")

    def log_tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def _drain(self) -> None:
        """Keeps a chatty broker from blocking on a full pipe."""
        stream = self.process.stdout

        def copy() -> None:
            with stream, open(self.log_path, "ab") as log:
                for line in stream:
                    log.write(line)

        threading.Thread(target=copy, daemon=True).start()


class Fleuve(Broker):
    """Our broker, as a release build, driven by the command-line contract."""

    name = "fleuve"

    def __init__(self, data: Path, settings: dict[str, str]):
        super().__init__(data, settings)
        self.binary = Path(os.environ.get("FLEUVE_BINARY", ROOT / "target" / "release" / "fleuve"))

    def prepare(self) -> None:
        if not self.binary.exists():
            raise BrokerFailed(f"{self.binary} is missing: run 'cargo build --release --bin fleuve' first")
        if not self.port and any("{port}" in value for value in self.settings.values()):
            self.port = free_port()

    def command(self) -> list[str]:
        command = [str(self.binary), "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(self.data)]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}".replace("{port}", str(self.port))]
        return command

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            line = self.process.stdout.readline().decode(errors="replace")
            if not line:
                self.process.wait()
                raise BrokerFailed(f"fleuve ended with {self.process.returncode} before it was ready\n{self.log_tail()}")
            with open(self.log_path, "a") as log:
                log.write(line)
            if line.startswith("listening controller "):
                self.controller = int(line.split()[2].rsplit(":", 1)[1])
            if line.startswith("listening kafka "):
                self.port = int(line.split()[2].rsplit(":", 1)[1])
            if line.startswith("ready in "):
                break
            if time.monotonic() > deadline:
                raise BrokerFailed(f"fleuve was not ready within {READY_SECONDS_MAX} s\n{self.log_tail()}")
        self._drain()


class Kafka(Broker):
    """Apache Kafka from its Maven jars: one KRaft node, broker and controller in one process."""

    name = "kafka"
    heap = "1G"
    libs = KAFKA_LIBS

    @classmethod
    def java(cls, *arguments: str) -> list[str]:
        """A java command; JVM options may come first among the arguments."""
        logging = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}"
        return ["java", logging, "-cp", f"{cls.libs}/*", *arguments]

    def prepare(self) -> None:
        if not self.libs.exists():
            raise BrokerFailed(f"Apache Kafka's jars are missing in {self.libs}: run scripts/setup.sh {self.name} first")
        self.port = self.port or free_port()
        controller = self.controller = free_port(self.port + 1)
        self.properties = self.data.with_name(self.data.name + ".properties")
        self.properties.write_text(
            "process.roles=broker,controller\nnode.id=1\n"
            f"controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}\n"
            "controller.listener.names=CONTROLLER\n"
            f"log.dirs={self.data}\n"
            "offsets.topic.replication.factor=1\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
            "share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n"
            # Of a key that occurs twice, the last one counts.
            + "".join(f"{key}={value}\n".replace("{port}", str(self.port)) for key, value in self.settings.items())
        )
        if not (self.data / "meta.properties").exists():
            identity = "AAAAAAAAQACAAAAAAAAAAQ"
            formatted = subprocess.run(
                self.java("kafka.tools.StorageTool", "format", "-t", identity, "-c", str(self.properties), "--standalone"),
                capture_output=True,
                text=True,
            )
            if formatted.returncode:
                raise BrokerFailed(f"formatting Kafka's storage failed:\n{formatted.stdout}{formatted.stderr}")

    def command(self) -> list[str]:
        return self.java(f"-Xms{self.heap}", f"-Xmx{self.heap}", "-XX:+UseG1GC", "kafka.Kafka", str(self.properties))

    def await_ready(self) -> None:
        self._drain()
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise BrokerFailed(f"kafka was not ready within {READY_SECONDS_MAX} s\n{self.log_tail()}")


class Kafka3(Kafka):
    """The last Kafka 3, one KRaft node."""

    name = "kafka3"
    libs = CACHE / "kafka" / KAFKA3_VERSION / "libs"


class ClusterNode(Kafka):
    """One of the nodes of a `Cluster`."""

    heap = "256m"

    def __init__(self, data: Path, settings: dict[str, str], number: int, voters: str, ports: tuple[int, int]):
        super().__init__(data, settings)
        self.number, self.voters = number, voters
        self.port, self.controller = ports

    def prepare(self) -> None:
        if not self.libs.exists():
            raise BrokerFailed(f"Apache Kafka's jars are missing in {self.libs}: run scripts/setup.sh kafka first")
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": self.voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data),
            "broker.rack": f"rack{self.number}",
            "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
            "default.replication.factor": "3",
            "min.insync.replicas": "2",
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.num.partitions": "5",
            "share.coordinator.state.topic.num.partitions": "5",
            # A killed leader is to be missed soon.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "controlled.shutdown.enable": "false",
            # The usual 128 MiB are half of the heap, and once in hundreds of restarts there was not so much.
            "log.cleaner.dedupe.buffer.size": str(16 << 20),
            **self.settings,
        }
        self.properties = self.data.with_name(self.data.name + ".properties")
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = self.java("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAQ", "-c", str(self.properties))
        formatted = subprocess.run(command, capture_output=True, text=True)
        if formatted.returncode:
            raise BrokerFailed(f"formatting Kafka's storage failed:\n{formatted.stdout}{formatted.stderr}")


class Cluster(Broker):
    """Three nodes of Apache Kafka in racks of their own, each broker and controller."""

    name = "cluster"
    nodes_count = 3

    def __init__(self, data: Path, settings: dict[str, str]):
        super().__init__(data, settings)
        first = free_port()
        ports = []
        for _ in range(2 * self.nodes_count):
            ports.append(free_port(max([first, *[port + 1 for port in ports]])))
        pairs = list(zip(ports[::2], ports[1::2]))
        voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in enumerate(pairs, 1))
        self.nodes = [ClusterNode(data.with_name(f"{data.name}-{number}"), settings, number, voters, pair) for number, pair in enumerate(pairs, 1)]
        self.port = pairs[0][0]

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self) -> "Cluster":
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.await_ready()
        return self

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.process.terminate()
        for node in self.nodes:
            node.end_hard()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


class External(Broker):
    """A broker somebody else runs: it can be tested, but not restarted."""

    name = "external"

    def __init__(self, address: str):
        super().__init__(Path(tempfile.gettempdir()) / "external", {})
        self.port = int(address.rsplit(":", 1)[1])
        self.address = address

    @property
    def bootstrap(self) -> str:
        return self.address

    def start(self) -> "Broker":
        return self

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        raise BrokerFailed("an external broker cannot be killed from here: use --broker fleuve or --broker kafka")


class Workspace:
    """A scratch folder that vanishes at the end unless the run failed or asked to keep it."""

    def __init__(self, label: str, keep: bool = False):
        base = Path(os.environ.get("FLEUVE_SCRATCH", CACHE / "scratch"))
        base.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=f"{label}-", dir=base))
        self.keep = keep
        self.brokers: list[Broker] = []

    def broker(self, which: str, settings: dict[str, str] | None = None, data: str = "data") -> Broker:
        """The broker that `--broker` names, not yet started."""
        settings = settings or {}
        if which == "fleuve":
            broker: Broker = Fleuve(self.path / data, settings)
        elif which == "kafka":
            broker = Kafka(self.path / data, settings)
        elif which == "kafka3":
            broker = Kafka3(self.path / data, settings)
        elif which == "cluster":
            broker = Cluster(self.path / data, settings)
            self.brokers += broker.nodes
        elif ":" in which:
            broker = External(which)
        else:
            raise SystemExit(f"--broker {which}: expected fleuve, kafka, kafka3, cluster or HOST:PORT")
        self.brokers.append(broker)
        return broker

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, kind, error, trace) -> None:
        for broker in self.brokers:
            if broker.process is not None and broker.process.poll() is None:
                broker.process.kill()
                broker.process.wait()
        if self.keep or (kind is not None and kind not in (SystemExit, KeyboardInterrupt)):
            print(f"kept for inspection: {self.path}", file=sys.stderr)
        else:
            shutil.rmtree(self.path, ignore_errors=True)


def add_broker_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", default="fleuve", metavar="fleuve|kafka|kafka3|cluster|HOST:PORT", help="the broker under test")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
