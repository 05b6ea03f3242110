#!/bin/sh
# kafka-share-consumer-perf-test with Fleuve: takes the options of Apache Kafka's script of this name.
exec "$(dirname "$0")/fleuve-tool" kafka-share-consumer-perf-test "$@"
