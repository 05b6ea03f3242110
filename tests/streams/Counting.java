// A word count and a windowed count on Kafka Streams; `crates/streams/examples/counting.rs` is the same program on ours.
//
//     java -cp ... Counting BOOTSTRAP STATE_DIRECTORY [key=value]...
//
// Prints `state NAME` per change of state, and leaves at the end of its input.

import java.time.Duration;
import java.util.*;
import java.util.regex.Pattern;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;

public class Counting {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[1]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "counting");
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        for (String setting : Arrays.asList(arguments).subList(2, arguments.length)) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }

        StreamsBuilder builder = new StreamsBuilder();
        // Ours: all lines of one topic, or of those that match.
        Object pattern = settings.remove("source.pattern");
        KStream<String, String> lines = pattern == null ? builder.stream("lines") : builder.stream(Pattern.compile(pattern.toString()));
        KGroupedStream<String, String> words = lines
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word);
        words.count(Materialized.as("counts"))
            .toStream()
            .mapValues(count -> Long.toString(count))
            .to("counts");
        words.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofSeconds(10), Duration.ofHours(24)))
            .count(Materialized.as("windows"))
            .toStream()
            .map((key, count) -> KeyValue.pair(key.key() + "@" + key.window().start(), Long.toString(count)))
            .to("windows");

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        streams.start();
        while (System.in.read() >= 0) { }
        boolean closed = streams.close(Duration.ofSeconds(20));
        System.out.println(closed ? "closed" : "not closed");
        System.exit(closed ? 0 : 1);
    }
}
