#!/usr/bin/env python3
"""The native client's suite against a broker of its own: Apache Kafka as the oracle, Fleuve's binary, or one that runs.

    tests/client/run.py --broker kafka [-- TEST...]      arguments after -- go to the test program
    tests/client/run.py --broker cluster --kill          three nodes, killed in turn while the tests named surviving run

Without this script `cargo test -p fleuve --test client` runs the same suite against an embedded broker, in process
and over TCP.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.broker import ROOT, Cluster, Fleuve, Kafka, Workspace, add_broker_argument, free_port  # noqa: E402

Kafka.heap = "384M"
# How long a killed node is away, and how long it has afterwards to become in sync again.
AWAY_SECONDS, BACK_SECONDS = 6.0, 10.0
KILLING_SECONDS = 60
SETTINGS = {"group.initial.rebalance.delay.ms": "0", "group.consumer.min.heartbeat.interval.ms": "500", "group.consumer.heartbeat.interval.ms": "500"}
JAAS = "org.apache.kafka.common.security"


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def make_certificates(directory: Path) -> None:
    """A certificate authority, and certificates that it signed for the broker and for a client."""
    openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    (directory / "extensions").write_text("subjectAltName=DNS:localhost\n")
    openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "client.key", "-out", "client.csr", "-subj", "/CN=ada")
    sign(directory, "client")
    (directory / "client.pem").write_text((directory / "client.key").read_text() + (directory / "client.crt").read_text())


def sign(directory: Path, name: str) -> None:
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "extensions")


def keytool(directory: Path, *arguments: str) -> None:
    subprocess.run(["keytool", "-J-Xmx64m", *arguments, "-noprompt"], cwd=directory, check=True, capture_output=True)


def make_stores(directory: Path) -> None:
    """What client.pem and ca.pem hold, in the stores of Java's tools."""
    password = ["-passin", "pass:changeit", "-passout", "pass:changeit"]
    openssl(directory, "pkcs12", "-export", "-inkey", "client.key", "-in", "client.crt", "-name", "client", "-out", "key.p12", *password)
    keytool(directory, "-importkeystore", "-srckeystore", "key.p12", "-srcstorepass", "changeit", "-destkeystore", "key.jks", "-deststoretype", "JKS", "-deststorepass", "changeit")
    for kind, end in [("PKCS12", "p12"), ("JKS", "jks")]:
        keytool(directory, "-importcert", "-alias", "ca", "-file", "ca.pem", "-keystore", f"trust.{end}", "-storetype", kind, "-storepass", "changeit")
    make_curve(directory, "server", "CN=localhost", "secp384r1")
    make_curve(directory, "curve", "CN=ada", "secp256r1")


def make_curve(directory: Path, name: str, subject: str, curve: str) -> None:
    """A key that keytool makes, and so without its public half, with a certificate of the authority."""
    store = ["-keystore", f"{name}.p12", "-storetype", "PKCS12", "-storepass", "changeit"]
    keytool(directory, "-genkeypair", "-alias", name, "-keyalg", "EC", "-groupname", curve, "-dname", subject, "-validity", "2", *store)
    keytool(directory, "-certreq", "-alias", name, "-file", f"{name}.csr", *store)
    sign(directory, name)
    keytool(directory, "-importcert", "-alias", "ca", "-file", "ca.pem", *store)
    keytool(directory, "-importcert", "-alias", name, "-file", f"{name}.crt", *store)


