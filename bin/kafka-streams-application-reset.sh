#!/bin/sh
# kafka-streams-application-reset with Fleuve: takes the options of Apache Kafka's script of this name.
exec "$(dirname "$0")/fleuve-tool" kafka-streams-application-reset "$@"
