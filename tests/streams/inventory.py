#!/usr/bin/env python3
"""Compares docs/streams-inventory.md with the public interface of Kafka Streams, by reflection, and with ours.

Every public method of the types that have a section must be in a row there, with the number of its overloads, every other
public type of the packages in the last table, and nothing that does not exist. What a row says to be here must be here.

    inventory.py          compares
    inventory.py --list   prints what Kafka Streams has, and what is here
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/streams-inventory.md"
SOURCES = ROOT / "crates/streams/src"
PACKAGES = [".", "kstream", "processor", "processor.api", "state", "query", "errors"]
REST = "Other types"

SECTION = re.compile(r"## `([\w.$]+)`$")
NAME = re.compile(r"`([\w.$]+)`(?: ×(\d+))?")
OURS = re.compile(r"`([A-Z]\w*)::(\w+)")
FUNCTION = re.compile(r" {4}(pub )?(?:async )?fn (\w+)")
FIELD = re.compile(r" {4}pub (\w+):")


def main():
    subprocess.run([ROOT / "scripts/setup.sh", "kafka", "streams"], check=True)
    sections, rest, ours = read(DOCUMENT.read_text())
    java = reflected(list(sections))
    here = written()
    if "--list" in sys.argv:
        print("\n".join(" ".join(map(str, line)) for line in java))
        print("\n".join(f"{name}::{function}" for name, function in sorted(here)))
        return
    wrong = []
    expected = {(line[0], line[1]): int(line[2]) for line in java if len(line) == 3}
    described = {(section, name): count for section, names in sections.items() for name, count in names.items()}
    for place, count in expected.items():
        if place not in described:
            wrong.append(f"{place[0]}.{place[1]} ({count}) is in no row")
        elif described[place] != count:
            wrong.append(f"{place[0]}.{place[1]} has {count} overloads, not {described[place]}")
    wrong += [f"{section}.{name} does not exist" for section, name in described if (section, name) not in expected]
    others = {line[0] for line in java if len(line) == 1}
    wrong += [f"{name} is in no row" for name in sorted(others - rest)]
    wrong += [f"{name} does not exist, or has a section" for name in sorted(rest - others)]
    wrong += [f"there is no {name}::{function} here" for name, function in sorted(ours - here)]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{sum(expected.values())} methods of {len(sections)} types, and {len(others)} other types: each in a row")


def read(text):
    """The sections with their names and numbers of overloads, the types of the last table, and what is said to be here."""
    sections, rest, ours, names = {}, set(), set(), None
    for line in text.splitlines():
        if line.startswith("## "):
            found = SECTION.match(line)
            names = sections.setdefault(found[1], {}) if found else rest if line == f"## {REST}" else None
        elif line.startswith("| `") and names is not None:
            _, left, right = line.split("|", 2)
            ours |= set(OURS.findall(right))
            for name, count in NAME.findall(left):
                if name in names:
                    sys.exit(f"{name} is in two rows of its section")
                if names is rest:
                    rest.add(name)
                else:
                    names[name] = int(count or 1)
    return sections, rest, ours


def reflected(types):
    version = next((ROOT / ".cache/kafka").glob("*/streams")).parent
    classpath = f"{version}/libs/*:{version}/streams/*"
    with tempfile.TemporaryDirectory(prefix="fleuve-inventory-") as scratch:
        source = ROOT / "tests/streams/Inventory.java"
        subprocess.run(["javac", "-cp", classpath, "-d", scratch, source], check=True)
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{scratch}:{classpath}", "Inventory", *types, "--", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [line.split() for line in done.stdout.splitlines()]


def written():
    """The functions and fields of types and traits, as their sources are laid out."""
    functions = set()
    for path in SOURCES.rglob("*.rs"):
        block, head, is_trait = None, "", False
        for line in path.read_text().splitlines():
            if re.match(r"impl\b|pub (trait|struct)\b", line):
                head = line
                block = None
            elif head and block is None:
                head += " " + line.strip()
            if head and block is None and head.endswith("{"):
                # A trait's functions are as public as the trait.
                is_trait = "trait " in head or " for " in head
                block, head = owner(head), ""
            elif line == "}":
                block, head = None, ""
            elif block and (found := FUNCTION.match(line)) and (found[1] or is_trait):
                functions.add((block, found[2]))
            elif block and (found := FIELD.match(line)):
                functions.add((block, found[1]))
    return functions


def owner(head):
    """Whose functions a block has: of `impl<K> Trait<K> for Type<K> where ... {` the type."""
    head = re.sub(r"\bwhere\b.*", "", head).rstrip("{ ")
    if " for " in head and head.startswith("impl"):
        head = head.rsplit(" for ", 1)[1]
    elif head.startswith("impl"):
        head = head[len("impl"):]
        if head.startswith("<"):
            depth = 0
            for place, letter in enumerate(head):
                depth += (letter == "<") - (letter == ">" and head[place - 1] != "-")
                if depth == 0:
                    head = head[place + 1:]
                    break
    else:
        head = re.split("(?:trait|struct) ", head, maxsplit=1)[1]
    found = re.match(r"\s*(?:\w+::)*([A-Z]\w*)", head)
    return found[1] if found else None


if __name__ == "__main__":
    main()
