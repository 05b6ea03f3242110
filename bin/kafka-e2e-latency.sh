#!/bin/sh
# kafka-e2e-latency with Fleuve: takes the options of Apache Kafka's script of this name.
exec "$(dirname "$0")/fleuve-tool" kafka-e2e-latency "$@"
