#!/usr/bin/env python3
"""TLS and SASL with foreign clients: who gets in by every mechanism, and who is refused, and how.

    tests/foreign/security.py [--keep]

librdkafka, kafka-python, Apache's tools and `fleuve` itself, and bare sockets for what no client does. One line per
check; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, KAFKA_LIBS, Fleuve, Workspace, free_port  # noqa: E402

PYTHON = CACHE / "venv" / "bin" / "python"
if os.environ.get("VIRTUAL_ENV_PYTHON") != "1" and PYTHON.exists() and Path(sys.executable) != PYTHON:
    os.execve(PYTHON, [str(PYTHON), *sys.argv], {**os.environ, "VIRTUAL_ENV_PYTHON": "1", "PYTHONDONTWRITEBYTECODE": "1"})

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer  # noqa: E402
from confluent_kafka.admin import (  # noqa: E402
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka import KafkaProducer  # noqa: E402

LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
JAAS = "org.apache.kafka.common.security"
LOGIN = {"PLAIN": f"{JAAS}.plain.PlainLoginModule", "SCRAM-SHA-256": f"{JAAS}.scram.ScramLoginModule", "SCRAM-SHA-512": f"{JAAS}.scram.ScramLoginModule"}
# PLAIN knows its users from the configuration, SCRAM from the metadata.
USER = {"PLAIN": ("ada", "lovelace"), "SCRAM-SHA-256": ("grace", "hopper"), "SCRAM-SHA-512": ("grace", "hopper")}
TOPIC = "security"
PREAUTH_BYTES_MAX = 524_288

passed = failed = 0


def note(good: bool, text: str) -> None:
    global passed, failed
    passed += good
    failed += not good
    print(f"{'ok' if good else 'FAILED':6} {text}", flush=True)


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def make_certificates(directory: Path) -> None:
    """An authority, certificates that it signed for the broker and a client, and one that nobody signed."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(directory, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    openssl(directory, "req", "-x509", *curve, "-keyout", "stranger.key", "-out", "stranger.crt", "-days", "2", "-subj", "/CN=stranger")
    (directory / "extensions").write_text("subjectAltName=DNS:localhost\n")
    for name in ["server", "client"]:
        openssl(directory, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=Fleuve/CN={name}")
        openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "extensions")
    (directory / "server.pem").write_text((directory / "server.key").read_text() + (directory / "server.crt").read_text())


def settings(directory: Path, addresses: dict[str, str]) -> dict[str, str]:
    users = f'{LOGIN["PLAIN"]} required user_ada="lovelace";'
    return {
        "listeners": ",".join(f"{protocol}://{address}" for protocol, address in addresses.items()),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": users,
        "listener.name.sasl_ssl.plain.sasl.jaas.config": users,
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": f'{LOGIN["SCRAM-SHA-256"]} required;',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(directory / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "ca.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^CN=(.*),O=Fleuve$/$1/L,DEFAULT",
        "connection.failed.authentication.delay.ms": "10",
        "group.initial.rebalance.delay.ms": "0",
    }


def librdkafka(directory: Path, address: str, protocol: str, mechanism: str, user: tuple[str, str]) -> dict:
    configuration = {"bootstrap.servers": address, "security.protocol": protocol, "ssl.ca.location": str(directory / "ca.pem"), "log_level": 0}
    if mechanism:
        configuration |= {"sasl.mechanism": mechanism, "sasl.username": user[0], "sasl.password": user[1]}
    return configuration


