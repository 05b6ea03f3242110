// Runs small topologies in Kafka Streams' own TopologyTestDriver and prints what they did, as JSON.
//
//   java -cp ... Oracle.java NAME SEED RUNS RECORDS
//
// Each run feeds random records: few keys, few values, nulls, and times that jump back and forth. crates/streams/tests
// builds the same topologies in Rust and must produce the same bytes.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.test.TestRecord;

public class Oracle {
    static final Serde<String> S = Serdes.String();

    /** Input topics of a topology; "t:" before a name sends null values too. */
    record Program(List<String> inputs, StreamsBuilder builder) {}

    static Program program(String name) {
        StreamsBuilder b = new StreamsBuilder();
        Consumed<String, String> text = Consumed.with(S, S);
        switch (name) {
            case "word_count" -> {
                b.stream("a", text).flatMapValues(v -> Arrays.asList(v.split(" ")))
                    .groupBy((k, v) -> v, Grouped.with(S, S)).count(Materialized.as("counts"))
                    .toStream().to("out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("a"), b);
            }
            case "stateless" -> {
                KStream<String, String> a = b.stream("a", text);
                Map<String, KStream<String, String>> branches = a.filter((k, v) -> v.length() > 1).split()
                    .branch((k, v) -> v.startsWith("x")).branch((k, v) -> v.startsWith("y")).defaultBranch();
                List<String> names = new ArrayList<>(branches.keySet());
                Collections.sort(names);
                KStream<String, String> other = branches.get(names.get(0));
                KStream<String, String> x = branches.get(names.get(1));
                KStream<String, String> y = branches.get(names.get(2));
                x.mapValues(v -> v + "!").merge(y.map((k, v) -> KeyValue.pair(v, k))).to("xy", Produced.with(S, S));
                other.selectKey((k, v) -> v).repartition(Repartitioned.with(S, S)).peek((k, v) -> { })
                    .filterNot((k, v) -> v.endsWith("z")).to("rest", Produced.with(S, S));
                return new Program(List.of("a"), b);
            }
            case "reduce_and_table" -> {
                KStream<String, String> a = b.stream("a", text);
                a.groupByKey(Grouped.with(S, S)).reduce((x, y) -> x + y, Materialized.as("joined"))
                    .filter((k, v) -> v.length() % 3 != 0).mapValues(v -> v.length() + "").toStream()
                    .to("out", Produced.with(S, S));
                a.selectKey((k, v) -> v).toTable(Materialized.<String, String, org.apache.kafka.streams.state.KeyValueStore<org.apache.kafka.common.utils.Bytes, byte[]>>as("latest")
                    .withKeySerde(S).withValueSerde(S)).toStream().to("latest-out", Produced.with(S, S));
                return new Program(List.of("a"), b);
            }
            case "table_aggregate" -> {
                KTable<String, String> t = b.table("t", text);
                t.groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .aggregate(() -> "", (k, v, agg) -> agg + "+" + v, (k, v, agg) -> agg + "-" + v,
                        Materialized.<String, String, org.apache.kafka.streams.state.KeyValueStore<org.apache.kafka.common.utils.Bytes, byte[]>>as("agg")
                            .withKeySerde(S).withValueSerde(S))
                    .toStream().to("out", Produced.with(S, S));
                t.groupBy((k, v) -> KeyValue.pair(v, k), Grouped.with(S, S)).count(Materialized.as("n"))
                    .toStream().to("n-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("t:t"), b);
            }
            case "table_join_inner", "table_join_left", "table_join_outer" -> {
                KTable<String, String> l = b.table("l", text);
                KTable<String, String> r = b.table("r", text);
                KTable<String, String> j = switch (name) {
                    case "table_join_inner" -> l.join(r, (x, y) -> x + "," + y);
                    case "table_join_left" -> l.leftJoin(r, (x, y) -> x + "," + y);
                    default -> l.outerJoin(r, (x, y) -> x + "," + y);
                };
                j.toStream().to("out", Produced.with(S, S));
                return new Program(List.of("t:l", "t:r"), b);
            }
            case "table_join_chain" -> {
                KTable<String, String> l = b.table("l", text);
                KTable<String, String> r = b.table("r", text);
                KTable<String, String> z = b.table("z", text);
                KTable<String, String> j = l.filter((k, v) -> v.length() != 2).leftJoin(r.mapValues(v -> v + "'"), (x, y) -> x + "," + y,
                    Materialized.<String, String, org.apache.kafka.streams.state.KeyValueStore<org.apache.kafka.common.utils.Bytes, byte[]>>as("kept")
                        .withKeySerde(S).withValueSerde(S));
                j.outerJoin(z, (x, y) -> x + ";" + y).groupBy((k, v) -> KeyValue.pair(v.length() + "", v), Grouped.with(S, S))
                    .reduce((x, y) -> x + "+" + y, (x, y) -> x + "-" + y).toStream().to("out", Produced.with(S, S));
                return new Program(List.of("t:l", "t:r", "t:z"), b);
            }
            case "stream_table" -> {
                KStream<String, String> s = b.stream("s", text);
                KTable<String, String> t = b.table("t", text);
                s.join(t, (x, y) -> x + "," + y).to("inner", Produced.with(S, S));
                s.leftJoin(t, (x, y) -> x + "," + y).to("left", Produced.with(S, S));
                s.selectKey((k, v) -> v).join(t.mapValues(v -> v + "'"), (x, y) -> x + "," + y, Joined.with(S, S, S))
                    .to("rekeyed", Produced.with(S, S));
                return new Program(List.of("s", "t:t"), b);
            }
            case "windows" -> {
                KGroupedStream<String, String> g = b.stream("a", text).groupByKey(Grouped.with(S, S));
                g.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(10), Duration.ofMillis(5)))
                    .count(Materialized.as("tumbling")).toStream()
                    .to("tumbling-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 10), Serdes.Long()));
                g.windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(10), Duration.ofMillis(0)).advanceBy(Duration.ofMillis(4)))
                    .reduce((x, y) -> x + y, Materialized.as("hopping")).toStream()
                    .to("hopping-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 10), S));
                return new Program(List.of("a"), b);
            }
            case "windows_final" -> {
                b.stream("a", text).groupByKey(Grouped.with(S, S))
                    .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(10), Duration.ofMillis(5)))
                    .emitStrategy(EmitStrategy.onWindowClose())
                    .count(Materialized.as("closed")).toStream()
                    .to("out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 10), Serdes.Long()));
                return new Program(List.of("a"), b);
            }
            case "stream_join_inner", "stream_join_left", "stream_join_outer" -> {
                KStream<String, String> l = b.stream("l", text);
                KStream<String, String> r = b.stream("r", text);
                JoinWindows w = JoinWindows.ofTimeDifferenceAndGrace(Duration.ofMillis(6), Duration.ofMillis(4)).after(Duration.ofMillis(3));
                StreamJoined<String, String, String> with = StreamJoined.with(S, S, S);
                KStream<String, String> j = switch (name) {
                    case "stream_join_inner" -> l.join(r, (x, y) -> x + "," + y, w, with);
                    case "stream_join_left" -> l.leftJoin(r, (x, y) -> x + "," + y, w, with);
                    default -> l.outerJoin(r, (x, y) -> x + "," + y, w, with);
                };
                j.to("out", Produced.with(S, S));
                return new Program(List.of("l", "r"), b);
            }
            default -> throw new IllegalArgumentException(name);
        }
    }

    static final String[] KEYS = {"a", "b", "c"};
    static final String[] VALUES = {"x", "xy", "xyz", "y", "yy", "q z", "zz z", "w"};

    public static void main(String[] args) throws Exception {
        long seed = Long.parseLong(args[1]);
        int runs = Integer.parseInt(args[2]);
        int records = Integer.parseInt(args[3]);
        Random random = new Random(seed);
        StringBuilder out = new StringBuilder();
        out.append("{\"topology\":").append(quote(args[0]));
        out.append(",\"describe\":").append(quote(program(args[0]).builder().build().describe().toString()));
        out.append(",\"runs\":[");
        for (int run = 0; run < runs; run++) {
            if (run > 0) out.append(",\n");
            out.append(run(program(args[0]), random, records));
        }
        System.out.println(out.append("]}"));
    }

    static String run(Program program, Random random, int records) throws Exception {
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, "app");
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, "nowhere:9092");
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put("dsl.store.suppliers.class", "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers");
        config.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        config.put("__emit.interval.ms.kstreams.windowed.aggregation__", 0L);
        config.put("state.dir", java.nio.file.Files.createTempDirectory("oracle").toString());
        StringBuilder inputs = new StringBuilder();
        StringBuilder outputs = new StringBuilder();
        try (TopologyTestDriver driver = new TopologyTestDriver(program.builder().build(config), config)) {
            Map<String, TestInputTopic<String, String>> topics = new HashMap<>();
            long time = 20;
            for (int i = 0; i < records; i++) {
                String input = program.inputs().get(random.nextInt(program.inputs().size()));
                boolean table = input.startsWith("t:");
                String topic = table ? input.substring(2) : input;
                time = Math.max(0, time + random.nextInt(9) - 2);
                long at = Math.max(0, time - (random.nextInt(5) == 0 ? random.nextInt(25) : 0));
                String key = KEYS[random.nextInt(KEYS.length)];
                String value = table && random.nextInt(4) == 0 ? null : VALUES[random.nextInt(VALUES.length)];
                topics.computeIfAbsent(topic, t -> driver.createInputTopic(t, new StringSerializer(), new StringSerializer()))
                    .pipeInput(key, value, at);
                if (i > 0) inputs.append(",");
                inputs.append("[").append(quote(topic)).append(",").append(quote(key)).append(",")
                    .append(value == null ? "null" : quote(value)).append(",").append(at).append("]");
            }
            List<String> produced = new ArrayList<>(driver.producedTopicNames());
            Collections.sort(produced);
            boolean first = true;
            for (String topic : produced) {
                TestOutputTopic<byte[], byte[]> read = driver.createOutputTopic(topic, new ByteArrayDeserializer(), new ByteArrayDeserializer());
                if (!first) outputs.append(",");
                first = false;
                outputs.append(quote(topic)).append(":[");
                boolean one = true;
                for (TestRecord<byte[], byte[]> record : read.readRecordsToList()) {
                    if (!one) outputs.append(",");
                    one = false;
                    outputs.append("[").append(hex(record.key())).append(",").append(hex(record.value())).append(",")
                        .append(record.timestamp()).append("]");
                }
                outputs.append("]");
            }
        }
        return "{\"inputs\":[" + inputs + "],\"outputs\":{" + outputs + "}}";
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "null" : quote(HexFormat.of().formatHex(bytes));
    }

    static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                default -> out.append(c);
            }
        }
        return out.append("\"").toString();
    }
}
