#!/usr/bin/env bash
# Installs what the tests and benchmarks borrow from others: foreign clients, Apache Kafka, foreign test suites.
#
#   scripts/setup.sh PART...      parts: kcat faketime strace chromium python kafka kafka3 streams go node librdkafka suites  (or: foreign, bench, all)
#
# Everything lands in .cache/, each part once: a stamp named after the hash of its inputs says that it is there.
# Only kcat, libfaketime, strace, e2fsprogs, chromium and a few headers come from apt. A fresh Debian machine needs Rust, Go, Python 3.11 with venv, Java 17 with Maven, Node 20.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${FLEUVE_CACHE:-$root/.cache}
log=$cache/setup.log
kafka_version=4.3.1
kafka3_version=3.9.1
rdkafka_version=0.39.0
kafka_python_version=3.0.12
# The npm package that carries the newest librdkafka (2.15.1) together with its tests.
kafka_javascript_version=1.10.1
mkdir -p "$cache/stamps" "$cache/bin"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Stops with the name of a missing tool and how to get it.
need() {
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: install it first (Debian: apt-get install $2)"
}

# Runs a command silently; shows the end of the log when it fails.
quietly() {
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "failed: $* (whole log: $log)"
    fi
}

# apt install for root; a clear request for everybody else.
apt_install() {
    if [ "$(id -u)" -ne 0 ]; then
        fail "not root: ask an administrator for 'apt-get install $*', then run this again"
    fi
    quietly apt-get update -qq
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# once PART VERSION FILE...: succeeds when the part, in that version and made of those files, is not installed yet.
once() {
    local part=$1 version=$2
    shift 2
    stamp=$cache/stamps/$part-$({ echo "$version"; cat "$@" </dev/null; } | sha256sum | cut -c1-16)
    [ ! -e "$stamp" ] || return 1
    rm -f "$cache/stamps/$part"-*
    say "installing $part"
}

done_with() { : >"$stamp"; }

setup_kcat() {
    command -v kcat >/dev/null 2>&1 || { say "installing kcat"; apt_install kcat; }
}

# libfaketime: shifts the clock of a single process.
setup_faketime() {
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { say "installing libfaketime"; apt_install libfaketime; }
}

# strace makes system calls of a single process fail; mkfs.ext4 makes the small disks that tests fill up and cut off.
setup_strace() {
    command -v strace >/dev/null || { say "installing strace"; apt_install strace; }
    command -v mkfs.ext4 >/dev/null || { say "installing e2fsprogs"; apt_install e2fsprogs; }
}

# A browser without a window, for the page of `fleuve demo music`.
setup_chromium() {
    command -v chromium >/dev/null 2>&1 || { say "installing chromium"; apt_install chromium fonts-dejavu-core; }
}

setup_python() {
    once python 1 "$root/scripts/requirements.txt" || return 0
    need python3 python3
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then apt_install python3-venv; fi
    rm -rf "$cache/venv"
    quietly python3 -m venv "$cache/venv"
    quietly "$cache/venv/bin/pip" install --quiet -r "$root/scripts/requirements.txt"
    done_with
}

setup_kafka() {
    once kafka $kafka_version "$root/scripts/kafka-pom.xml" || return 0
    need java openjdk-17-jre-headless
    need mvn maven
    local libs=$cache/kafka/$kafka_version/libs
    rm -rf "$libs"
    quietly mvn -q -B -f "$root/scripts/kafka-pom.xml" -Dmaven.repo.local="$cache/m2" \
        -Dkafka.version=$kafka_version dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs"
    [ -e "$libs/kafka_2.13-$kafka_version.jar" ] || fail "Maven copied no Kafka jars into $libs"
    done_with
}

# The last Kafka 3: the native client is to work with it as with the newest.
setup_kafka3() {
    once kafka3 $kafka3_version "$root/scripts/kafka-pom.xml" || return 0
    need java openjdk-17-jre-headless
    need mvn maven
    local libs=$cache/kafka/$kafka3_version/libs
    rm -rf "$libs"
    quietly mvn -q -B -f "$root/scripts/kafka-pom.xml" -Dmaven.repo.local="$cache/m2" \
        -Dkafka.version=$kafka3_version dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs"
    [ -e "$libs/kafka_2.13-$kafka3_version.jar" ] || fail "Maven copied no Kafka jars into $libs"
    done_with
}

# Kafka Streams: only what is not among Kafka's own jars already.
setup_streams() {
    setup_kafka
    once streams $kafka_version "$root/scripts/streams-pom.xml" || return 0
    local jars=$cache/kafka/$kafka_version/streams
    rm -rf "$jars"
    quietly mvn -q -B -f "$root/scripts/streams-pom.xml" -Dmaven.repo.local="$cache/m2" \
        -Dkafka.version=$kafka_version dependency:copy-dependencies -DincludeScope=runtime \
        -DincludeArtifactIds=kafka-streams,kafka-streams-test-utils,rocksdbjni -DoutputDirectory="$jars"
    [ -e "$jars/kafka-streams-$kafka_version.jar" ] || fail "Maven copied no Kafka Streams into $jars"
    done_with
}

setup_go() {
    once go 1 "$root"/tests/foreign/go/{go.mod,go.sum,*.go} || return 0
    need go golang
    (
        cd "$root/tests/foreign/go"
        # -modcacherw: a cache that `rm -rf .cache` can remove.
        GOMODCACHE=$cache/go/mod GOCACHE=$cache/go/build GOFLAGS="-modcacherw -mod=readonly" \
            quietly go build -o "$cache/bin/franz-client" .
    )
    done_with
}

setup_node() {
    once node 1 "$root"/tests/foreign/node/{package.json,package-lock.json} || return 0
    need node nodejs
    need npm npm
    rm -rf "$cache/node"
    mkdir -p "$cache/node"
    cp "$root"/tests/foreign/node/{package.json,package-lock.json} "$cache/node/"
    quietly npm ci --prefix "$cache/node" --no-audit --no-fund --ignore-scripts
    done_with
}

# The crates' sources, as cargo unpacks them: rust-rdkafka with its tests, librdkafka in C with its examples.
fetch_crates() {
    need cargo cargo
    local project=$cache/crates
    mkdir -p "$project"
    : >"$project/lib.rs"
    cat >"$project/Cargo.toml" <<TOML
[package]
name = "sources"
version = "0.0.0"
edition = "2024"
[lib]
path = "lib.rs"
[dependencies]
rdkafka = "=$rdkafka_version"
[workspace]
TOML
    quietly cargo fetch --manifest-path "$project/Cargo.toml"
}

# crate_source NAME: the folder cargo unpacked a fetched crate into.
crate_source() {
    cargo metadata --format-version 1 --offline --manifest-path "$cache/crates/Cargo.toml" 2>>"$log" |
        python3 -c 'import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == sys.argv[1]:
        print(os.path.dirname(package["manifest_path"]))' "$1"
}

setup_librdkafka() {
    once librdkafka $rdkafka_version "$root"/bench/*.c || return 0
    need gcc gcc
    need make make
    if [ ! -x "$cache/librdkafka/examples/rdkafka_performance" ]; then
        fetch_crates
        rm -rf "$cache/librdkafka"
        cp -r "$(crate_source rdkafka-sys)/librdkafka" "$cache/librdkafka"
        chmod -R u+w "$cache/librdkafka"
        say "building librdkafka and its rdkafka_performance (about two minutes)"
        (
            cd "$cache/librdkafka"
            # Loopback, uncompressed benchmarks: no TLS, SASL, curl or zstd, hence no development packages.
            quietly ./configure --disable-ssl --disable-gssapi --disable-curl --disable-zstd --disable-lz4-ext
            quietly make -j"$(nproc)" libs
            quietly make -C examples rdkafka_performance
        )
    fi
    for source in "$root"/bench/*.c; do
        quietly gcc -std=gnu11 -O2 -Wall -Wextra -Werror -isystem "$cache/librdkafka/src" -o "$cache/bin/$(basename "$source" .c)" \
            "$source" "$cache/librdkafka/src/librdkafka.a" -lz -ldl -lrt -lpthread -lm
    done
    done_with
}

# librdkafka's test-runner. Most of its tests want three brokers for nothing but the three replicas they ask for.
setup_librdkafka_suite() {
    setup_kafka
    once suite-librdkafka $kafka_javascript_version /dev/null || return 0
    need g++ g++
    need make make
    need npm npm
    need javac openjdk-17-jdk-headless
    local home=$cache/librdkafka-suite missing=() header
    for header in openssl/ssl.h:libssl-dev zlib.h:zlib1g-dev zstd.h:libzstd-dev rapidjson/document.h:rapidjson-dev; do
        [ -e "/usr/include/${header%%:*}" ] || missing+=("${header##*:}")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
    rm -rf "$home"
    mkdir -p "$home"
    (
        cd "$home"
        quietly npm pack --silent "@confluentinc/kafka-javascript@$kafka_javascript_version"
        tar --no-same-owner -xzf ./*.tgz --strip-components=3 package/deps/librdkafka
        rm ./*.tgz
        sed -i -E 's/(create_topic[a-z_]*\([^;]*), 3(, 5000)?\)/\1, 1\2)/' tests/{0098,0101,0103,0107,0111,0126,0135,0142}-*
        say "building librdkafka and its test suite (about three minutes)"
        quietly ./configure --disable-gssapi --disable-curl --disable-lz4-ext
        quietly make -j"$(nproc)" libs
        quietly make -j"$(nproc)" -C tests build
        KAFKA_JARS=$cache/kafka/$kafka_version/libs quietly make -C tests/java
    )
    done_with
}

setup_suites() {
    setup_python
    setup_librdkafka_suite
    once suites "$kafka_python_version $rdkafka_version" "$root/tests/suites/kafka_python_service.py" || return 0
    rm -rf "$cache/suites"
    mkdir -p "$cache/suites/download"
    quietly "$cache/venv/bin/pip" download --quiet --no-deps --no-binary :all: \
        -d "$cache/suites/download" "kafka-python==$kafka_python_version"
    mkdir -p "$cache/suites/kafka-python"
    tar --no-same-owner -xzf "$cache/suites/download/kafka_python-$kafka_python_version.tar.gz" -C "$cache/suites/kafka-python" --strip-components=1
    # The archive leaves two files out; without the first, Python's own package `test` is found instead.
    : >"$cache/suites/kafka-python/test/__init__.py"
    cp "$root/tests/suites/kafka_python_service.py" "$cache/suites/kafka-python/test/service.py"
    fetch_crates
    cp -r "$(crate_source rdkafka)" "$cache/suites/rust-rdkafka"
    chmod -R u+w "$cache/suites/rust-rdkafka"
    # A workspace of its own: it lies below ours on disk but is no member of it.
    printf '\n[workspace]\n' >>"$cache/suites/rust-rdkafka/Cargo.toml"
    done_with
}

[ $# -gt 0 ] || fail "name the parts to install: kcat faketime strace chromium python kafka kafka3 streams go node librdkafka suites, or foreign, bench, all"
for part in "$@"; do
    case $part in
    kcat | faketime | strace | chromium | python | kafka | kafka3 | streams | go | node | librdkafka | suites) "setup_$part" ;;
    foreign) for each in kcat python kafka streams go node; do "setup_$each"; done ;;
    bench) for each in kafka librdkafka; do "setup_$each"; done ;;
    all) for each in kcat faketime strace chromium python kafka kafka3 streams go node librdkafka suites; do "setup_$each"; done ;;
    *) fail "unknown part '$part'" ;;
    esac
done