def round_trip(configuration: dict, value: str) -> None:
    """Writes a value and reads it back, both with this configuration."""
    errors = []
    producer = Producer(configuration)
    producer.produce(TOPIC, value.encode(), on_delivery=lambda error, _: errors.append(error))
    left = producer.flush(15)
    consumer = Consumer(configuration | {"group.id": f"security-{value}", "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    found = False
    try:
        for _ in range(60):
            message = consumer.poll(0.5)
            found = message is not None and message.error() is None and message.value() == value.encode()
            if found:
                break
    finally:
        consumer.close()
    note(left == 0 and errors == [None] and found, f"librdkafka writes and reads: {value}")


def refusal(configuration: dict) -> KafkaError | None:
    """The first error that a client hears which cannot get in."""
    heard = []
    admin = AdminClient(configuration | {"error_cb": heard.append})
    for _ in range(20):
        admin.poll(0.25)
        if heard:
            return heard[0]
    return None


def check_librdkafka(directory: Path, addresses: dict[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": addresses["PLAINTEXT"]})
    for mechanism in [ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512]:
        change = UserScramCredentialUpsertion("grace", ScramCredentialInfo(mechanism, 4096), b"hopper")
        for future in admin.alter_user_scram_credentials([change]).values():
            future.result(15)
    for protocol in ["SASL_PLAINTEXT", "SASL_SSL"]:
        for mechanism, user in USER.items():
            reach = lambda user: librdkafka(directory, addresses[protocol], protocol, mechanism, user)  # noqa: E731
            round_trip(reach(user), f"{protocol}-{mechanism}")
            for who in [(user[0], "wrong"), ("nobody", user[1])]:
                error = refusal(reach(who))
                good = error is not None and error.code() == KafkaError._AUTHENTICATION and "Authentication failed" in error.str()
                note(good, f"librdkafka is refused: {protocol} {mechanism} as {who[0]}: {error}")
    ours = {"ssl.certificate.location": str(directory / "client.crt"), "ssl.key.location": str(directory / "client.key")}
    round_trip(librdkafka(directory, addresses["SSL"], "SSL", "", ("", "")) | ours, "SSL")
    strange = {"ssl.certificate.location": str(directory / "stranger.crt"), "ssl.key.location": str(directory / "stranger.key")}
    for what, certificate in [("no certificate", {}), ("a stranger's certificate", strange)]:
        error = refusal(librdkafka(directory, addresses["SSL"], "SSL", "", ("", "")) | certificate)
        note(error is not None, f"librdkafka is refused with {what}: {error}")


def check_kafka_python(directory: Path, addresses: dict[str, str]) -> None:
    for mechanism, (user, password) in USER.items():
        producer = KafkaProducer(bootstrap_servers=addresses["SASL_SSL"], security_protocol="SASL_SSL", ssl_cafile=str(directory / "ca.pem"), sasl_mechanism=mechanism, sasl_plain_username=user, sasl_plain_password=password)
        offset = producer.send(TOPIC, b"python").get(15).offset
        producer.close()
        note(offset >= 0, f"kafka-python writes by {mechanism}")


def properties(directory: Path, protocol: str, mechanism: str, user: str, password: str) -> Path:
    path = directory / f"{protocol}-{mechanism}-{user}-{password}.properties"
    path.write_text(
        f"security.protocol={protocol}\nsasl.mechanism={mechanism}\nssl.truststore.type=PEM\nssl.truststore.location={directory}/ca.pem\n"
        f'sasl.jaas.config={LOGIN[mechanism]} required username="{user}" password="{password}";\n'
    )
    return path


def check_tools(directory: Path, addresses: dict[str, str], binary: Path) -> None:
    """Apache's own client, and ours."""
    for name, command, flag in [
        ("kafka-topics", [*JAVA, "org.apache.kafka.tools.TopicCommand", "--list"], "--bootstrap-server"),
        ("fleuve topic list", [str(binary), "topic", "list"], "--bootstrap-server"),
    ]:
        for protocol, mechanism in [("SASL_SSL", "SCRAM-SHA-512"), ("SASL_PLAINTEXT", "PLAIN")]:
            user, password = USER[mechanism]
            for given, expected in [(password, TOPIC), ("wrong", "uthentication failed")]:
                if given == "wrong" and name == "kafka-topics" and mechanism == "PLAIN":
                    continue
                file = properties(directory, protocol, mechanism, user, given)
                done = subprocess.run([*command, flag, addresses[protocol], "--command-config", str(file)], capture_output=True, text=True, timeout=60)
                good = expected in done.stdout + done.stderr and (done.returncode == 0) == (given != "wrong")
                what = "gets in" if given != "wrong" else "is refused"
                note(good, f"{name} {what}: {protocol} {mechanism}" + ("" if good else f"\n{done.stdout}{done.stderr}"))


def frame(key: int, version: int, body: bytes) -> bytes:
    payload = struct.pack(">hhi", key, version, 7) + struct.pack(">h", -1) + body
    return struct.pack(">i", len(payload)) + payload


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def read_frame(connection: socket.socket) -> bytes | None:
    """The next frame without its length; None once the broker has hung up."""
    def read(count: int) -> bytes:
        data = b""
        while len(data) < count and (part := connection.recv(count - len(data))):
            data += part
        return data

    try:
        length = read(4)
        return read(struct.unpack(">i", length)[0]) if len(length) == 4 else None
    except ConnectionResetError:
        return None


def converse(address: str, *frames: bytes) -> list[bytes | None]:
    """Sends frames one by one, each after the answer to the one before."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        answers = []
        for sent in frames:
            connection.sendall(sent)
            answers.append(read_frame(connection))
        return answers


def check_sockets(addresses: dict[str, str]) -> None:
    sasl = addresses["SASL_PLAINTEXT"]
    metadata = frame(3, 1, struct.pack(">i", 0))
    versions = frame(18, 0, b"")
    note(converse(sasl, metadata) == [None], "who has not authenticated is not told of topics")
    answers = converse(sasl, versions, metadata)
    note(answers[0] is not None and answers[1] is None, "ApiVersions is answered before authentication, and nothing after it")
    handshake = frame(17, 1, text("PLAIN"))
    answers = converse(sasl, handshake, metadata)
    note(answers[0][4:6] == b"\0\0" and answers[1] is None, "nothing is served between handshake and authentication")
    note(converse(sasl, frame(36, 0, struct.pack(">i", 0))) == [None], "an exchange begins with its handshake")
    answers = converse(sasl, frame(17, 1, text("GSSAPI")), metadata)
    note(answers[0][4:6] == b"\0\x21" and b"SCRAM-SHA-512" in answers[0] and answers[1] is None, "a mechanism that is not served is answered with those that are (33)")
    declared = struct.pack(">i", PREAUTH_BYTES_MAX + 1)
    note(converse(sasl, declared) == [None], "a large frame before authentication ends the connection")

    def authenticate(password: str) -> bytes:
        token = f"\0ada\0{password}".encode()
        return frame(36, 0, struct.pack(">i", len(token)) + token)

    answers = converse(sasl, handshake, authenticate("wrong"), metadata)
    note(answers[1][4:6] == b"\0\x3a" and answers[2] is None, "a wrong password is answered with 58, and then the connection ends")
    answers = converse(sasl, handshake, authenticate("lovelace"), metadata, handshake, authenticate("lovelace"))
    note(TOPIC.encode() in answers[2] or len(answers[2]) > 8, "who has authenticated is served")
    note([answer[4:6] for answer in answers[3:]] == [b"\0\x22"] * 2, "a second exchange is answered with 34")
    token = b"\0ada\0lovelace"
    answers = converse(sasl, frame(17, 0, text("PLAIN")), struct.pack(">i", len(token)) + token, metadata)
    note(answers[1] == b"" and answers[2] is not None, "after handshake version 0 messages have no headers")
    token = b"\0ada\0wrong"
    answers = converse(sasl, frame(17, 0, text("PLAIN")), struct.pack(">i", len(token)) + token)
    note(answers[1] is None, "there, a wrong password ends the connection")
    note(converse(addresses["PLAINTEXT"], handshake)[0][4:6] == b"\0\x22", "a listener without SASL answers a handshake with 34")


def check_start(directory: Path, binary: Path) -> None:
    def start(*pairs: str) -> str:
        command = [str(binary), "serve", "--data-dir", str(directory / "refused")]
        for pair in pairs:
            command += ["--set", pair]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.stderr if done.returncode != 0 else ""

    note("fleuve.allow.unauthenticated.network=true" in start("listeners=PLAINTEXT://0.0.0.0:0", "advertised.listeners=PLAINTEXT://localhost:0"), "a start on every address without authentication is refused, with the way out")
    plain = ["listeners=SASL_PLAINTEXT://0.0.0.0:0", "advertised.listeners=SASL_PLAINTEXT://localhost:0", "sasl.enabled.mechanisms=PLAIN", "listener.name.sasl_plaintext.plain.sasl.jaas.config=X required user_a=hunter2;"]
    told = start(*plain)
    note("fleuve.allow.plain.without.tls" in told and "hunter2" not in told, "so is one that would send passwords in the clear")
    told = start("listeners=SSL://127.0.0.1:0", "ssl.keystore.type=PEM", f"ssl.keystore.location={directory}/nothing.pem")
    note("nothing.pem" in told, "a missing certificate is named")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    arguments = parser.parse_args()
    with Workspace("security", arguments.keep) as workspace:
        directory = workspace.path
        make_certificates(directory)
        addresses, port = {}, 0
        for protocol in ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
            port = free_port(port + 1 if port else 0)
            addresses[protocol] = f"localhost:{port}"
        broker = workspace.broker("fleuve", settings(directory, addresses))
        assert isinstance(broker, Fleuve)
        broker.start()
        check_librdkafka(directory, addresses)
        check_kafka_python(directory, addresses)
        check_tools(directory, addresses, broker.binary)
        check_sockets(addresses)
        check_start(directory, broker.binary)
        log = broker.log_path.read_text(errors="replace")
        secrets = ["lovelace", "hopper", "PRIVATE KEY"]
        note(not any(secret in log for secret in secrets), "the broker's log holds no secret")
        broker.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KafkaException as error:
        print(f"FAILED {error}")
        sys.exit(1)
