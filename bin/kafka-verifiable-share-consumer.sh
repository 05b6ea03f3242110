#!/bin/sh
# kafka-verifiable-share-consumer with Fleuve: takes the options of Apache Kafka's script of this name.
exec "$(dirname "$0")/fleuve-tool" kafka-verifiable-share-consumer "$@"
