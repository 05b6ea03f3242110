#!/usr/bin/env python3
"""Runs the own integration suites of foreign clients against the broker under test.

    tests/suites/run.py [SUITE...] [--tests ID,...] [--quick] [--broker fleuve|kafka|HOST:PORT] [--verbose] [--keep]

Prints `SUITE: N passed, N failed, N skipped` for each. tests/suites/SUITE.exceptions names the tests that may fail, one
`test-id  reason` a line; any other failure makes the run fail. A listed test that passes is reported as stale.
The suites librdkafka and librdkafka-consumer are the same tests with the two group protocols and share one file of
exceptions: `test-id@consumer` (or `@classic`) stands for one protocol only. With --quick they run in librdkafka's
quick mode, which leaves most sub-tests out and sends fewer messages.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, ROOT, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

import librdkafka  # noqa: E402
from results import Results  # noqa: E402

SUITES_HOME = CACHE / "suites"
KAFKA_LEVEL = "4.3.0"
TEST_SECONDS_MAX = 120
# Access control that begins with the first entry about a thing, as the suites' authors have it.
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
BINARY_SECONDS_MAX = 300


def kafka_python(broker: Broker, logs: Path, only: list[str]) -> Results:
    """kafka-python's test/integration, by pytest, as its maintainers point it at an external broker."""
    outcome = logs / "kafka-python.xml"
    outcome.unlink(missing_ok=True)
    # `module.Class::test` becomes `module.py::Class::test`, and `module::test` becomes `module.py::test`.
    chosen = ["test/integration/" + re.sub(r"^(\w+)(?:\.|::)", r"\1.py::", name) for name in only]
    command = [str(CACHE / "venv" / "bin" / "python"), "-m", "pytest", *(chosen or ["test/integration"]), "-q", "-p", "no:cacheprovider"]
    # Its own setting kills the whole run with the first test that hangs; a signal fails only that one.
    command += [f"--timeout={TEST_SECONDS_MAX}", "--timeout-method=signal", f"--junitxml={outcome}", "--tb=native"]
    environment = {
        **os.environ,
        "KAFKA_URI": f"kafka://{broker.bootstrap}",
        "KAFKA_VERSION": KAFKA_LEVEL,
        # Its fixtures insist on a folder with Kafka's scripts, which an external broker never uses.
        "KAFKA_ROOT": str(SUITES_HOME),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with open(logs / "kafka-python.log", "ab") as log:
        subprocess.run(command, cwd=SUITES_HOME / "kafka-python", env=environment, stdout=log, stderr=log, timeout=1800)
    results = Results()
    if not outcome.exists():
        results.failed["(the suite)"] = f"pytest wrote no results, see {log.name}"
        return results
    for case in xml.parse(outcome).getroot().iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('test.integration.')}::{case.get('name')}"
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            results.failed[name] = (problem.get("message") or "").splitlines()[0] if problem.get("message") else problem.tag
        elif case.find("skipped") is not None:
            results.skipped[name] = ""
        else:
            results.passed.append(name)
    return results


def rust_rdkafka(broker: Broker, logs: Path, only: list[str]) -> Results:
    """The rdkafka crate's tests/, each test binary within its own deadline."""
    home = SUITES_HOME / "rust-rdkafka"
    environment = {
        **os.environ,
        "KAFKA_HOST": broker.bootstrap,
        "KAFKA_VERSION": KAFKA_LEVEL,
        "RUST_LOG": "off",
        "CARGO_TARGET_DIR": str(SUITES_HOME / "target"),
    }
    results = Results()
    with open(logs / "rust-rdkafka.log", "a") as log:
        build = subprocess.run(
            ["cargo", "test", "--locked", "--no-run", "--test", "*"], cwd=home, env=environment, stdout=log, stderr=subprocess.PIPE, text=True
        )
        log.write(build.stderr)
        if build.returncode:
            results.failed["(the suite)"] = f"its tests do not build, see {log.name}"
            return results
        for binary, path in re.findall(r"Executable tests/(\w+)\.rs \((\S+)\)", build.stderr):
            names = [name.split("::", 1)[1] for name in only if name.startswith(f"{binary}::")]
            if names or not only:
                run_test_binary(binary, [path, *names, *(["--exact"] if names else [])], home, environment, log, results)
    return results


