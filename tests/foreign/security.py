#!/usr/bin/env python3
"""TLS and SASL with foreign clients: who gets in by every mechanism, and who is refused, and how; what they may do.

    tests/foreign/security.py [--keep]

The Java client, librdkafka, kafka-python, franz-go and kafkajs by every mechanism, which makes a table; Apache's tools and
`fleuve` itself, and bare sockets for what no client does. OAUTHBEARER has an issuer of our own. One line per check; the last
line is the sum.
"""

from __future__ import annotations

import argparse
import base64
import http.server
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, KAFKA_LIBS, Fleuve, Workspace, free_port  # noqa: E402

PYTHON = CACHE / "venv" / "bin" / "python"
if os.environ.get("VIRTUAL_ENV_PYTHON") != "1" and PYTHON.exists() and Path(sys.executable) != PYTHON:
    os.execve(PYTHON, [str(PYTHON), *sys.argv], {**os.environ, "VIRTUAL_ENV_PYTHON": "1", "PYTHONDONTWRITEBYTECODE": "1"})

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer  # noqa: E402
from confluent_kafka.admin import (  # noqa: E402
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka import KafkaProducer  # noqa: E402
from kafka.errors import KafkaError as PythonError  # noqa: E402
from kafka.net.sasl.oauth import AbstractTokenProvider  # noqa: E402

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


class Issuer:
    """Signs tokens by RS256, and serves its keys over HTTP."""

    url = "http://issuer.test"
    audience = "fleuve"

    def __init__(self, directory: Path):
        self.directory = directory
        self.keys: dict[str, dict] = {}
        self.make_key("first")
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = json.dumps({"keys": list(issuer.keys.values())}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(document)))
                self.end_headers()
                self.wfile.write(document)

            def log_message(self, *_) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def jwks(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/keys"

    def make_key(self, name: str, publish: bool = True) -> None:
        openssl(self.directory, "genrsa", "-out", f"{name}.rsa", "2048")
        shown = subprocess.run(["openssl", "rsa", "-in", f"{name}.rsa", "-modulus", "-noout"], cwd=self.directory, check=True, capture_output=True, text=True)
        modulus = bytes.fromhex(shown.stdout.strip().removeprefix("Modulus="))
        if publish:
            self.keys[name] = {"kty": "RSA", "kid": name, "use": "sig", "alg": "RS256", "n": encoded(modulus), "e": "AQAB"}

    def token(self, subject: str, key: str = "first", header: dict | None = None, **claims) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": self.audience, "sub": subject, "iat": now, "exp": now + 600} | claims
        message = ".".join(encoded(json.dumps(part).encode()) for part in [{"alg": "RS256", "kid": key} | (header or {}), said])
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", f"{key}.rsa"], cwd=self.directory, input=message.encode(), check=True, capture_output=True)
        return f"{message}.{encoded(signed.stdout)}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def settings(directory: Path, addresses: dict[str, str], issuer: Issuer) -> dict[str, str]:
    users = f'{LOGIN["PLAIN"]} required user_ada="lovelace";'
    return {
        "listeners": ",".join(f"{protocol}://{address}" for protocol, address in addresses.items()),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "sasl.oauthbearer.jwks.endpoint.url": issuer.jwks,
        "sasl.oauthbearer.expected.issuer": issuer.url,
        "sasl.oauthbearer.expected.audience": issuer.audience,
        "delegation.token.secret.key": "token-secret",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Those of the listeners whose clients prove who they are; eve has to be given rights.
        "super.users": "User:ANONYMOUS;User:ada;User:grace;User:client",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": users,
        "listener.name.sasl_ssl.plain.sasl.jaas.config": users,
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": f'{LOGIN["SCRAM-SHA-256"]} required;',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(directory / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "ca.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,TLS:SSL,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
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
    protocol = "SASL_PLAINTEXT"
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


class Java:
    """Apache's client: one JVM that tries whatever it is told."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.process = subprocess.Popen([*JAVA, str(HERE / "java" / "Connect.java")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def attempt(self, address: str, security: dict) -> str:
        settings = {"topic": TOPIC, "bootstrap.servers": address, "security.protocol": "SASL_SSL" if "mechanism" in security else "SSL"}
        settings |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": security["ca"]}
        if "certificate" in security:
            both = Path(security["certificate"]).with_suffix(".both.pem")
            # Java takes keys of PKCS8 only, which is what OpenSSL writes.
            both.write_text(Path(security["key"]).read_text() + Path(security["certificate"]).read_text())
            settings |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(both)}
        mechanism = security.get("mechanism")
        if mechanism == "OAUTHBEARER":
            token = self.directory / "java.token"
            token.write_text(security["token"])
            settings |= {"sasl.oauthbearer.token.endpoint.url": f"file:{token}", "sasl.login.callback.handler.class": f"{JAAS}.oauthbearer.OAuthBearerLoginCallbackHandler"}
            settings |= {"sasl.oauthbearer.jwt.retriever.class": f"{JAAS}.oauthbearer.FileJwtRetriever", "sasl.jaas.config": f"{JAAS}.oauthbearer.OAuthBearerLoginModule required;"}
        elif mechanism:
            settings["sasl.jaas.config"] = f'{LOGIN[mechanism]} required username="{security["user"]}" password="{security["password"]}";'
        if mechanism:
            settings["sasl.mechanism"] = mechanism
        self.process.stdin.write("\t".join(f"{key}={value}" for key, value in settings.items()) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip() or "nothing"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


class Given(AbstractTokenProvider):
    """The token that kafka-python is to show."""

    def __init__(self, token: str):
        self.given = token

    def token(self) -> str:
        return self.given


class Said(logging.Handler):
    """What kafka-python has said of authentication."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def reason(self) -> str:
        return next((line for line in self.lines if "uthentication" in line), next(iter(self.lines), ""))


def with_kafka_python(address: str, security: dict) -> str:
    mechanism = security.get("mechanism")
    settings = {"security_protocol": "SASL_SSL" if mechanism else "SSL", "ssl_cafile": security["ca"], "ssl_certfile": security.get("certificate"), "ssl_keyfile": security.get("key")}
    if mechanism == "OAUTHBEARER":
        settings |= {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": Given(security["token"])}
    elif mechanism:
        settings |= {"sasl_mechanism": mechanism, "sasl_plain_username": security["user"], "sasl_plain_password": security["password"]}
    producer = None
    # It keeps the reason to its log, and raises that it could not bootstrap.
    said = Said()
    logging.getLogger("kafka").addHandler(said)
    try:
        producer = KafkaProducer(bootstrap_servers=address, bootstrap_timeout_ms=3000, max_block_ms=10000, **settings)
        producer.send(TOPIC, b"kafka-python").get(15)
        return "in"
    except (PythonError, OSError) as error:
        return f"out {error!r} {said.reason()}"
    finally:
        logging.getLogger("kafka").removeHandler(said)
        if producer is not None:
            producer.close(1)


def with_librdkafka(address: str, security: dict) -> str:
    mechanism, heard, errors = security.get("mechanism"), [], []
    settings = {"bootstrap.servers": address, "security.protocol": "SASL_SSL" if mechanism else "SSL", "ssl.ca.location": security["ca"], "log_level": 0, "message.timeout.ms": 15000, "error_cb": heard.append}
    if "certificate" in security:
        settings |= {"ssl.certificate.location": security["certificate"], "ssl.key.location": security["key"]}
    if mechanism == "OAUTHBEARER":
        # The callback tells librdkafka until when a token is good; the broker looks for itself.
        settings |= {"sasl.mechanism": mechanism, "oauth_cb": lambda _: (security["token"], time.time() + 600)}
    elif mechanism:
        settings |= {"sasl.mechanism": mechanism, "sasl.username": security["user"], "sasl.password": security["password"]}
    producer = Producer(settings)
    producer.produce(TOPIC, b"librdkafka", on_delivery=lambda error, _: errors.append(error))
    deadline = time.monotonic() + 20
    while not errors and not heard and time.monotonic() < deadline:
        producer.poll(0.1)
    if errors == [None]:
        return "in"
    producer.purge()
    return f"out {heard[0] if heard else errors}"


def with_client(name: str, address: str, security: dict) -> str:
    command = {
        "franz-go": [str(CACHE / "bin" / "franz-client")],
        "kafkajs": ["node", str(HERE / "node" / "client.js")],
    }[name]
    environment = {**os.environ, "NODE_PATH": str(CACHE / "node" / "node_modules"), "FLEUVE_SECURITY": json.dumps(security)}
    done = subprocess.run([*command, address, "connect", TOPIC], capture_output=True, text=True, timeout=90, env=environment)
    return (done.stdout + done.stderr).strip().splitlines()[-1] if done.stdout or done.stderr else "nothing"


def check_matrix(directory: Path, addresses: dict[str, str], issuer: Issuer) -> None:
    """Every client by every way: it gets in, and with something wrong it does not, and is told so."""
    java = Java(directory)
    clients = {
        "Java": java.attempt,
        "librdkafka": with_librdkafka,
        "franz-go": lambda address, security: with_client("franz-go", address, security),
        "kafkajs": lambda address, security: with_client("kafkajs", address, security),
        "kafka-python": with_kafka_python,
    }
    ca = {"ca": str(directory / "ca.pem")}
    certificate = {name: {"certificate": str(directory / f"{name}.crt"), "key": str(directory / f"{name}.key")} for name in ["client", "stranger"]}
    # The way, the listener, what is right and what is wrong.
    ways = [
        ("TLS", "TLS", ca, {"ca": str(directory / "stranger.crt")}),
        ("mTLS", "SSL", ca | certificate["client"], ca | certificate["stranger"]),
    ]
    for mechanism, (user, password) in USER.items():
        right = ca | {"mechanism": mechanism, "user": user, "password": password}
        ways.append((mechanism, "SASL_SSL", right, right | {"password": "wrong"}))
    token = ca | {"mechanism": "OAUTHBEARER"}
    ways.append(("OAUTHBEARER", "SASL_SSL", token | {"token": issuer.token("ada")}, token | {"token": issuer.token("ada", aud="other")}))
    table = []
    for client, attempt in clients.items():
        row = []
        for way, listener, right, wrong in ways:
            heard = attempt(addresses[listener], right)
            note(heard == "in", f"{client} gets in by {way}: {heard[:300]}")
            refused = attempt(addresses[listener], wrong)
            # Of TLS both ends tell in words of their own; SASL has Kafka's error (58).
            good = refused.startswith("out") and (not wrong.get("mechanism") or is_told(client, way, refused))
            note(good, f"{client} is refused by {way}: {refused[:200]}")
            row.append(("in" if heard == "in" else "NOT IN") + ("/refused" if good else "/NOT REFUSED"))
        table.append([client, *row])
    java.close()
    bare = with_client("franz-go", addresses["SSL"], ca)
    note(bare.startswith("out"), f"franz-go is refused without a certificate: {bare[:100]}")
    for line in [["", *[way[0] for way in ways]], *table]:
        print("".join(f"{cell:15}" for cell in line).rstrip(), flush=True)


def is_told(client: str, way: str, heard: str) -> bool:
    """Whether a client has understood that it was its authentication that failed."""
    words = {
        "Java": ["SaslAuthenticationException"],
        "librdkafka": ["_AUTHENTICATION"],
        "franz-go": ["SASL_AUTHENTICATION_FAILED"],
        "kafkajs": ["KafkaJSSASLAuthenticationError"],
        "kafka-python": ["SaslAuthenticationFailed"],
    }[client]
    if way == "OAUTHBEARER":
        # The reason comes as one more challenge (RFC 7628), from Kafka as well. These two do not read it: one stumbles
        # over it, the other goes on as if it were in.
        words += {"franz-go": ["unexpected data in oauth response"], "kafkajs": ["Closed connection"]}.get(client, [])
    return any(word in heard for word in words)


def bearer(directory: Path, address: str, token: str) -> dict:
    # The callback tells librdkafka until when a token is good; the broker looks for itself.
    return {
        "bootstrap.servers": address,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(directory / "ca.pem"),
        "sasl.mechanism": "OAUTHBEARER",
        "oauth_cb": lambda _: (token, time.time() + 600),
        "log_level": 0,
    }


def check_tokens(directory: Path, addresses: dict[str, str], issuer: Issuer) -> None:
    address = addresses["SASL_SSL"]
    round_trip(bearer(directory, address, issuer.token("ada")), "OAUTHBEARER")
    issuer.make_key("second")
    now = int(time.time())
    unsigned = ".".join([encoded(b'{"alg":"none"}'), issuer.token("ada").split(".")[1], ""])
    issuer.make_key("stranger-key", publish=False)
    for what, token in {
        "no signature": unsigned,
        "a stranger's signature": issuer.token("ada", key="stranger-key", header={"kid": "first"}),
        "another issuer": issuer.token("ada", iss="http://other.test"),
        "another audience": issuer.token("ada", aud=["other"]),
        "its time over": issuer.token("ada", exp=now - 120),
        "its time to come": issuer.token("ada", nbf=now + 120),
        "no name": issuer.token(""),
    }.items():
        error = refusal(bearer(directory, address, token))
        good = error is not None and error.code() == KafkaError._AUTHENTICATION
        note(good, f"librdkafka is refused with a token with {what}: {error}")
    # The broker has not heard of the issuer's new key, asks for it, and lets the client in that comes again.
    heard = ""
    for _ in range(10):
        heard = with_client("franz-go", address, {"ca": str(directory / "ca.pem"), "mechanism": "OAUTHBEARER", "token": issuer.token("ada", key="second")})
        if heard == "in":
            break
    note(heard == "in", f"a new key of the issuer becomes known: {heard}")


def check_rights(addresses: dict[str, str], issuer: Issuer) -> None:
    """eve gets in, and may do nothing until an entry says so."""
    ca = Path(issuer.directory)
    eve = bearer(ca, addresses["SASL_SSL"], issuer.token("eve"))
    admin = AdminClient({"bootstrap.servers": addresses["PLAINTEXT"]})

    def write() -> KafkaError | None:
        errors = []
        producer = Producer(eve | {"message.timeout.ms": 10_000})
        producer.produce(TOPIC, b"eve", on_delivery=lambda error, _: errors.append(error))
        producer.flush(15)
        return errors[0] if errors else None

    visible = AdminClient(eve).list_topics(timeout=15).topics
    note(TOPIC not in visible, "a topic that may not be described is not in the list")
    error = write()
    note(error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, f"who may not write hears so: {error}")
    entry = AclBinding(ResourceType.TOPIC, "secur", ResourcePatternType.PREFIXED, "User:eve", "*", AclOperation.WRITE, AclPermissionType.ALLOW)
    for future in admin.create_acls([entry]).values():
        future.result(15)
    note(write() is None, "an entry for a prefix lets it write")
    note(TOPIC in AdminClient(eve).list_topics(timeout=15).topics, "who may write may describe")
    herself = AdminClient(eve)
    try:
        for future in herself.create_acls([entry]).values():
            future.result(15)
        refused = None
    except KafkaException as found:
        refused = found.args[0]
    note(refused is not None and refused.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED, f"entries are for those who may alter the cluster: {refused}")


def check_delegation_tokens(directory: Path, addresses: dict[str, str]) -> None:
    """Apache's script makes a token, and Apache's client gets in with it as its owner."""
    tool = [*JAVA, "org.apache.kafka.tools.DelegationTokenCommand", "--bootstrap-server", addresses["SASL_SSL"]]
    owner = str(properties(directory, "SASL_SSL", "SCRAM-SHA-256", *USER["SCRAM-SHA-256"]))

    def run(*arguments: str, config: str = owner) -> str:
        done = subprocess.run([*tool, "--command-config", config, *arguments], capture_output=True, text=True, timeout=90)
        return done.stdout + done.stderr

    made = run("--create", "--max-life-time-period", "-1", "--renewer-principal", "User:ada")
    words = [word for line in made.splitlines() if "User:grace" in line for word in line.split()]
    note(len(words) > 2, "kafka-delegation-tokens makes a token" + ("" if len(words) > 2 else f"\n{made}"))
    if len(words) < 3:
        return
    identifier, password = words[0], words[1]
    file = directory / "token.properties"
    file.write_text(
        f"security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\nssl.truststore.location={directory}/ca.pem\n"
        f'sasl.jaas.config={LOGIN["SCRAM-SHA-512"]} required username="{identifier}" password="{password}" tokenauth="true";\n'
    )
    topics = [*JAVA, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", addresses["SASL_SSL"], "--list", "--command-config", str(file)]
    listed = subprocess.run(topics, capture_output=True, text=True, timeout=90)
    note(TOPIC in listed.stdout, "Apache's client gets in with it" + ("" if TOPIC in listed.stdout else f"\n{listed.stdout}{listed.stderr}"))
    another = run("--create", "--max-life-time-period", "-1", config=str(file))
    note("Delegation Token requests are not allowed" in another, "over a token no other can be had" + ("" if "not allowed" in another else f"\n{another}"))
    renewed = run("--renew", "--renew-time-period", "-1", "--hmac", password)
    note("Completed renew" in renewed, "its owner renews it" + ("" if "Completed renew" in renewed else f"\n{renewed}"))
    described = run("--describe", "--owner-principal", "User:grace")
    note(identifier in described, "its owner sees it" + ("" if identifier in described else f"\n{described}"))
    run("--expire", "--expiry-time-period", "-1", "--hmac", password)
    listed = subprocess.run(topics, capture_output=True, text=True, timeout=90)
    note("uthentication failed" in listed.stdout + listed.stderr, "a token that was ended lets nobody in")


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
        for protocol in ["PLAINTEXT", "TLS", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
            port = free_port(port + 1 if port else 0)
            addresses[protocol] = f"localhost:{port}"
        issuer = Issuer(directory)
        broker = workspace.broker("fleuve", settings(directory, addresses, issuer))
        assert isinstance(broker, Fleuve)
        broker.start()
        check_librdkafka(directory, addresses)
        check_matrix(directory, addresses, issuer)
        check_tools(directory, addresses, broker.binary)
        check_tokens(directory, addresses, issuer)
        check_rights(addresses, issuer)
        check_delegation_tokens(directory, addresses)
        check_sockets(addresses)
        check_start(directory, broker.binary)
        log = broker.log_path.read_text(errors="replace")
        secrets = ["lovelace", "hopper", "PRIVATE KEY", "token-secret", "eyJ"]
        audited = "kafka.authorizer.logger" in log and "User:eve" in log
        note(audited, "denials are in the audit log")
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
