#!/bin/sh
# kafka-server-start with Fleuve: [-daemon] server.properties [--override key=value]...
if [ "$1" = "-daemon" ]; then
    shift
    # Logs go where Kafka's scripts put them, or beside the caller.
    log="${LOG_DIR:-.}/fleuve-server.out"
    nohup "$(dirname "$0")/fleuve-tool" kafka-server-start "$@" >"$log" 2>&1 </dev/null &
    exit 0
fi
exec "$(dirname "$0")/fleuve-tool" kafka-server-start "$@"
