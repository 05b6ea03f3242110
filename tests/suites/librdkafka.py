"""librdkafka's own test suite: its `test-runner`, one process for each test number, several at a time.

A number that hangs or crashes takes only its own tests along. Tests that librdkafka runs against its built-in mock
broker (flag LOCAL, or so named) never reach the broker under test and are left out unless asked for by number; so are
those of share groups in the run with the consumer group protocol, which changes nothing for them. The whole of it takes
about a quarter of an hour for each protocol on two cores.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.broker import CACHE, KAFKA_LIBS, ROOT, Broker
from results import Results

HOME = CACHE / "librdkafka-suite" / "tests"
KAFKA_LEVEL = "4.3.0"
AT_ONCE = 8
# One test of two dozen APIs, which ends at its first failure: run once for each of these words in its sub-tests' names.
PARTS = {"0081_admin": ["Topics", "Partitions", "Configs", "Records", "Groups", "Offsets", "Cluster", "Scram", "unclean", "Acls"]}
# The longest come first; the rest fits in beside them.
LONGEST = ["0113", "0174", "0172", "0170", "0171", "0098", "0181", "0178", "0173", "0177", "0176", "0077", "0185", "0179", "0081"]
# The runner's own limits, which it multiplies, are the real ones; this is for a runner that hangs after its tests.
NUMBER_SECONDS_MAX = 900
# librdkafka itself multiplies its limits by about this when it runs five tests at once.
PATIENCE = 2.5
# These measure time, so that they get the broker for themselves.
ALONE = {"0038", "0055"}
SUMMARY = re.compile(r"^\|\s*(\w+)\s+\|\s*([A-Z]+)\s+\|\s*([\d.]+)s[ \t]*\|[ \t]*(.*)$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Test:
    """One entry of the table in librdkafka's test.c."""

    name: str
    flags: frozenset[str]
    scenario: str
    # The sub-tests it is limited to.
    part: str = ""

    @property
    def identity(self) -> str:
        """What exceptions and `--tests` call it."""
        return f"{self.name}:{self.part}" if self.part else self.name

    @property
    def job(self) -> tuple[str, str]:
        """Tests of one number share a process."""
        return self.number, self.part

    @property
    def number(self) -> str:
        return self.name.split("_", 1)[0]

    @property
    def local(self) -> bool:
        return "TEST_F_LOCAL" in self.flags or self.name.endswith("_mock")

    @property
    def offered(self) -> bool:
        """Neither run by hand only, nor known by its authors to fail."""
        return not self.flags & {"TEST_F_MANUAL", "TEST_F_KNOWN_ISSUE"}


def table() -> list[Test]:
    """Every test that the runner knows."""
    source = (HOME / "test.c").read_text()
    source = source[source.index("struct test tests[]") :]
    source = re.sub(r"/\*.*?\*/", "", source[: source.index("{NULL}")], flags=re.DOTALL)
    tests = []
    for entry in re.split(r"\b_TEST\(", source)[1:]:
        scenario = re.search(r'\.scenario\s*=\s*"([^"]*)"', entry)
        name, flags = (part.strip() for part in re.match(r"(\w+),([^,)]*)", entry).groups())
        for part in PARTS.get(name, [""]):
            tests.append(Test(name, frozenset(flags.replace("|", " ").split()), scenario.group(1) if scenario else "default", part))
    return tests


