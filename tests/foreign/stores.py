#!/usr/bin/env python3
"""Keystores of every kind, and certificates that change while the broker runs.

    tests/foreign/stores.py [--keep]

OpenSSL and Java's keytool write the stores, Apache's tool asks the running broker to open a listener and to read a
certificate again; Python's TLS looks at what is presented. One line per check; the last line is the sum.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import KAFKA_LIBS, Fleuve, Workspace, free_port  # noqa: E402

LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
# Never to be seen in a log.
PASSWORD = "swordfish-4711"
KINDS = ["pem", "locked", "p12", "java", "jks"]
DEADLINE_SECONDS = 30

passed = failed = 0


def note(good: bool, text: str) -> None:
    global passed, failed
    passed += good
    failed += not good
    print(f"{'ok' if good else 'FAILED':6} {text}", flush=True)


def run(directory: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def make_certificate(directory: Path, name: str, subject: str = "", alternative: str = "DNS:localhost") -> None:
    """A key with a certificate of its own signing, as NAME.key, NAME.crt and NAME.pem; its subject is NAME unless another is given."""
    run(directory, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={subject or name}", "-addext", f"subjectAltName={alternative}")
    (directory / f"{name}.pem").write_text((directory / f"{name}.key").read_text() + (directory / f"{name}.crt").read_text())


def make_stores(directory: Path) -> dict[str, dict[str, str]]:
    """A store of each kind, each with a certificate of its own; and the keys that name it."""
    for name in [*KINDS, "authority", "door"]:
        make_certificate(directory, name)
    run(directory, "openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "client.key", "-out", "client.csr", "-subj", "/CN=client")
    (directory / "client.ext").write_text("basicConstraints=CA:FALSE\n")
    run(directory, "openssl", "x509", "-req", "-in", "client.csr", "-CA", "authority.crt", "-CAkey", "authority.key", "-CAcreateserial", "-out", "client.crt", "-days", "2", "-extfile", "client.ext")
    run(directory, "openssl", "pkcs8", "-topk8", "-in", "locked.key", "-out", "locked.p8", "-v2", "aes-256-cbc", "-passout", f"pass:{PASSWORD}")
    (directory / "locked.pem").write_text((directory / "locked.p8").read_text() + (directory / "locked.crt").read_text())
    for name in ["p12", "java", "jks"]:
        run(directory, "openssl", "pkcs12", "-export", "-in", f"{name}.crt", "-inkey", f"{name}.key", "-name", "server", "-out", f"{name}.p12", "-passout", f"pass:{PASSWORD}")
    for name, kind in [("java", "PKCS12"), ("jks", "JKS")]:
        run(directory, "keytool", "-importkeystore", "-srckeystore", f"{name}.p12", "-srcstoretype", "PKCS12", "-srcstorepass", PASSWORD, "-destkeystore", f"{name}.store", "-deststoretype", kind, "-deststorepass", PASSWORD)
        run(directory, "keytool", "-importcert", "-noprompt", "-file", "authority.crt", "-alias", "authority", "-keystore", f"{name}.trust", "-storetype", kind, "-storepass", PASSWORD)
    store = lambda file, kind: {"ssl.keystore.location": str(directory / file), "ssl.keystore.type": kind}  # noqa: E731
    lock = {"ssl.keystore.password": PASSWORD}
    trust = lambda file, kind: {"ssl.truststore.location": str(directory / file), "ssl.truststore.type": kind, "ssl.truststore.password": PASSWORD, "ssl.client.auth": "required"}  # noqa: E731
    return {
        "pem": store("pem.pem", "PEM"),
        "locked": {**store("locked.pem", "PEM"), "ssl.key.password": PASSWORD},
        "p12": {**store("p12.p12", "PKCS12"), **lock},
        "java": {**store("java.store", "PKCS12"), **lock, **trust("java.trust", "PKCS12")},
        "jks": {**store("jks.store", "JKS"), **lock, **trust("jks.trust", "JKS")},
    }


def context_of(directory: Path, certificate: str | None) -> ssl.SSLContext:
    """TLS that believes everything and shows a certificate, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(directory / f"{certificate}.crt", directory / f"{certificate}.key")
    return context


