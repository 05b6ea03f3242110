# The whole project in one word each. Everything borrowed from others is installed into .cache/ on first use.
#
#   make run                     build, start, and watch a demo: words counted, page views joined, music (DEMO=name, FILES="a.txt b.txt")
#   make test                    all tests: ours, foreign clients, crashes, Apache's reading of our files
#   make client BROKER=kafka     the native client against Apache Kafka
#   make applications [LONG=1]   applications on streams: handed over to Kafka Streams and back, killed on three nodes of Kafka
#   make streams [LONG=1]        topologies of fleuve-streams, named and random, live against Kafka Streams
#   make suites [SUITE=name]     the own integration suites of foreign clients (TESTS=id,... for some of its tests, QUICK=1)
#   make bench [BENCH="--quick"] Fleuve beside Apache Kafka on this machine
#   make bench-clients           the native client beside librdkafka, the Java client and krafka
#   make bench-streams           stream processing beside Kafka Streams; BENCH="--write" for docs/benchmarks.md
#
# BROKER=kafka or BROKER=host:port points test and suites at another broker.

BROKER ?= fleuve
SUITE ?=
TESTS ?=
LONG ?=
QUICK ?=
BENCH ?= --write
# Where mounting or tracing is not allowed those tests fail; MOUNT=--skip-without-mount and
# STRACE=--skip-without-strace pass over them, and say so.
MOUNT ?=
STRACE ?=
DEMO ?=
FILES ?=

.PHONY: run build test unit client foreign applications demos crash copier checker dump full-disk streams suites bench bench-clients bench-streams

# On a terminal it asks which demo and goes on until Ctrl-C; elsewhere it counts the words of a text and says what it did.
run: build
	@scripts/run.sh $(or $(DEMO),$(if $(FILES),word-count)) $(FILES)

build:
	cargo build --release --bin fleuve

test: unit build foreign applications demos crash copier checker dump full-disk interop descriptors power calls

unit:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc -q -p fleuve-client -p fleuve-streams --no-deps
	cargo xtask tidy
	cargo test --workspace
	python3 tests/reliability/test_history.py
	python3 tests/reliability/checker/test_analysis.py

# The native client's suite, also part of `unit`, against another broker, and in groups with librdkafka
# and Java: make client BROKER=kafka, kafka3 (the last Kafka 3) or cluster (three nodes, killed in turn)
client: build
	scripts/setup.sh python kafka kafka3
	python3 tests/client/run.py --broker $(BROKER) $(if $(filter cluster,$(BROKER)),--kill)
	.cache/venv/bin/python tests/client/interop.py --broker $(BROKER)

foreign: build
	scripts/setup.sh foreign
	python3 tests/foreign/run.py --broker $(BROKER)
	python3 tests/foreign/restarts.py --broker $(BROKER)
	python3 tests/foreign/share.py --broker $(BROKER)
	python3 tests/foreign/security.py
	python3 tests/foreign/observability.py
	python3 tests/foreign/tools.py
	python3 tests/foreign/directories.py
	python3 tests/foreign/quotas.py
	python3 tests/foreign/stores.py
	python3 tests/foreign/walkthrough.py
	python3 tests/foreign/streams.py --broker $(BROKER)

# Handed over between ours and Kafka Streams; 4 kills of instances and brokers of three nodes, and every demo on these;
# LONG=1 for 100 kills with either group protocol, and demos in two instances.
# The program is the one that `unit` has built: another profile or choice of crates would build everything once more.
applications: build
	scripts/setup.sh python kafka streams
	cargo build --workspace --example counting
	python3 tests/streams/inventory.py
	python3 tests/streams/takeover.py --broker $(BROKER) $(if $(LONG),--long)
	python3 tests/streams/faults.py --broker cluster --demos $(if $(LONG),--long --protocol streams)
	$(if $(LONG),python3 tests/streams/faults.py --broker cluster --long --protocol classic)
	$(if $(LONG),python3 tests/streams/faults.py --broker $(BROKER) --long)
	$(if $(LONG),python3 tests/demos/run.py --broker cluster)

# Every demo on the broker, and the music page in a browser: what it shows, and the mix sample by sample.
demos: build
	scripts/setup.sh chromium kafka
	python3 tests/demos/run.py --broker $(BROKER)
	python3 tests/demos/music.py

# 20 random kills; `python3 tests/reliability/kill.py --long` for 1,000. Then crowds of bad clients, and bytes that no client sends.
crash: build
	scripts/setup.sh python
	python3 tests/reliability/kill.py --broker $(BROKER)
	python3 tests/reliability/clients.py
	python3 tests/reliability/fuzz.py

# 6 random kills of copiers and broker; `python3 tests/reliability/copier.py --long` for 60.
copier: build
	scripts/setup.sh python kafka
	python3 tests/reliability/copier.py --broker $(BROKER)

# 5 random seeds; `python3 tests/reliability/checker/check.py --long` for 100.
checker: build
	scripts/setup.sh python kafka faketime
	python3 tests/reliability/checker/check.py --broker $(BROKER)

# Mounts small file systems, and so needs root.
full-disk: build
	scripts/setup.sh python strace
	python3 tests/reliability/full_disk.py $(MOUNT)

# 5 power cuts of an ext4 of its own; `python3 tests/reliability/power.py --long` for 100.
.PHONY: power
power: build
	scripts/setup.sh python strace
	python3 tests/reliability/power.py $(MOUNT)

# Interrupted and failing system calls by strace.
.PHONY: calls
calls: build
	scripts/setup.sh python strace
	python3 tests/reliability/calls.py $(STRACE)

# 600 partitions with 256 descriptors; `python3 tests/reliability/descriptors.py --long` for 10,000 with 1,024.
.PHONY: descriptors
descriptors: build
	scripts/setup.sh python
	python3 tests/reliability/descriptors.py

# Directories after SIGKILL; `python3 tests/reliability/interop.py --long` for those after a clean stop, too.
.PHONY: interop
interop: build
	scripts/setup.sh python kafka
	python3 tests/reliability/interop.py

dump: build
	scripts/setup.sh python kafka
	python3 tests/reliability/dump.py --broker $(BROKER)

# The recorded comparison is part of `unit`; this one asks the oracle anew.
streams:
	python3 tests/streams/inventory.py
	python3 tests/streams/compare.py $(if $(LONG),--long)
	$(if $(LONG),python3 tests/streams/metrics.py --broker kafka)

suites: build
	scripts/setup.sh suites
	python3 tests/suites/run.py $(SUITE) --broker $(BROKER) $(if $(TESTS),--tests $(TESTS)) $(if $(QUICK),--quick)

bench: build
	scripts/setup.sh bench python
	python3 bench/run.py $(BENCH)

bench-clients: build
	scripts/setup.sh bench
	cargo build --release -p fleuve-client --example load
	cargo build --release --manifest-path bench/krafka/Cargo.toml
	python3 bench/clients.py --broker $(BROKER)

bench-streams: build
	scripts/setup.sh kafka streams
	cargo build --release --manifest-path bench/streams/Cargo.toml
	python3 bench/streams.py --broker $(BROKER) $(BENCH)
