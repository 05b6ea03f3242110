// A word count on Kafka Streams, as its documentation has it, for the broker under test.
// Run from source (`java -cp 'libs/*:streams/*' WordCount.java BOOTSTRAP STATE_DIRECTORY [key=value]...`).
// Prints one line per change of state, `state NAME`, and per change of tasks, `tasks N`; leaves at the end of its input.

import java.time.Duration;
import java.util.*;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;

public class WordCount {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[1]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "word-count");
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        settings.put("auto.offset.reset", "earliest");
        for (String setting : Arrays.asList(arguments).subList(2, arguments.length)) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }

        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream("lines")
            .flatMapValues(line -> Arrays.asList(line.toLowerCase().split("\\W+")))
            .groupBy((key, word) -> word)
            .count(Materialized.as("counts"))
            .toStream()
            .mapValues(count -> Long.toString(count))
            .to("counts");

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setStateListener((now, before) -> say("state " + now));
        streams.setUncaughtExceptionHandler(error -> {
            say("error " + error.toString().replaceAll("\\s+", " "));
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        Thread watcher = new Thread(() -> watch(streams));
        watcher.setDaemon(true);
        watcher.start();
        while (System.in.read() >= 0) { }
        boolean closed = streams.close(Duration.ofSeconds(20));
        say(closed ? "closed" : "not closed");
        System.exit(closed ? 0 : 1);
    }

    /** Tells how many active tasks run here, whenever that changes. */
    static void watch(KafkaStreams streams) {
        long told = -1;
        while (true) {
            long tasks = streams.metadataForLocalThreads().stream().mapToLong(thread -> thread.activeTasks().size()).sum();
            if (tasks != told) {
                say("tasks " + tasks);
                told = tasks;
            }
            try {
                Thread.sleep(50);
            } catch (InterruptedException end) {
                return;
            }
        }
    }

    static synchronized void say(String line) {
        System.out.println(line);
    }
}
