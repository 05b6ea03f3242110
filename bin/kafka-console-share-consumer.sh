#!/bin/sh
# kafka-console-share-consumer with Fleuve: takes the options of Apache Kafka's script of this name.
exec "$(dirname "$0")/fleuve-tool" kafka-console-share-consumer "$@"