def secure_fleuve(broker: Fleuve, directory: Path) -> dict[str, str]:
    """Gives Fleuve listeners of every protocol, and returns where they are for the tests."""
    broker.port = port = free_port()
    addresses = {"PLAINTEXT": f"localhost:{port}"}
    for protocol in ["SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
        port = free_port(port + 1)
        addresses[protocol] = f"localhost:{port}"
    broker.settings |= {
        "listeners": ",".join(f"{protocol}://{address}" for protocol, address in addresses.items()),
        # Fleuve takes signed tokens only; those of an issuer are tried in tests/foreign/security.py.
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "connections.max.reauth.ms": "1500",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(directory / "server.p12"),
        "ssl.keystore.password": "changeit",
        "delegation.token.secret.key": "a secret of the tests",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "ca.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for listener in ["sasl_plaintext", "sasl_ssl"]:
        broker.settings[f"listener.name.{listener}.plain.sasl.jaas.config"] = f'{JAAS}.plain.PlainLoginModule required user_ada="lovelace";'
    return {f"FLEUVE_TEST_{protocol}": address for protocol, address in addresses.items()}


def secure_kafka(broker: Kafka, directory: Path) -> dict[str, str]:
    """Gives Apache Kafka listeners of every protocol, and returns where they are for the tests."""
    broker.prepare()
    broker.prepared = True
    port = broker.port + 10
    addresses = {}
    for protocol in ["SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
        port = free_port(port + 1)
        addresses[protocol] = f"localhost:{port}"
    lines = broker.properties.read_text().splitlines()
    listeners = next(line for line in lines if line.startswith("listeners="))
    lines.append(listeners + "".join(f",{protocol}://{address}" for protocol, address in addresses.items()))
    lines.append("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL")
    lines.append("sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER")
    for listener in ["sasl_plaintext", "sasl_ssl"]:
        lines.append(f'listener.name.{listener}.plain.sasl.jaas.config={JAAS}.plain.PlainLoginModule required user_ada="lovelace";')
        for mechanism in ["256", "512"]:
            lines.append(f"listener.name.{listener}.scram-sha-{mechanism}.sasl.jaas.config={JAAS}.scram.ScramLoginModule required;")
        lines.append(f'listener.name.{listener}.oauthbearer.sasl.jaas.config={JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";')
        lines.append(f"listener.name.{listener}.connections.max.reauth.ms=1500")
    lines += ["ssl.keystore.type=PKCS12", f"ssl.keystore.location={directory}/server.p12", "ssl.keystore.password=changeit"]
    lines += ["ssl.truststore.type=PEM", f"ssl.truststore.location={directory}/ca.pem", "delegation.token.secret.key=a secret of the tests"]
    lines.append("listener.name.ssl.ssl.client.auth=required")
    broker.properties.write_text("\n".join(lines) + "\n")
    return {"FLEUVE_TEST_UNSECURED_TOKENS": "yes", **{f"FLEUVE_TEST_{protocol}": address for protocol, address in addresses.items()}}


def secure(broker: Fleuve | Kafka, directory: Path) -> dict[str, str]:
    make_certificates(directory)
    make_stores(directory)
    places = secure_fleuve(broker, directory) if isinstance(broker, Fleuve) else secure_kafka(broker, directory)
    return {"FLEUVE_TEST_CERTIFICATES": str(directory), **places}


def encrypted(environment: dict[str, str], directory: Path) -> dict[str, str]:
    """The environment in which the whole suite goes over TLS, as a user that proves who it is."""
    properties = directory / "client.properties"
    properties.write_text(
        "security.protocol=SASL_SSL\nssl.truststore.type=PKCS12\nssl.truststore.password=changeit\n"
        f"ssl.truststore.location={directory}/trust.p12\nsasl.mechanism=PLAIN\n"
        f'sasl.jaas.config={JAAS}.plain.PlainLoginModule required username="ada" password="lovelace";\n'
    )
    plain = {key: value for key, value in environment.items() if key != "FLEUVE_TEST_CERTIFICATES"}
    return plain | {"FLEUVE_TEST_BROKER": environment["FLEUVE_TEST_SASL_SSL"], "FLEUVE_TEST_PROPERTIES": str(properties)}


def kill_in_turn(cluster: Cluster, over: threading.Event) -> None:
    """Kills one node after another and starts it again, so that every partition loses its leader."""
    turn = 0
    while not over.wait(BACK_SECONDS):
        node = cluster.nodes[turn % len(cluster.nodes)]
        node.kill()
        over.wait(AWAY_SECONDS)
        node.spawn()
        node.await_ready()
        turn += 1
    print(f"client: {turn} nodes were killed", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--secure", action="store_true", help="with TLS and SASL listeners: the tests named securing, then all over both")
    parser.add_argument("--program", help="a test program built before, instead of what cargo builds now")
    parser.add_argument("--kill", action="store_true", help="kill nodes in turn, for the tests named surviving (cluster only)")
    parser.add_argument("tests", nargs="*", help="names of tests, and options of the test program")
    arguments = parser.parse_args()
    with Workspace("client", arguments.keep) as workspace:
        broker = workspace.broker(arguments.broker, SETTINGS)
        places = secure(broker, workspace.path) if arguments.secure else {}
        broker.start()
        environment = {**os.environ, "FLEUVE_TEST_BROKER": places.get("FLEUVE_TEST_PLAINTEXT", broker.bootstrap), **places}
        tests = list(arguments.tests)
        if arguments.secure:
            tests = tests or ["securing"]
        over, killer = threading.Event(), None
        if arguments.kill:
            environment["FLEUVE_TEST_KILLING_SECONDS"] = str(KILLING_SECONDS)
            tests = tests or ["surviving"]
            killer = threading.Thread(target=kill_in_turn, args=(broker, over))
            killer.start()
        command = [arguments.program, *tests] if arguments.program else ["cargo", "test", "-q", "-p", "fleuve", "--test", "client", "--", *tests]
        result = subprocess.run(command, cwd=ROOT, env=environment).returncode
        if arguments.secure and not result and tests == ["securing"]:
            result = subprocess.run(command[:-1], cwd=ROOT, env=encrypted(environment, workspace.path)).returncode
        over.set()
        if killer:
            killer.join()
        broker.stop()
    return result


if __name__ == "__main__":
    sys.exit(main())