def run(broker: Broker, logs: Path, only: list[str], *, protocol: str, scenario: str, quick: bool) -> Results:
    """Runs the tests of one scenario with one group protocol; `only` names tests or their numbers."""
    home = logs / f"librdkafka-{protocol}-{scenario}"
    home.mkdir(exist_ok=True)
    (home / "test.conf").write_text(f"metadata.broker.list={broker.bootstrap}\ntest.timeout.multiplier={PATIENCE}\n")
    for beside in ("src", "mklove", "Makefile.config"):
        link(HOME.parent / beside, home / beside)
    wanted = [test for test in table() if scenario in test.scenario.split(",")]
    if only:
        wanted = [test for test in wanted if {test.identity, test.name, test.number} & set(only)]
    else:
        wanted = [test for test in wanted if test.offered and not test.local and not (protocol == "consumer" and "_share_" in test.name)]
    jobs = sorted({test.job for test in wanted}, key=lambda job: (LONGEST.index(job[0]) if job[0] in LONGEST else len(LONGEST), job))
    environment = {
        **os.environ,
        "RDKAFKA_TEST_CONF": str(home / "test.conf"),
        "TEST_KAFKA_VERSION": KAFKA_LEVEL,
        "TEST_CONSUMER_GROUP_PROTOCOL": protocol,
        "TEST_SCENARIO": scenario,
        "LD_LIBRARY_PATH": f"{HOME.parent / 'src'}:{HOME.parent / 'src-cpp'}",
        # Some tests call kafka-topics.sh and its siblings.
        "BROKERS": broker.bootstrap,
        "KAFKA_PATH": str(kafka_home(broker, home)),
        "FLEUVE": str(getattr(broker, "binary", "")),
    }

    options = [*(["-Q"] if quick else []), *([] if any(test.local for test in wanted) else ["-L"])]

    def one(job: tuple[str, str]) -> tuple[tuple[str, str], str]:
        return job, run_job(*job, home, environment, options)

    outputs: dict[tuple[str, str], str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outputs.update(pool.map(one, [job for job in jobs if job[0] not in ALONE]))
    outputs.update(one(job) for job in jobs if job[0] in ALONE)
    results = Results()
    for test in wanted:
        judge(test, outputs[test.job], results)
    return results


def run_job(number: str, part: str, home: Path, environment: dict[str, str], options: list[str]) -> str:
    """Runs all tests of a number in one process and returns what they printed, without colours."""
    place = home / f"{number}{part}"
    environment = {**environment, "TESTS": number, **({"SUBTESTS": part} if part else {})}
    place.mkdir(exist_ok=True)
    # Tests look for their fixtures, plugins and Java programs beside themselves.
    for entry in HOME.iterdir():
        if entry.is_dir() or entry.name == "Makefile":
            link(entry, place / entry.name)
    # Line by line, so that a runner that aborts leaves its summary behind.
    command = ["stdbuf", "-oL", str(HOME / "test-runner"), "-p1", "-s", environment["TEST_SCENARIO"], *options]
    started = time.monotonic()
    with open(place / "output", "w+b") as output:
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            process.wait(NUMBER_SECONDS_MAX)
            ended = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = f"killed after {NUMBER_SECONDS_MAX} s"
        output.write(f"\n(runner {ended}, {time.monotonic() - started:.1f} s)\n".encode())
        output.seek(0)
        return COLOUR.sub("", output.read().decode(errors="replace"))


def judge(test: Test, output: str, results: Results) -> None:
    """Enters the verdict on one test, from the runner's summary or from what it printed before it died."""
    summary = {name: (state, detail.strip()) for name, state, _, detail in SUMMARY.findall(output)}
    state, detail = summary.get(test.name, ("", ""))
    if not state:
        verdict = re.search(rf"=+ Test {test.name} (PASSED|FAILED|SKIPPED) =+", output)
        state = verdict.group(1) if verdict else "MISSING"
    unreadable = re.search(r"Protocol parse failure for [^\n]*", output)
    if unreadable and not test.local:
        # No race of the client's makes an answer unreadable, and one that asks again may be lucky.
        results.failed[test.identity] = unreadable.group(0)
        results.certain.add(test.identity)
    elif state == "PASSED" and test.part and ": PASS (" not in output:
        results.failed[test.identity] = f"no sub-test has {test.part} in its name"
    elif state == "PASSED":
        results.passed.append(test.identity)
    elif state == "SKIPPED":
        results.skipped[test.identity] = detail
    else:
        failure = re.search(rf'### Test "{test.name}\b[^\n]*###\n([^\n]*)', output)
        ended = re.search(r"\(runner [^\n]*\)\s*$", output)
        results.failed[test.identity] = detail or (failure.group(1) if failure else f"{state.lower()} {ended.group(0).strip() if ended else ''}")


def kafka_home(broker: Broker, home: Path) -> Path:
    """What tests take for a Kafka installation: its scripts (ours, or Apache's own for the oracle), and its jars."""
    place = home / "kafka"
    (place / "bin").mkdir(parents=True, exist_ok=True)
    java = f'exec java -XX:TieredStopAtLevel=1 -Xmx128m -cp "$CLASSPATH:{KAFKA_LIBS}/*"'
    commands = {"kafka-run-class.sh": f'{java} "$@"'}
    if broker.name == "kafka":
        classes = {"topics": "org.apache.kafka.tools.TopicCommand", "acls": "org.apache.kafka.tools.AclCommand", "configs": "kafka.admin.ConfigCommand"}
        commands |= {f"kafka-{name}.sh": f'{java} {main} "$@"' for name, main in classes.items()}
    else:
        commands |= {script.name: f'exec {script} "$@"' for script in (ROOT / "bin").glob("*.sh")}
    for name, command in commands.items():
        (place / "bin" / name).write_text(f"#!/bin/sh\n{command}\n")
        (place / "bin" / name).chmod(0o755)
    link(KAFKA_LIBS, place / "libs")
    return place


def link(target: Path, name: Path) -> None:
    if not name.is_symlink():
        name.symlink_to(target)
