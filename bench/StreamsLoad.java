import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;

/** The rows of bench/streams on Kafka Streams: ROW SERVERS APPLICATION INPUT OUTPUT COUNT GUARANTEE STORE DIRECTORY. */
public final class StreamsLoad {
    private static final long MINIMUM = 25_000;
    private static final Duration WINDOW = Duration.ofMinutes(1);
    private static final Duration APART = Duration.ofMinutes(5);
    private static final int SHOWN = 9;
    private static final AtomicLong DONE = new AtomicLong();

    public record Order(long id, String user, String item, long quantity, long cents, String note) {}

    public record Total(long id, String user, String item, long cents) {}

    public static void main(String[] arguments) throws Exception {
        String row = arguments[0];
        long count = Long.parseLong(arguments[5]);
        Properties properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[1]);
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[2]);
        if (arguments[6].equals("at_least_once_often"))
            properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        else
            properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, arguments[6]);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, arguments[8]);
        if (arguments[7].equals("in_memory"))
            properties.put(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        StreamsBuilder builder = new StreamsBuilder();
        build(builder, row, arguments[3], arguments[4]);

        long began = System.nanoTime();
        var streams = new KafkaStreams(builder.build(), properties);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        long warmRecords = -1;
        double warmSeconds = 0;
        double warmCpu = 0;
        while (DONE.get() < count) {
            Thread.sleep(5);
            long now = DONE.get();
            if (warmRecords < 0 && now >= count / 3) {
                warmRecords = now;
                warmSeconds = (System.nanoTime() - began) / 1e9;
                warmCpu = cpuSeconds();
            }
        }
        streams.close();
        double seconds = (System.nanoTime() - began) / 1e9;
        double cpu = cpuSeconds();
        String peak = Files.readAllLines(Path.of("/proc/self/status")).stream()
            .filter(line -> line.startsWith("VmHWM:")).findFirst().orElseThrow().replaceAll("\\D", "");
        System.out.printf("{\"records\": %d, \"seconds\": %f, \"cpu\": %f, \"warm_records\": %d, \"warm_seconds\": %f, \"warm_cpu\": %f, \"rss_kib\": %s}%n",
            count, seconds, cpu, count - warmRecords, seconds - warmSeconds, cpu - warmCpu, peak);
    }

    private static void build(StreamsBuilder builder, String row, String input, String output) {
        Serde<String> text = Serdes.String();
        Serde<Long> number = Serdes.Long();
        switch (row) {
            case "stateless" -> builder.stream(input, Consumed.with(text, json(Order.class)))
                .peek((user, order) -> DONE.getAndIncrement())
                .filter((user, order) -> order.quantity() * order.cents() >= MINIMUM)
                .mapValues(order -> new Total(order.id(), order.user(), order.item(), order.quantity() * order.cents()))
                .to(output, Produced.with(text, json(Total.class)));
            case "words" -> builder.stream(input, Consumed.with(text, text))
                .flatMapValues(line -> Arrays.asList(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.with(text, text))
                .aggregate(() -> 0L, (word, same, total) -> {
                    DONE.getAndIncrement();
                    return total + 1;
                }, Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("words").withValueSerde(number))
                .toStream().to(output, Produced.with(text, number));
            case "count" -> builder.stream(input, Consumed.with(text, text))
                .groupByKey()
                .aggregate(() -> 0L, (key, event, total) -> {
                    DONE.getAndIncrement();
                    return total + 1;
                }, Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts").withKeySerde(text).withValueSerde(number))
                .toStream().to(output, Produced.with(text, number));
            case "windowed" -> builder.stream(input, Consumed.with(text, text))
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW))
                .aggregate(() -> 0L, (key, event, total) -> {
                    DONE.getAndIncrement();
                    return total + 1;
                }, Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("windows").withKeySerde(text).withValueSerde(number))
                .toStream().to(output, Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, WINDOW.toMillis()), number));
            case "join" -> {
                KStream<String, String> events = builder.stream(input, Consumed.with(text, text))
                    .peek((id, event) -> DONE.getAndIncrement());
                events.filter((id, event) -> event.startsWith("l"))
                    .join(events.filter((id, event) -> event.startsWith("r")),
                        (left, right) -> left.substring(0, SHOWN) + right.substring(0, SHOWN),
                        JoinWindows.ofTimeDifferenceWithNoGrace(APART), StreamJoined.with(text, text, text))
                    .to(output, Produced.with(text, text));
            }
            case "restore" -> builder.stream(input, Consumed.with(text, text))
                .peek((key, value) -> DONE.getAndIncrement())
                .groupByKey()
                .reduce((older, newer) -> newer, Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as("state").withCachingDisabled())
                .toStream().to(output, Produced.with(text, text));
            default -> throw new IllegalArgumentException(row);
        }
    }

    private static <T> Serde<T> json(Class<T> type) {
        ObjectMapper mapper = new ObjectMapper();
        Serializer<T> serializer = (topic, value) -> {
            try {
                return value == null ? null : mapper.writeValueAsBytes(value);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        };
        Deserializer<T> deserializer = (topic, bytes) -> {
            try {
                return bytes == null ? null : mapper.readValue(bytes, type);
            } catch (IOException error) {
                throw new IllegalStateException(new String(bytes, StandardCharsets.UTF_8), error);
            }
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }

    /** User and system time of this process, from where the other side takes it. */
    private static double cpuSeconds() throws IOException {
        String stat = Files.readString(Path.of("/proc/self/stat"));
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) / 100.0;
    }
}