def visit(directory: Path, port: int, certificate: str | None = None) -> tuple[bytes | None, str]:
    """What the HTTP door presents, and its answer to who wants to see the metrics; nothing if it does not want us."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as raw, context_of(directory, certificate).wrap_socket(raw) as wrapped:
            wrapped.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while data := wrapped.recv(1 << 16):
                answer += data
            return wrapped.getpeercert(True), answer.decode()
    except OSError:
        return None, answer.decode()


def presented(directory: Path, port: int, certificate: str | None = None) -> bytes | None:
    """The certificate that the broker presents, in DER; none if it does not want us."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as raw, context_of(directory, certificate).wrap_socket(raw) as wrapped:
            # ApiVersions version 0: with TLS 1.3 a refusal comes only after the handshake.
            wrapped.sendall(bytes.fromhex("0000000a" "0012" "0000" "00000001" "ffff"))
            return wrapped.getpeercert(True) if wrapped.recv(4) else None
    except OSError:
        return None


def alter(broker: Fleuve, *config: str) -> str:
    done = subprocess.run([*JAVA, "kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--entity-type", "brokers", "--entity-name", "1", "--alter", *config], capture_output=True, text=True)
    return done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    arguments = parser.parse_args()
    with Workspace("stores", arguments.keep) as workspace:
        directory = workspace.path
        stores = make_stores(directory)
        der = lambda name: ssl.PEM_cert_to_DER_cert((directory / f"{name}.crt").read_text())  # noqa: E731
        ports: dict[str, int] = {}
        first = 0
        for name in ["plain", "later", "door", *KINDS]:
            ports[name] = first = free_port(first + 1 if first else 0)
        listeners = [f"PLAINTEXT://127.0.0.1:{ports['plain']}", *(f"{name.upper()}://127.0.0.1:{ports[name]}" for name in KINDS)]
        protocols = "PLAINTEXT:PLAINTEXT,LATER:SSL," + ",".join(f"{name.upper()}:SSL" for name in KINDS)
        settings = {"listeners": ",".join(listeners), "listener.security.protocol.map": protocols}
        for name, keys in stores.items():
            settings |= {f"listener.name.{name}.{key}": value for key, value in keys.items()}
        # The HTTP door takes the kinds that it does not name itself from what holds for all.
        settings |= {
            "ssl.keystore.type": "PEM",
            "fleuve.metrics.listen": f"127.0.0.1:{ports['door']}",
            "fleuve.http.security.protocol": "SSL",
            "fleuve.http.authentication": "all",
            "fleuve.http.ssl.keystore.location": str(directory / "door.pem"),
            "fleuve.http.ssl.truststore.location": str(directory / "authority.crt"),
            "fleuve.http.ssl.truststore.type": "PEM",
            "fleuve.http.ssl.client.auth": "requested",
        }
        file = directory / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        broker = Fleuve(workspace.path / "data", {})
        # Several listeners come from a file; the command line would replace them by one.
        broker.command = lambda: [str(broker.binary), "serve", "--config", str(file), "--data-dir", str(broker.data)]  # type: ignore[method-assign]
        workspace.brokers.append(broker)
        broker.start()
        broker.port = ports["plain"]
        for name in ["pem", "locked", "p12"]:
            note(presented(directory, ports[name]) == der(name), f"a store of kind {name} is opened")
        for name in ["java", "jks"]:
            note(presented(directory, ports[name], "client") == der(name), f"keystore and truststore of kind {name}: a client with a trusted certificate gets in")
            note(presented(directory, ports[name], "p12") is None, f"truststore of kind {name}: one with another certificate does not")

        certificate, answer = visit(directory, ports["door"])
        note(certificate == der("door") and answer.startswith("HTTP/1.1 401"), f"the HTTP door speaks TLS, and does not know who shows nothing: {answer[:30]!r}")
        certificate, answer = visit(directory, ports["door"], "client")
        note(certificate == der("door") and "kafka_server_kafkaserver_brokerstate 3" in answer, f"who shows a trusted certificate sees the metrics: {answer[:30]!r}")
        certificate, answer = visit(directory, ports["door"], "p12")
        note(not answer, f"who shows another is not heard: {answer[:30]!r}")
        make_certificate(directory, "newdoor")
        shutil.copy(directory / "newdoor.pem", directory / "door.pem")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while visit(directory, ports["door"])[0] != der("newdoor") and time.monotonic() < deadline:
            time.sleep(0.2)
        note(visit(directory, ports["door"])[0] == der("newdoor"), "a certificate of the HTTP door that changes is read by itself")
        (directory / "door.pem").write_text("no certificate")

        make_certificate(directory, "stranger")
        make_certificate(directory, "nameless", "pem", "DNS:elsewhere")
        for name, why in [("stranger", "Keystore DistinguishedName does not match: existing=CN=pem, new=CN=stranger"), ("nameless", "Keystore SubjectAltNames do not match")]:
            said = alter(broker, "--add-config", f"listener.name.pem.ssl.keystore.location={directory / f'{name}.pem'}")
            note(why in said and presented(directory, ports["pem"]) == der("pem"), f"{name}'s certificate does not take the place of another's: {said.strip()[:150]}")
        make_certificate(directory, "fresh", "pem", "DNS:localhost,DNS:elsewhere")
        shutil.copy(directory / "fresh.pem", directory / "pem.pem")
        location = f"listener.name.pem.ssl.keystore.location={directory / 'pem.pem'}"
        said = alter(broker, "--add-config", location)
        note(presented(directory, ports["pem"]) == der("fresh"), f"the same location set again reads the certificate again: {said.strip()[:100]}")
        make_certificate(directory, "newer", "pem", "DNS:localhost,DNS:elsewhere,DNS:more")
        shutil.copy(directory / "newer.pem", directory / "pem.pem")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while presented(directory, ports["pem"]) != der("newer") and time.monotonic() < deadline:
            time.sleep(0.2)
        note(presented(directory, ports["pem"]) == der("newer"), "a file that changes is read by itself")
        (directory / "broken.pem").write_text("no certificate")
        said = alter(broker, "--add-config", f"listener.name.pem.ssl.keystore.location={directory / 'broken.pem'}")
        note("holds no certificate" in said and presented(directory, ports["pem"]) == der("newer"), "a store that cannot be used is refused, and the old one stays")

        # By now it has been looked at.
        note(visit(directory, ports["door"])[0] == der("newdoor"), "one that cannot be used changes nothing")
        more = ",".join([*listeners, f"LATER://127.0.0.1:{ports['later']}"])
        keys = [f"listener.name.later.{key}={value}" for key, value in stores["p12"].items()]
        said = alter(broker, "--add-config", ",".join([f"listeners=[{more}]", *keys]))
        note(presented(directory, ports["later"]) == der("p12"), f"a listener with TLS is opened by Apache's tool: {said.strip()[:100]}")
        described = subprocess.run([*JAVA, "kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--entity-type", "brokers", "--entity-name", "1", "--describe"], capture_output=True, text=True).stdout
        note("listener.name.later.ssl.keystore.password" in described and PASSWORD not in described, "passwords are named and not shown")
        alter(broker, "--delete-config", "listeners")
        note(presented(directory, ports["later"]) is None, "and closed again")
        broker.stop()
        note(PASSWORD not in broker.log_path.read_text(), "no password is in the log")
    print(f"{passed} checks passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
