// Runs small topologies in Kafka Streams' own TopologyTestDriver and prints what they did, as JSON.
//
//   java -cp ... Oracle.java NAME SEED RUNS RECORDS              prints one topology's runs
//   java -cp ... Oracle.java FOLDER SEED RUNS RECORDS NAME...    writes a file for each topology
//
// The name random_N is a program of random steps.
//
// Each run feeds random records: few keys, few values, nulls, and times that jump back and forth. crates/streams/tests
// builds the same topologies in Rust and must produce the same bytes.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.errors.StreamsException;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.*;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.*;
import org.apache.kafka.streams.test.TestRecord;

public class Oracle {
    static final Serde<String> S = Serdes.String();

    static Materialized<String, String, KeyValueStore<Bytes, byte[]>> kept(String name) {
        return Materialized.<String, String, KeyValueStore<Bytes, byte[]>>as(name).withKeySerde(S).withValueSerde(S);
    }

    static Materialized<String, String, WindowStore<Bytes, byte[]>> keptWindows(String name) {
        return Materialized.<String, String, WindowStore<Bytes, byte[]>>as(name).withKeySerde(S).withValueSerde(S);
    }

    static Materialized<String, String, SessionStore<Bytes, byte[]>> keptSessions(String name) {
        return Materialized.<String, String, SessionStore<Bytes, byte[]>>as(name).withKeySerde(S).withValueSerde(S);
    }

    /** A store that keeps versions, for so long. */
    static Materialized<String, String, KeyValueStore<Bytes, byte[]>> versioned(String name, long history) {
        return Materialized.<String, String>as(Stores.persistentVersionedKeyValueStore(name, ms(history))).withKeySerde(S).withValueSerde(S);
    }

    static Duration ms(long ms) {
        return Duration.ofMillis(ms);
    }

    /** Input topics of a topology; "t:" before a name sends null values too, "+" moves the clock on the wall. */
    record Program(List<String> inputs, StreamsBuilder builder) {}

    /** A program and the steps it was built from, which Rust builds it from again. */
    record Made(Program program, String steps) {}