def run_test_binary(binary: str, command: list[str], home: Path, environment: dict[str, str], log, results: Results) -> None:
    """Runs one libtest binary; what it listed but never reported counts as failed."""
    listed = subprocess.run([*command, "--list"], cwd=home, env=environment, capture_output=True, text=True)
    pending = {line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")}
    late = False
    try:
        ended = subprocess.run(
            [*command, "--test-threads", "2"], cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BINARY_SECONDS_MAX
        )
        output = ended.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        late = True
    log.write(f"==== {binary}\n{output}\n")
    panics = dict(re.findall(r"---- (\S+) stdout ----\s+(?:\n)*thread '[^']*'[^\n]*panicked at [^\n]*\n([^\n]*)", output))
    for name, verdict in re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", output, re.MULTILINE):
        identity = f"{binary}::{name}"
        pending.discard(name)
        if verdict == "ok":
            results.passed.append(identity)
        elif verdict == "ignored":
            results.skipped[identity] = ""
        else:
            results.failed[identity] = panics.get(name, "failed")
    for name in pending:
        results.failed[f"{binary}::{name}"] = f"no verdict within {BINARY_SECONDS_MAX} s" if late else "the test binary died"


@dataclass(frozen=True)
class Part:
    """What runs one part of a suite, the broker settings its authors assume, and the port they wrote into it (0: any)."""

    runner: Callable[[Broker, Path, list[str]], Results]
    settings: dict[str, str]
    port: int = 0


def librdkafka_parts(protocol: str, quick: bool) -> list[Part]:
    """The broker of librdkafka's own test set-up, on one node; some tests want it without automatic topics."""
    settings = {
        # Without any delay a test's first consumer begins to work before its second has joined.
        "group.initial.rebalance.delay.ms": "500",
        "num.partitions": "4",
        "broker.rack": "RACK1",
        "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        "group.share.min.record.lock.duration.ms": "1000",
        **AUTHORIZER,
    }
    scenarios = {"default": {}, "noautocreate": {"auto.create.topics.enable": "false"}}
    return [
        Part(partial(librdkafka.run, protocol=protocol, scenario=scenario, quick=quick), {**settings, **extra})
        for scenario, extra in scenarios.items()
    ]


def suites(quick: bool) -> dict[str, list[Part]]:
    """Every suite by its name."""
    kafka_python_settings = {
        "num.partitions": "4",
        "node.id": "0",
        "group.min.session.timeout.ms": "1000",
        "advertised.listeners": "PLAINTEXT://127.0.0.1:{port}",
        **AUTHORIZER,
    }
    return {
        "kafka-python": [Part(kafka_python, kafka_python_settings)],
        "rust-rdkafka": [Part(rust_rdkafka, {"num.partitions": "3", "node.id": "0"}, 9092)],
        "librdkafka": librdkafka_parts("classic", quick),
        "librdkafka-consumer": librdkafka_parts("consumer", quick),
    }


def exceptions(suite: str) -> dict[str, str]:
    """The tests that may fail, each with its reason."""
    family, _, protocol = suite.partition("-") if suite.startswith("librdkafka") else (suite, "", "")
    listed: dict[str, str] = {}
    file = HERE / f"{family}.exceptions"
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            parts = line.split(None, 1)
            if len(parts) != 2:
                raise SystemExit(f"{file.relative_to(ROOT)}:{number}: expected 'test-id  reason'")
            test, _, only = parts[0].partition("@")
            if only in ("", protocol or "classic"):
                listed[test] = parts[1]
    return listed


def run_part(label: str, part: Part, allowed: dict[str, str], options: argparse.Namespace) -> Results | None:
    """Runs one part of a suite on a broker of its own; none when that could not be done."""
    with Workspace(f"suite-{label}", options.keep) as workspace:
        broker = workspace.broker(options.broker, {"group.initial.rebalance.delay.ms": "0", **part.settings})
        if part.port and broker.name != "external":
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", part.port)) == 0:
                    print(f"{label}: its tests insist on port {part.port}, which something else is using")
                    return None
            broker.port = part.port
        try:
            broker.start()
            results = part.runner(broker, workspace.path, options.tests)
            again = [test for test in results.failed if test not in allowed and test not in results.certain]
            if again and results.passed:
                # The clients have races of their own; a failure counts when it happens twice.
                second = part.runner(broker, workspace.path, again)
                for test in [test for test in again if test in second.passed]:
                    print(f"  passed at the second try: {test} (first: {results.failed.pop(test)})")
                    results.passed.append(test)
            broker.stop()
        except BrokerFailed as error:
            print(f"{label}: {error}")
            workspace.keep = True
            return None
        workspace.keep |= any(test not in allowed for test in results.failed)
        return results


def run_suite(name: str, parts: list[Part], options: argparse.Namespace) -> bool:
    """Runs one suite; true when nothing unexpected failed."""
    allowed = exceptions(name)
    started = time.monotonic()
    outcomes = [run_part(name, part, allowed, options) for part in parts]
    results = Results()
    for outcome in outcomes:
        if outcome is None:
            return False
        results.passed += outcome.passed
        results.failed |= outcome.failed
        results.skipped |= outcome.skipped
    unexpected = [test for test in results.failed if test not in allowed]
    for test, reason in results.failed.items():
        if test in unexpected:
            print(f"  FAILED {test}: {reason}")
        elif options.verbose:
            print(f"  failed as listed: {test}: {reason}")
    if options.verbose:
        for test, reason in results.skipped.items():
            print(f"  skipped: {test}: {reason}")
    for test in [test for test in allowed if test in results.passed]:
        print(f"  stale exception: {test} did not fail (listed because: {allowed[test]})")
    counts = f"{len(results.passed)} passed, {len(results.failed)} failed, {len(results.skipped)} skipped"
    listed = len(results.failed) - len(unexpected)
    noted = f" ({listed} of the failures are listed exceptions)" if listed else ""
    print(f"{name}: {counts}{noted} ({time.monotonic() - started:.0f} s)", flush=True)
    return not unexpected and bool(results.passed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = suites(quick=True)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(known)}; default all")
    parser.add_argument("--tests", type=lambda text: [each for each in text.split(",") if each], default=[], help="only these, by id, separated by commas")
    parser.add_argument("--quick", action="store_true", help="librdkafka's tests in their quick mode")
    parser.add_argument("--verbose", action="store_true", help="name listed failures and skipped tests too")
    add_broker_argument(parser)
    options = parser.parse_args()
    for name in options.suites:
        if name not in known:
            parser.error(f"unknown suite {name}: known are {', '.join(known)}")
    chosen = suites(quick=options.quick)
    outcomes = [run_suite(name, chosen[name], options) for name in options.suites or chosen]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
