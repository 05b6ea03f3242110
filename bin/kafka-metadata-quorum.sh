#!/bin/sh
# kafka-metadata-quorum with Fleuve: takes the options of Apache Kafka's script of this name.
exec "$(dirname "$0")/fleuve-tool" kafka-metadata-quorum "$@"