    /** A program of random steps on streams and tables of text. Steps name earlier results by number. */
    static Made random(long seed) {
        Random random = new Random(seed);
        StreamsBuilder b = new StreamsBuilder();
        Consumed<String, String> text = Consumed.with(S, S);
        List<KStream<String, String>> streams = new ArrayList<>();
        List<KTable<String, String>> tables = new ArrayList<>();
        List<String> steps = new ArrayList<>();
        streams.add(b.stream("s", text));
        streams.add(b.stream("r", text));
        tables.add(b.table("t", text));
        tables.add(b.table("u", text));
        int count = 4 + random.nextInt(9);
        for (int i = 0; i < count; i++) {
            int step = random.nextInt(22);
            int x = random.nextInt(streams.size());
            int y = random.nextInt(streams.size());
            int t = random.nextInt(tables.size());
            int u = random.nextInt(tables.size());
            int kind = random.nextInt(3);
            KStream<String, String> stream = streams.get(x);
            KTable<String, String> table = tables.get(t);
            JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(ms(5), ms(3));
            StreamJoined<String, String, String> with = StreamJoined.with(S, S, S);
            switch (step) {
                case 0 -> streams.add(stream.filter((k, v) -> v.length() % 3 != 1));
                case 1 -> streams.add(stream.mapValues(v -> shorten(v + "m")));
                case 2 -> streams.add(stream.selectKey((k, v) -> v.substring(0, 1)));
                case 3 -> streams.add(stream.flatMapValues(v -> List.of(v, shorten("f" + v))));
                case 4 -> streams.add(stream.merge(streams.get(y)));
                case 5 -> streams.add(stream.repartition(Repartitioned.with(S, S)));
                case 6 -> tables.add(stream.groupByKey(Grouped.with(S, S)).reduce((p, q) -> shorten(p + q), Materialized.with(S, S)));
                case 7 -> tables.add(stream.toTable(Materialized.with(S, S)));
                case 8 -> tables.add(table.filter((k, v) -> v.length() % 3 != 2));
                case 9 -> tables.add(table.mapValues(v -> shorten(v + "n")));
                case 10 -> tables.add(switch (kind) {
                    case 0 -> table.join(tables.get(u), (p, q) -> shorten(p + "," + q));
                    case 1 -> table.leftJoin(tables.get(u), (p, q) -> shorten(p + "," + q));
                    default -> table.outerJoin(tables.get(u), (p, q) -> shorten(p + "," + q));
                });
                case 11 -> tables.add(table.groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .reduce((p, q) -> shorten(p + "+" + q), (p, q) -> shorten(p + "-" + q), Materialized.with(S, S)));
                case 12 -> streams.add(table.toStream().filter((k, v) -> v != null).mapValues(v -> v));
                case 13 -> streams.add(kind == 0
                    ? stream.join(table, (p, q) -> shorten(p + ";" + q), Joined.with(S, S, S))
                    : stream.leftJoin(table, (p, q) -> shorten(p + ";" + q), Joined.with(S, S, S)));
                case 14 -> streams.add(switch (kind) {
                    case 0 -> stream.join(streams.get(y), (p, q) -> shorten(p + "&" + q), windows, with);
                    case 1 -> stream.leftJoin(streams.get(y), (p, q) -> shorten(p + "&" + q), windows, with);
                    default -> stream.outerJoin(streams.get(y), (p, q) -> shorten(p + "&" + q), windows, with);
                });
                case 15 -> tables.add(kind == 0
                    ? table.join(tables.get(u), Oracle::foreignKey, (p, q) -> shorten(p + "=" + q), Materialized.with(S, S))
                    : table.leftJoin(tables.get(u), Oracle::foreignKey, (p, q) -> shorten(p + "=" + q), Materialized.with(S, S)));
                case 16 -> tables.add(table.suppress(Suppressed.untilTimeLimit(ms(7), Suppressed.BufferConfig.maxRecords(3))));
                case 17 -> streams.add(stream.groupByKey(Grouped.with(S, S)).windowedBy(TimeWindows.ofSizeAndGrace(ms(10), ms(4)))
                    .reduce((p, q) -> shorten(p + q), Materialized.with(S, S)).toStream((w, v) -> w.key() + w.window().start() % 3)
                    .filter((k, v) -> v != null).mapValues(v -> v));
                case 18 -> streams.add(stream.groupByKey(Grouped.with(S, S)).windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(4), ms(5)))
                    .reduce((p, q) -> shorten(p + q), Materialized.with(S, S)).toStream((w, v) -> w.key()).filter((k, v) -> v != null).mapValues(v -> v));
                case 19 -> streams.add(stream.split().branch((k, v) -> v.length() > 2).defaultBranch().entrySet().stream()
                    .filter(branch -> branch.getKey().endsWith("1")).findFirst().get().getValue());
                case 20 -> tables.add(table.transformValues(() -> new Marked(null)));
                default -> tables.add(stream.groupByKey(Grouped.with("p" + i, S, S)).<String>cogroup((k, v, a) -> shorten(a + v))
                    .cogroup(streams.get(y).groupByKey(Grouped.with("q" + i, S, S)), (k, v, a) -> shorten(v + a)).aggregate(() -> "i", Materialized.with(S, S)));
            }
            steps.add("[" + step + "," + x + "," + y + "," + t + "," + u + "," + kind + "]");
        }
        for (int i = 0; i < streams.size(); i++) streams.get(i).to("stream-" + i, Produced.with(S, S));
        for (int i = 0; i < tables.size(); i++) tables.get(i).toStream().to("table-" + i, Produced.with(S, S));
        return new Made(new Program(List.of("s", "r", "t:t", "t:u"), b), "[" + String.join(",", steps) + "]");
    }

    /** Keeps the end of a text, so that values do not grow without end. */
    static String shorten(String text) {
        return text.length() <= 12 ? text : text.substring(text.length() - 12);
    }

    static Program program(String name) {
        if (name.startsWith("random_")) return random(Long.parseLong(name.substring(7))).program();
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
                a.selectKey((k, v) -> v).toTable(kept("latest")).toStream().to("latest-out", Produced.with(S, S));
                return new Program(List.of("a"), b);
            }
            case "table_aggregate" -> {
                KTable<String, String> t = b.table("t", text);
                t.groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .aggregate(() -> "", (k, v, agg) -> agg + "+" + v, (k, v, agg) -> agg + "-" + v,
                        kept("agg"))
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
                    kept("kept"));
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
                    .count(Materialized.<String, Long, WindowStore<Bytes, byte[]>>as("closed").withRetention(ms(10000))).toStream()
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
            case "sessions" -> {
                KGroupedStream<String, String> g = b.stream("a", text).groupByKey(Grouped.with(S, S));
                g.windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(4), ms(6))).count(Materialized.as("counts")).toStream()
                    .to("counts-out", Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), Serdes.Long()));
                g.windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(5), ms(0))).reduce((x, y) -> x + y, Materialized.as("joined")).toStream()
                    .to("joined-out", Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), S));
                g.windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(3), ms(9)))
                    .aggregate(() -> "|", (k, v, agg) -> agg + v, (k, x, y) -> x + "&" + y, keptSessions("folded"))
                    .groupBy((w, v) -> KeyValue.pair(w.key() + v.length() % 2, v), Grouped.with(S, S))
                    .count(Materialized.as("lengths")).toStream().to("lengths-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("a"), b);
            }
            case "sessions_final" -> {
                b.stream("a", text).groupByKey(Grouped.with(S, S)).windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(4), ms(6)))
                    .emitStrategy(EmitStrategy.onWindowClose())
                    .count(Materialized.<String, Long, SessionStore<Bytes, byte[]>>as("closed").withRetention(ms(10000))).toStream()
                    .to("out", Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), Serdes.Long()));
                return new Program(List.of("a"), b);
            }
            case "sliding" -> {
                KGroupedStream<String, String> g = b.stream("a", text).groupByKey(Grouped.with(S, S));
                g.windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(ms(5), ms(4)))
                    .reduce((x, y) -> x + y, Materialized.as("short")).toStream()
                    .to("short-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 5), S));
                g.windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(ms(25), ms(50)))
                    .count(Materialized.as("long")).toStream()
                    .to("long-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 25), Serdes.Long()));
                return new Program(List.of("a"), b);
            }
            case "sliding_final" -> {
                b.stream("a", text).groupByKey(Grouped.with(S, S)).windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(ms(7), ms(3)))
                    .emitStrategy(EmitStrategy.onWindowClose())
                    .aggregate(() -> "", (k, v, agg) -> agg + v, keptWindows("closed").withRetention(ms(10000))).toStream()
                    .to("out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 7), S));
                return new Program(List.of("a"), b);
            }
            case "suppress_time" -> {
                KTable<String, String> t = b.table("t", text);
                t.suppress(Suppressed.untilTimeLimit(ms(6), Suppressed.BufferConfig.unbounded())).toStream().to("out", Produced.with(S, S));
                KTable<String, String> u = t.mapValues(v -> v + "!")
                    .suppress(Suppressed.<String>untilTimeLimit(ms(20), Suppressed.BufferConfig.maxRecords(2)).withName("few"));
                u.filter((k, v) -> v.length() > 2).toStream().to("few-out", Produced.with(S, S));
                u.join(b.table("r", text), (x, y) -> x + "," + y).toStream().to("joined-out", Produced.with(S, S));
                t.groupBy((k, v) -> KeyValue.pair(v, k), Grouped.with(S, S)).count(Materialized.as("n"))
                    .suppress(Suppressed.untilTimeLimit(ms(50), Suppressed.BufferConfig.maxBytes(200))).toStream()
                    .to("n-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("t:t", "t:r"), b);
            }
            case "suppress_windows" -> {
                KGroupedStream<String, String> g = b.stream("a", text).groupByKey(Grouped.with(S, S));
                g.windowedBy(TimeWindows.ofSizeAndGrace(ms(10), ms(5))).count(Materialized.as("tumbling"))
                    .filter((k, v) -> v != 3)
                    .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded())).toStream()
                    .to("tumbling-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 10), Serdes.Long()));
                g.windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(4), ms(6)))
                    .reduce((x, y) -> x + y, keptSessions("sessions"))
                    .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded())).toStream()
                    .to("sessions-out", Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), S));
                return new Program(List.of("a"), b);
            }
            case "cogroup" -> {
                KGroupedStream<String, String> x = b.stream("a", text).groupByKey(Grouped.with(S, S));
                KGroupedStream<String, String> y = b.stream("b", text).groupBy((k, v) -> v.substring(0, 1), Grouped.with(S, S));
                KGroupedStream<String, String> z = b.stream("c", text).filter((k, v) -> v.length() > 1).groupByKey(Grouped.with(S, S));
                x.<String>cogroup((k, v, agg) -> agg + v).cogroup(y, (k, v, agg) -> agg + "-" + v).cogroup(z, (k, v, agg) -> agg.length() + v)
                    .aggregate(() -> "0", kept("all")).toStream().to("out", Produced.with(S, S));
                x.<String>cogroup((k, v, agg) -> agg + "!" + v).cogroup(z, (k, v, agg) -> agg + "?" + v)
                    .aggregate(() -> "", Materialized.with(S, S)).filter((k, v) -> v.length() % 2 == 0).toStream().to("even-out", Produced.with(S, S));
                return new Program(List.of("a", "b", "c"), b);
            }
            case "cogroup_windows" -> {
                KGroupedStream<String, String> x = b.stream("a", text).groupByKey(Grouped.with(S, S));
                KGroupedStream<String, String> y = b.stream("b", text).groupBy((k, v) -> v.substring(0, 1), Grouped.with(S, S));
                CogroupedKStream<String, String> c = x.<String>cogroup((k, v, agg) -> agg + v).cogroup(y, (k, v, agg) -> agg + "-" + v);
                c.windowedBy(TimeWindows.ofSizeAndGrace(ms(12), ms(8)).advanceBy(ms(5))).aggregate(() -> "t", keptWindows("time")).toStream()
                    .to("time-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 12), S));
                c.windowedBy(SlidingWindows.ofTimeDifferenceAndGrace(ms(6), ms(30))).aggregate(() -> "s", keptWindows("sliding").withRetention(ms(10000))).toStream()
                    .to("sliding-out", Produced.with(WindowedSerdes.timeWindowedSerdeFrom(String.class, 6), S));
                c.windowedBy(SessionWindows.ofInactivityGapAndGrace(ms(5), ms(6)))
                    .aggregate(() -> "w", (k, one, two) -> one + "&" + two, keptSessions("sessions")).toStream()
                    .to("sessions-out", Produced.with(WindowedSerdes.sessionWindowedSerdeFrom(String.class), S));
                return new Program(List.of("a", "b"), b);
            }
            case "foreign_inner", "foreign_left" -> {
                KTable<String, String> l = b.table("l", text);
                KTable<String, String> r = b.table("r", text);
                KTable<String, String> j = name.equals("foreign_inner")
                    ? l.join(r, Oracle::foreignKey, (x, y) -> x + "," + y)
                    : l.leftJoin(r, Oracle::foreignKey, (x, y) -> x + "," + y);
                j.toStream().to("out", Produced.with(S, S));
                return new Program(List.of("t:l", "t:r"), b);
            }
            case "foreign_chain" -> {
                KTable<String, String> l = b.table("l", text).mapValues(v -> v + "'");
                KTable<String, String> r = b.table("r", text).filter((k, v) -> v.length() != 3);
                KTable<String, String> j = l.join(r, Oracle::foreignKey, (x, y) -> x + "," + y, TableJoined.as("named"), kept("kept"));
                j.filter((k, v) -> v.length() > 4).groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .count(Materialized.as("n")).toStream().to("n-out", Produced.with(S, Serdes.Long()));
                j.leftJoin(r, v -> v.substring(v.length() - 1), (x, y) -> x + ";" + y).toStream().to("out", Produced.with(S, S));
                return new Program(List.of("t:l", "t:r"), b);
            }
            case "global_table" -> {
                KStream<String, String> s = b.stream("s", text);
                GlobalKTable<String, String> g = b.globalTable("g", text);
                GlobalKTable<String, String> h = b.globalTable("h", text, kept("kept"));
                s.join(g, (k, v) -> k, (x, y) -> x + "," + y).to("inner", Produced.with(S, S));
                s.leftJoin(g, (k, v) -> foreignKey(v), (x, y) -> x + "," + y).to("left", Produced.with(S, S));
                s.selectKey((k, v) -> v).leftJoin(h, (k, v) -> foreignKey(v), (x, y) -> x + "," + y)
                    .groupByKey(Grouped.with(S, S)).count(Materialized.as("n")).toStream().to("n-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("s", "t:g", "t:h"), b);
            }
            case "self_join" -> {
                KStream<String, String> s = b.stream("s", text);
                s.join(s, (x, y) -> x + "," + y, JoinWindows.ofTimeDifferenceAndGrace(ms(5), ms(3)), StreamJoined.with(S, S, S)).to("out", Produced.with(S, S));
                KStream<String, String> m = s.mapValues(v -> v + "'");
                m.outerJoin(m.filter((k, v) -> v.length() > 2), (x, y) -> x + ";" + y, JoinWindows.ofTimeDifferenceAndGrace(ms(2), ms(6)), StreamJoined.with(S, S, S))
                    .to("outer-out", Produced.with(S, S));
                return new Program(List.of("s"), b);
            }
            case "optimized_tables" -> {
                KTable<String, String> t = b.table("t", text, kept("t-store"));
                KTable<String, String> u = b.table("u", text);
                t.groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .reduce((x, y) -> shorten(x + "+" + y), (x, y) -> shorten(x + "-" + y), kept("groups")).toStream().to("groups-out", Produced.with(S, S));
                t.join(u, (x, y) -> x + "," + y).toStream().to("joined-out", Produced.with(S, S));
                b.stream("s", text).leftJoin(u, (x, y) -> x + ";" + y).to("looked-up", Produced.with(S, S));
                b.table("unused", text).toStream().to("unused-out", Produced.with(S, S));
                return new Program(List.of("t:t", "t:u", "s", "t:unused"), b);
            }
            case "optimized_repartitions" -> {
                KStream<String, String> a = b.stream("a", text);
                KStream<String, String> keyed = a.selectKey((k, v) -> v.substring(0, 1));
                keyed.groupByKey(Grouped.with(S, S)).count(Materialized.as("n")).toStream().to("n-out", Produced.with(S, Serdes.Long()));
                keyed.filter((k, v) -> v.length() > 1).groupByKey(Grouped.with(S, S)).reduce((x, y) -> shorten(x + y), kept("sum"))
                    .toStream().to("sum-out", Produced.with(S, S));
                keyed.peek((k, v) -> { }).toTable(kept("latest")).toStream().to("latest-out", Produced.with(S, S));
                keyed.mapValues(v -> v + "'").groupByKey(Grouped.with(S, S)).reduce((x, y) -> shorten(x + y), kept("mapped"))
                    .toStream().to("mapped-out", Produced.with(S, S));
                keyed.join(b.table("t", text), (x, y) -> x + ";" + y, Joined.with(S, S, S)).to("looked-up", Produced.with(S, S));
                KStream<String, String> merged = a.map((k, v) -> KeyValue.pair(v, k)).merge(b.stream("c", text).selectKey((k, v) -> v));
                merged.groupByKey(Grouped.with(S, S)).count(Materialized.as("merged")).toStream().to("merged-out", Produced.with(S, Serdes.Long()));
                merged.filter((k, v) -> k.length() > 1).groupByKey(Grouped.with("chosen", S, S)).reduce((x, y) -> shorten(x + y), kept("chosen-store"))
                    .toStream().to("chosen-out", Produced.with(S, S));
                a.flatMap((k, v) -> List.of(KeyValue.pair(v, k))).groupByKey(Grouped.with(S, S))
                    .<String>cogroup((k, v, agg) -> shorten(agg + v)).aggregate(() -> "", kept("alone")).toStream().to("alone-out", Produced.with(S, S));
                a.selectKey((k, v) -> v).repartition(Repartitioned.with(S, S)).groupByKey(Grouped.with(S, S)).count(Materialized.as("asked"))
                    .toStream().to("asked-out", Produced.with(S, Serdes.Long()));
                KStream<String, String> unnamed = a.selectKey((k, v) -> v);
                unnamed.filter((k, v) -> v.length() > 1).groupByKey(Grouped.with(S, S)).reduce((x, y) -> shorten(x + y), Materialized.with(S, S))
                    .toStream().to("unnamed-out", Produced.with(S, S));
                unnamed.leftJoin(b.table("u", text), (x, y) -> x + ";" + y, Joined.with(S, S, S)).to("unnamed-looked-up", Produced.with(S, S));
                return new Program(List.of("a", "a", "c", "t:t", "t:u"), b);
            }
            case "optimized_self_joins" -> {
                KStream<String, String> s = b.stream("s", text);
                JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(ms(5), ms(3));
                StreamJoined<String, String, String> with = StreamJoined.with(S, S, S);
                s.join(s, (x, y) -> x + "," + y, windows, with).to("out", Produced.with(S, S));
                s.leftJoin(s, (x, y) -> x + ";" + y, windows.after(ms(1)), with).to("left-out", Produced.with(S, S));
                KStream<String, String> keyed = s.selectKey((k, v) -> v.substring(0, 1));
                keyed.outerJoin(keyed, (x, y) -> x + "&" + y, windows.before(ms(2)), with).to("keyed-out", Produced.with(S, S));
                s.join(s.filter((k, v) -> v.length() > 1), (x, y) -> x + "." + y, windows, with).to("two-out", Produced.with(S, S));
                return new Program(List.of("s"), b);
            }
            case "optimized_all" -> {
                KStream<String, String> s = b.stream("s", text);
                KTable<String, String> t = b.table("t", text);
                KStream<String, String> keyed = s.selectKey((k, v) -> v.substring(0, 1));
                JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(ms(5), ms(3));
                keyed.join(keyed, (x, y) -> x + "," + y, windows, StreamJoined.with(S, S, S).withName("pairs")).to("pairs-out", Produced.with(S, S));
                keyed.groupByKey(Grouped.with(S, S)).windowedBy(TimeWindows.ofSizeAndGrace(ms(10), ms(4))).count(Materialized.as("per-window"))
                    .toStream((w, v) -> w.key()).to("windows-out", Produced.with(S, Serdes.Long()));
                keyed.leftJoin(t, (x, y) -> x + ";" + y, Joined.with(S, S, S)).to("looked-up", Produced.with(S, S));
                t.groupBy((k, v) -> KeyValue.pair(v, k), Grouped.with(S, S)).count(Materialized.as("by-value")).toStream().to("by-value-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("s", "s", "t:t"), b);
            }
            case "table_kept" -> {
                KTable<String, String> t = b.table("t", text, kept("source"));
                KTable<String, String> f = t.filter((k, v) -> v.length() != 2, kept("filtered"));
                KTable<String, String> m = f.mapValues((k, v) -> k + v, kept("mapped"));
                m.toStream().to("out", Produced.with(S, S));
                f.filterNot((k, v) -> v.startsWith("x")).toStream().to("not-out", Produced.with(S, S));
                t.mapValues(v -> v.length() + "", Materialized.with(S, S)).groupBy((k, v) -> KeyValue.pair(v, k), Grouped.with(S, S))
                    .reduce((x, y) -> x + "+" + y, (x, y) -> x + "-" + y, kept("reduced")).toStream().to("reduced-out", Produced.with(S, S));
                m.outerJoin(f, (x, y) -> x + "," + y).toStream().to("joined-out", Produced.with(S, S));
                return new Program(List.of("t:t"), b);
            }
            case "branches" -> {
                KStream<String, String> a = b.stream(List.of("a", "b"), text);
                Map<String, KStream<String, String>> named = a.flatMap((k, v) -> List.of(KeyValue.pair(v, k), KeyValue.pair(k, v)))
                    .split(Named.as("part-")).branch((k, v) -> v.length() == 1, Branched.as("one"))
                    .branch((k, v) -> v.length() == 2, Branched.as("two")).noDefaultBranch();
                named.get("part-one").flatMapValues(v -> List.of(v, v + v)).to((k, v, context) -> k.length() > 1 ? "long" : "short", Produced.with(S, S));
                named.get("part-two").repartition(Repartitioned.<String, String>as("moved").withKeySerde(S).withValueSerde(S)).merge(a.mapValues(v -> v + "."))
                    .toTable(Materialized.with(S, S)).toStream((k, v) -> v == null ? k : v).to("table-out", Produced.with(S, S));
                return new Program(List.of("a", "b"), b);
            }
            case "named" -> {
                KStream<String, String> s = b.stream("s", text.withName("stream"));
                KTable<String, String> t = b.table("t", Consumed.with(S, S).withName("table"), kept("table-store"));
                KStream<String, String> f = s.filter((k, v) -> v.length() > 1, Named.as("filter")).mapValues(v -> v + ".", Named.as("map"));
                f.selectKey((k, v) -> v, Named.as("key")).groupByKey(Grouped.<String, String>as("group").withKeySerde(S).withValueSerde(S))
                    .count(Named.as("count"), Materialized.as("counts")).toStream(Named.as("to-stream"))
                    .to("counts-out", Produced.with(S, Serdes.Long()).withName("sink"));
                f.join(t, (x, y) -> x + "," + y, Joined.<String, String, String>as("lookup").withKeySerde(S).withValueSerde(S).withOtherValueSerde(S))
                    .to("lookup-out", Produced.with(S, S));
                s.leftJoin(f, (x, y) -> x + ";" + y, JoinWindows.ofTimeDifferenceAndGrace(ms(4), ms(3)), StreamJoined.with(S, S, S).withName("pairs"))
                    .to("pairs-out", Produced.with(S, S));
                KTable<String, String> u = t.mapValues(v -> v + "'", Named.as("table-map"));
                t.leftJoin(u, (x, y) -> x + "&" + y, Named.as("table-join")).groupBy((k, v) -> KeyValue.pair(v, k), Grouped.<String, String>as("regroup").withKeySerde(S).withValueSerde(S))
                    .reduce((x, y) -> x + "+" + y, (x, y) -> x + "-" + y, Named.as("reduce"), kept("reduced")).toStream().to("reduced-out", Produced.with(S, S));
                s.groupByKey(Grouped.with(S, S)).<String>cogroup((k, v, agg) -> agg + v)
                    .cogroup(f.groupByKey(Grouped.with(S, S)), (k, v, agg) -> agg + "-" + v).aggregate(() -> "", Named.as("both"), kept("both-store"))
                    .toStream().to("both-out", Produced.with(S, S));
                return new Program(List.of("s", "t:t"), b);
            }
            case "transformed" -> {
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("seen"), S, S));
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("again"), S, S));
                KTable<String, String> t = b.table("t", text);
                KTable<String, String> r = b.table("r", text);
                KTable<String, String> m = t.transformValues(() -> new Marked(null));
                m.toStream().to("out", Produced.with(S, S));
                m.join(r, (x, y) -> x + "," + y).toStream().to("inner-out", Produced.with(S, S));
                r.leftJoin(m, (x, y) -> x + ";" + y).groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .reduce((x, y) -> shorten(x + "+" + y), (x, y) -> shorten(x + "-" + y), kept("reduced")).toStream().to("left-out", Produced.with(S, S));
                b.stream("s", text).leftJoin(m, (x, y) -> x + "," + y).to("stream-out", Produced.with(S, S));
                m.join(r, Oracle::foreignKey, (x, y) -> x + "=" + y).toStream().to("foreign-out", Produced.with(S, S));
                r.leftJoin(m, Oracle::foreignKey, (x, y) -> x + "=" + y).toStream().to("foreign-back", Produced.with(S, S));
                KTable<String, String> k = t.transformValues(() -> new Marked("seen"), kept("kept"), Named.as("marked"), "seen");
                k.toStream().to("kept-out", Produced.with(S, S));
                k.filter((key, v) -> v.length() % 2 == 0).groupBy((key, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .aggregate(() -> "", (key, v, agg) -> agg + "+" + v, (key, v, agg) -> agg + "-" + v, kept("agg")).toStream().to("agg-out", Produced.with(S, S));
                t.leftJoin(r, (x, y) -> x + y).transformValues(() -> new Marked("again"), Materialized.with(S, S), "again")
                    .groupBy((key, v) -> KeyValue.pair(v, key), Grouped.with(S, S)).count(Materialized.as("n")).toStream().to("n-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("t:t", "t:r", "s"), b);
            }
            case "transformed_versions" -> {
                KTable<String, String> t = b.table("t", text, versioned("long", 30));
                KTable<String, String> u = b.table("u", text, versioned("short", 9));
                KTable<String, String> m = t.transformValues(() -> new Marked(null));
                m.toStream().to("out", Produced.with(S, S));
                m.join(u, (x, y) -> x + "," + y).toStream().to("inner-out", Produced.with(S, S));
                b.stream("s", text).join(m, (x, y) -> x + "," + y).to("stream-out", Produced.with(S, S));
                t.transformValues(() -> new Marked(null), Materialized.with(S, S)).leftJoin(u, (x, y) -> x + ";" + y).toStream().to("plain-out", Produced.with(S, S));
                t.mapValues(v -> v + "'", Materialized.with(S, S)).leftJoin(u, (x, y) -> x + "&" + y).toStream().to("mapped-out", Produced.with(S, S));
                t.filter((k, v) -> v.length() != 3, Materialized.with(S, S)).outerJoin(u, (x, y) -> x + "&" + y).toStream().to("filtered-out", Produced.with(S, S));
                t.transformValues(() -> new Marked(null), versioned("mapped", 4)).groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .aggregate(() -> "", (k, v, agg) -> agg + "+" + v, (k, v, agg) -> agg + "-" + v, kept("agg")).toStream().to("agg-out", Produced.with(S, S));
                return new Program(List.of("t:t", "t:u", "s"), b);
            }
            case "versioned_tables" -> {
                KTable<String, String> t = b.table("t", text, versioned("long", 30));
                KTable<String, String> u = b.table("u", text, versioned("short", 9));
                t.toStream().to("out", Produced.with(S, S));
                KTable<String, String> f = t.filter((k, v) -> v.length() % 3 != 2);
                f.toStream().to("filtered-out", Produced.with(S, S));
                t.join(u, (x, y) -> x + "," + y).toStream().to("inner-out", Produced.with(S, S));
                f.leftJoin(u, (x, y) -> x + ";" + y).toStream().to("left-out", Produced.with(S, S));
                t.mapValues(v -> v + "'").outerJoin(b.table("r", text), (x, y) -> x + "&" + y).toStream().to("outer-out", Produced.with(S, S));
                return new Program(List.of("t:t", "t:u", "t:r"), b);
            }
            case "versioned_groups" -> {
                KTable<String, String> t = b.table("t", text, versioned("long", 30));
                KTable<String, String> u = b.table("u", text, versioned("short", 9));
                t.mapValues(v -> v + ".", versioned("mapped", 4)).groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .aggregate(() -> "", (k, v, agg) -> agg + "+" + v, (k, v, agg) -> agg + "-" + v, versioned("agg", 6))
                    .toStream().to("agg-out", Produced.with(S, S));
                u.filter((k, v) -> v.length() != 1, kept("plain")).groupBy((k, v) -> KeyValue.pair(v, k), Grouped.with(S, S))
                    .count(Materialized.as("n")).toStream().to("n-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("t:t", "t:u"), b);
            }
            case "versioned_streams" -> {
                KTable<String, String> t = b.table("t", text, versioned("rows", 15));
                KStream<String, String> s = b.stream("s", text);
                s.join(t, (x, y) -> x + "," + y).to("inner-out", Produced.with(S, S));
                s.leftJoin(t.mapValues(v -> v + "'"), (x, y) -> x + "," + y).to("left-out", Produced.with(S, S));
                s.join(t.filter((k, v) -> v.length() > 1), (x, y) -> x + "," + y).to("filtered-out", Produced.with(S, S));
                s.groupByKey(Grouped.with(S, S)).reduce((x, y) -> x + y, versioned("joined", 5)).toStream().to("joined-out", Produced.with(S, S));
                s.selectKey((k, v) -> v).toTable(versioned("values", 8)).join(t, (x, y) -> x + "," + y).toStream().to("values-out", Produced.with(S, S));
                return new Program(List.of("s", "t:t"), b);
            }
            case "versioned_foreign" -> {
                KTable<String, String> l = b.table("l", text, versioned("left", 20));
                KTable<String, String> r = b.table("r", text, versioned("right", 20));
                l.join(r, Oracle::foreignKey, (x, y) -> x + "," + y).toStream().to("inner-out", Produced.with(S, S));
                l.filter((k, v) -> v.length() != 3).leftJoin(r, Oracle::foreignKey, (x, y) -> x + ";" + y).toStream().to("left-out", Produced.with(S, S));
                return new Program(List.of("t:l", "t:r"), b);
            }
            case "versioned_grace" -> {
                KTable<String, String> t = b.table("t", text, versioned("rows", 40));
                KStream<String, String> s = b.stream("s", text);
                s.join(t, (x, y) -> x + "," + y, Joined.with(S, S, S, "lookup", ms(10))).to("inner-out", Produced.with(S, S));
                s.mapValues(v -> v + "'").leftJoin(t, (x, y) -> x + "," + y, Joined.with(S, S, S, "left", ms(4))).to("left-out", Produced.with(S, S));
                return new Program(List.of("s", "t:t"), b);
            }
            case "processors" -> {
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("tally"), S, S));
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("last"), S, S));
                KStream<String, String> a = b.stream("a", text);
                a.process(Tally::new, "tally").filter((k, v) -> v != null).to("out", Produced.with(S, S));
                a.processValues(() -> new Changes("last"), "last").groupByKey(Grouped.with(S, S)).count(Materialized.as("n")).toStream().to("n-out", Produced.with(S, Serdes.Long()));
                return new Program(List.of("a", "a", "a", "+"), b);
            }
            case "processors_behind" -> {
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("joined"), S, S));
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("reduced"), S, S).withLoggingDisabled());
                KStream<String, String> l = b.stream("l", text);
                l.join(b.stream("r", text), (x, y) -> x + "," + y, JoinWindows.ofTimeDifferenceAndGrace(ms(6), ms(4)), StreamJoined.with(S, S, S))
                    .processValues(() -> new Changes("joined"), "joined").to("joined-out", Produced.with(S, S));
                l.groupByKey(Grouped.with(S, S)).reduce((x, y) -> shorten(x + y), kept("rows")).toStream().mapValues(v -> v)
                    .processValues(() -> new Changes("reduced"), "reduced").to("reduced-out", Produced.with(S, S));
                return new Program(List.of("l", "r"), b);
            }
            case "join_options" -> {
                KStream<String, String> l = b.stream("l", text);
                KStream<String, String> r = b.stream("r", text);
                JoinWindows w = JoinWindows.ofTimeDifferenceAndGrace(ms(6), ms(4));
                l.leftJoin(r, (x, y) -> x + "," + y, w, StreamJoined.with(S, S, S).withStoreName("kept")).to("left-out", Produced.with(S, S));
                l.outerJoin(r, (k, x, y) -> k + x + "," + y, w, StreamJoined.with(S, S, S).withName("pairs").withStoreName("both").withLoggingDisabled())
                    .to("outer-out", Produced.with(S, S));
                l.leftJoin(r, (x, y) -> x + ";" + y, w, StreamJoined.with(S, S, S).withThisStoreSupplier(Stores.inMemoryWindowStore("mine", ms(16), ms(12), true))
                    .withOtherStoreSupplier(Stores.inMemoryWindowStore("theirs", ms(16), ms(12), true))).to("supplied-out", Produced.with(S, S));
                l.flatMapValues((k, v) -> List.of(k + v, v)).join(b.table("t", text), (k, x, y) -> k + x + y, Joined.with(S, S, S)).to("table-out", Produced.with(S, S));
                return new Program(List.of("l", "r", "t:t"), b);
            }
            case "last_used" -> {
                KeyValueBytesStoreSupplier two = Stores.lruMap("rows", 2);
                KTable<String, String> t = b.table("t", text, Materialized.<String, String>as(two).withKeySerde(S).withValueSerde(S));
                KTable<String, String> f = t.filter((k, v) -> v.length() != 2, Materialized.<String, String>as(Stores.lruMap("filtered", 1)).withKeySerde(S).withValueSerde(S));
                f.toStream().to("out", Produced.with(S, S));
                f.groupBy((k, v) -> KeyValue.pair(v.substring(0, 1), v), Grouped.with(S, S))
                    .aggregate(() -> "", (k, v, agg) -> shorten(agg + "+" + v), (k, v, agg) -> shorten(agg + "-" + v), kept("agg")).toStream().to("agg-out", Produced.with(S, S));
                KStream<String, String> s = b.stream("s", text);
                s.leftJoin(t, (x, y) -> x + "," + y).to("joined-out", Produced.with(S, S));
                s.groupByKey(Grouped.with(S, S)).count(Materialized.<String, Long>as(Stores.lruMap("counts", 2)).withKeySerde(S).withValueSerde(Serdes.Long())).toStream()
                    .to("counts-out", Produced.with(S, Serdes.Long()));
                b.addStateStore(Stores.keyValueStoreBuilder(Stores.lruMap("last", 2), S, S));
                s.processValues(() -> new Changes("last"), "last").to("changes-out", Produced.with(S, S));
                return new Program(List.of("t:t", "s"), b);
            }
            case "unlimited" -> {
                KGroupedStream<String, String> x = b.stream("a", text).groupByKey(Grouped.with(S, S));
                KGroupedStream<String, String> y = b.stream("b", text).groupBy((k, v) -> v.substring(0, 1), Grouped.with(S, S));
                Serde<Windowed<String>> windowed = WindowedSerdes.timeWindowedSerdeFrom(String.class, Long.MAX_VALUE);
                x.windowedBy(UnlimitedWindows.of()).count(Materialized.as("all")).toStream().to("all-out", Produced.with(windowed, Serdes.Long()));
                KTable<Windowed<String>, String> since = x.windowedBy(UnlimitedWindows.of().startOn(java.time.Instant.ofEpochMilli(40)))
                    .reduce((one, two) -> shorten(one + two), keptWindows("since"));
                since.toStream().to("since-out", Produced.with(windowed, S));
                since.groupBy((w, v) -> KeyValue.pair(w.key() + (w.window().end() == Long.MAX_VALUE) + v.length() % 2, v), Grouped.with(S, S))
                    .count(Materialized.as("lengths")).toStream().to("lengths-out", Produced.with(S, Serdes.Long()));
                x.<String>cogroup((k, v, agg) -> shorten(agg + v)).cogroup(y, (k, v, agg) -> shorten(agg + "-" + v))
                    .windowedBy(UnlimitedWindows.of().startOn(java.time.Instant.ofEpochMilli(30))).aggregate(() -> "u", keptWindows("both")).toStream()
                    .to("both-out", Produced.with(windowed, S));
                return new Program(List.of("a", "a", "b"), b);
            }
            case "patterns" -> {
                KStream<String, String> matched = b.stream(java.util.regex.Pattern.compile("m-[a-z]+"), text);
                KStream<String, String> same = b.stream(java.util.regex.Pattern.compile("m-[a-z]+"), text);
                KStream<String, String> named = b.stream("a", text);
                KTable<String, String> t = b.table("t", text, kept("rows"));
                matched.merge(named).groupByKey(Grouped.with(S, S)).reduce((x, y) -> shorten(x + y), kept("joined"))
                    .toStream().to("joined-out", Produced.with(S, S));
                same.selectKey((k, v) -> v.substring(0, 1)).groupByKey(Grouped.with(S, S)).count(Materialized.as("n"))
                    .toStream().to("n-out", Produced.with(S, Serdes.Long()));
                b.stream(java.util.regex.Pattern.compile("(p|q)[0-9]*"), text.withName("numbered"))
                    .leftJoin(t, (x, y) -> x + "," + y, Joined.with(S, S, S)).to("m-back", Produced.with(S, S));
                return new Program(List.of("m-a", "m-bc", "a", "p", "q12", "t:t"), b);
            }
            case "stores_of_topics" -> {
                StreamsBuilder c = new StreamsBuilder() {
                    @Override
                    public synchronized Topology build(Properties settings) {
                        Topology topology = super.build(settings);
                        topology.addReadOnlyStateStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("rows"), S, S), "rows-source",
                            S.deserializer(), S.deserializer(), "r", "rows", () -> new Keep("rows", ""));
                        return topology.connectProcessorAndStateStores("KSTREAM-PROCESSVALUES-0000000003", "rows");
                    }
                };
                c.addGlobalStore(Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("kept"), S, S), "g", text, () -> new Keep("kept", "!"));
                c.stream("s", text).processValues(() -> new FixedKeyProcessor<String, String, String>() {
                    private FixedKeyProcessorContext<String, String> context;

                    @Override
                    public void init(FixedKeyProcessorContext<String, String> context) {
                        this.context = context;
                    }

                    @Override
                    public void process(FixedKeyRecord<String, String> record) {
                        ReadOnlyKeyValueStore<String, ?> kept = context.getStateStore("kept");
                        KeyValueStore<String, String> rows = context.getStateStore("rows");
                        Object there = kept.get(record.key());
                        String found = there instanceof ValueAndTimestamp<?> stamped ? (String) stamped.value() : (String) there;
                        context.forward(record.withValue(record.value() + "," + found + ";" + rows.get(record.key())));
                    }
                }).to("out", Produced.with(S, S));
                return new Program(List.of("s", "s", "t:g", "t:r"), c);
            }
            default -> throw new IllegalArgumentException(name);
        }
    }

    /** Keeps a topic's records in a store. */
    static class Keep implements Processor<String, String, Void, Void> {
        private final String name;
        private final String mark;
        private KeyValueStore<String, String> store;

        Keep(String name, String mark) {
            this.name = name;
            this.mark = mark;
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            store = context.getStateStore(name);
        }

        @Override
        public void process(Record<String, String> record) {
            if (record.value() == null) store.delete(record.key());
            else store.put(record.key(), record.value() + mark);
        }
    }

    /** Values that differ from the one before, with that. */
    static class Changes implements FixedKeyProcessor<String, String, String> {
        private final String name;
        private FixedKeyProcessorContext<String, String> context;
        private KeyValueStore<String, String> last;

        Changes(String name) {
            this.name = name;
        }

        @Override
        public void init(FixedKeyProcessorContext<String, String> context) {
            this.context = context;
            last = context.getStateStore(name);
        }

        @Override
        public void process(FixedKeyRecord<String, String> record) {
            String before = last.get(record.key());
            last.put(record.key(), record.value());
            if (!record.value().equals(before)) context.forward(record.withValue(before + ">" + record.value()));
        }
    }

    /** Marks values with the times of their rows, and counts in a store, if it has one. Makes something of nothing for one key, and nothing of something. */
    static class Marked implements ValueTransformerWithKey<String, String, String> {
        private final String name;
        private org.apache.kafka.streams.processor.ProcessorContext context;
        private KeyValueStore<String, String> seen;

        Marked(String name) {
            this.name = name;
        }

        @Override
        public void init(org.apache.kafka.streams.processor.ProcessorContext context) {
            this.context = context;
            if (name != null) seen = context.getStateStore(name);
        }

        @Override
        public String transform(String key, String value) {
            if (value == null && !key.equals("b") || value != null && value.startsWith("q")) return null;
            String made = shorten(value == null ? "none" : value) + "@" + context.timestamp();
            if (seen == null) return shorten(made);
            String before = seen.get(key);
            String now = before == null ? "1" : String.valueOf(Integer.parseInt(before) + 1);
            seen.put(key, now);
            return made + "#" + now;
        }

        @Override
        public void close() { }
    }

    /** Collects values, tells them by event time, and something by the clock on the wall. */
    static class Tally implements Processor<String, String, String, String> {
        private ProcessorContext<String, String> context;
        private KeyValueStore<String, String> tally;
        private int seen;

        @Override
        public void init(ProcessorContext<String, String> context) {
            this.context = context;
            tally = context.getStateStore("tally");
            context.schedule(ms(10), PunctuationType.STREAM_TIME, time -> {
                try (KeyValueIterator<String, String> all = tally.all()) {
                    all.forEachRemaining(entry -> context.forward(new Record<>(entry.key, entry.value, time)));
                }
            });
            context.schedule(ms(7), PunctuationType.WALL_CLOCK_TIME, time -> {
                tally.put("wall", String.valueOf(seen));
                context.forward(new Record<>("wall", String.valueOf(seen), time));
            });
        }

        @Override
        public void process(Record<String, String> record) {
            seen++;
            String before = tally.get(record.key());
            String now = before == null ? record.value() : before + record.value();
            if (now.length() > 6) {
                tally.delete(record.key());
                RecordHeaders headers = new RecordHeaders(record.headers());
                headers.add("offset", String.valueOf(context.recordMetadata().get().offset()).getBytes());
                context.forward(record.withValue(now).withHeaders(headers).withTimestamp(record.timestamp() + 1));
            } else {
                tally.put(record.key(), now);
            }
        }
    }

    /** A key of the tables' keys, or none. */
    static String foreignKey(String value) {
        return value.startsWith("w") ? null : KEYS[value.length() % 3];
    }

    static final String[] KEYS = {"a", "b", "c"};
    static final String[] VALUES = {"x", "xy", "xyz", "y", "yy", "q z", "zz z", "w"};

    /** NAME SEED RUNS RECORDS, or FOLDER SEED RUNS RECORDS NAME... to write files. */
    public static void main(String[] args) throws Exception {
        if (args.length == 4) {
            System.out.println(describe(args));
            return;
        }
        for (int i = 4; i < args.length; i++) {
            String text = describe(new String[] {args[i], args[1], args[2], args[3]});
            java.nio.file.Files.writeString(java.nio.file.Path.of(args[0], args[i] + ".json"), text + "\n");
        }
    }

    /** What `topology.optimization` is set to: every fourth random program is optimized, unless Kafka Streams cannot. */
    static String optimization(String name) {
        if (name.startsWith("random_")) {
            if (Long.parseLong(name.substring(7)) % 4 != 3) return "none";
            try {
                program(name).builder().build(settings("all"));
                return "all";
            } catch (StreamsException refused) {
                return "none";
            }
        }
        return switch (name) {
            case "optimized_tables" -> "reuse.ktable.source.topics";
            case "optimized_repartitions" -> "merge.repartition.topics";
            case "optimized_self_joins" -> "single.store.self.join";
            case "optimized_all" -> "all";
            default -> "none";
        };
    }

    static Properties settings(String optimization) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, optimization);
        return settings;
    }

    static String describe(String[] args) throws Exception {
        long seed = Long.parseLong(args[1]);
        int runs = Integer.parseInt(args[2]);
        int records = Integer.parseInt(args[3]);
        Random random = new Random(seed);
        StringBuilder out = new StringBuilder();
        out.append("{\"topology\":").append(quote(args[0]));
        String optimization = optimization(args[0]);
        out.append(",\"optimization\":").append(quote(optimization));
        out.append(",\"describe\":").append(quote(program(args[0]).builder().build(settings(optimization)).describe().toString()
            .replaceAll("extractor class: [^)]*", "extractor class: a lambda's")));
        if (args[0].startsWith("random_")) out.append(",\"steps\":").append(random(Long.parseLong(args[0].substring(7))).steps());
        out.append(",\"runs\":[");
        for (int run = 0; run < runs; run++) {
            if (run > 0) out.append(",\n");
            out.append(run(program(args[0]), optimization, random, records, run % 2 == 0));
        }
        return out.append("]}").toString();
    }

    static String run(Program program, String optimization, Random random, int records, boolean cached) throws Exception {
        Properties config = settings(optimization);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, "app");
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, "nowhere:9092");
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put("dsl.store.suppliers.class", "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers");
        config.put("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);
        config.put("__emit.interval.ms.kstreams.windowed.aggregation__", 0L);
        if (!cached) config.put("statestore.cache.max.bytes", 0L);
        config.put("state.dir", java.nio.file.Files.createTempDirectory("oracle").toString());
        StringBuilder inputs = new StringBuilder();
        StringBuilder outputs = new StringBuilder();
        try (TopologyTestDriver driver = new TopologyTestDriver(program.builder().build(config), config, java.time.Instant.ofEpochMilli(0))) {
            Map<String, TestInputTopic<String, String>> topics = new HashMap<>();
            long time = 20;
            for (int i = 0; i < records; i++) {
                String input = program.inputs().get(random.nextInt(program.inputs().size()));
                if (i > 0) inputs.append(",");
                if (input.equals("+")) {
                    int by = 1 + random.nextInt(12);
                    driver.advanceWallClockTime(ms(by));
                    inputs.append("[\"+\",null,null,").append(by).append("]");
                    continue;
                }
                boolean table = input.startsWith("t:");
                String topic = table ? input.substring(2) : input;
                time = Math.max(0, time + random.nextInt(9) - 2);
                long at = Math.max(0, time - (random.nextInt(5) == 0 ? random.nextInt(25) : 0));
                String key = KEYS[random.nextInt(KEYS.length)];
                String value = table && random.nextInt(4) == 0 ? null : VALUES[random.nextInt(VALUES.length)];
                RecordHeaders headers = new RecordHeaders();
                if (random.nextInt(6) == 0) headers.add("h", new byte[] {(byte) i});
                topics.computeIfAbsent(topic, t -> driver.createInputTopic(t, new StringSerializer(), new StringSerializer()))
                    .pipeInput(new TestRecord<>(key, value, headers, at));
                inputs.append("[").append(quote(topic)).append(",").append(quote(key)).append(",")
                    .append(value == null ? "null" : quote(value)).append(",").append(at).append(show(headers)).append("]");
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
                        .append(record.timestamp()).append(show(record.headers())).append("]");
                }
                outputs.append("]");
            }
        }
        return "{\"cached\":" + cached + ",\"inputs\":[" + inputs + "],\"outputs\":{" + outputs + "}}";
    }

    /** The headers as one more element, if there are any. */
    static String show(Iterable<Header> headers) {
        StringBuilder out = new StringBuilder();
        for (Header header : headers) {
            out.append(out.isEmpty() ? ",[" : ",").append("[").append(quote(header.key())).append(",").append(hex(header.value())).append("]");
        }
        return out.isEmpty() ? "" : out.append("]").toString();
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
