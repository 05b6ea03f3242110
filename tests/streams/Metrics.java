// Prints the names of all metrics that Kafka Streams has, behind their groups, one to a line.
//
//     java -cp ... Metrics BOOTSTRAP STATE_DIRECTORY
//
// Two instances, so that there are standbys, and one whose tasks the broker shares out; a topology with every kind of store.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.*;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.*;

public class Metrics {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> brokers = Map.of("bootstrap.servers", arguments[0]);
        try (Admin admin = Admin.create(brokers)) {
            admin.createTopics(List.of(new NewTopic("in", 2, (short) 1), new NewTopic("out", 2, (short) 1))).all().get();
        }
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(brokers, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < 100; number++) {
                producer.send(new ProducerRecord<>("in", null, number * 1_000L, "key-" + number % 7, "value"));
            }
        }
        List<KafkaStreams> instances = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            Properties settings = new Properties();
            settings.put("bootstrap.servers", arguments[0]);
            settings.put("application.id", number < 2 ? "metrics" : "metrics-of-broker");
            settings.put("state.dir", arguments[1] + "/" + number);
            settings.put("auto.offset.reset", "earliest");
            settings.put("default.key.serde", Serdes.StringSerde.class);
            settings.put("default.value.serde", Serdes.StringSerde.class);
            settings.put("metrics.recording.level", "TRACE");
            if (number < 2) {
                settings.put("num.standby.replicas", "1");
            } else {
                settings.put("group.protocol", "streams");
            }
            settings.put("commit.interval.ms", "100");
            instances.add(new KafkaStreams(topology(), settings));
        }
        Set<String> names = new TreeSet<>();
        try {
            instances.forEach(KafkaStreams::start);
            long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(90);
            // These are there only once standbys follow, nodes are ready, and the broker has given tasks out.
            List<String> last = List.of(" update-rate", " suppression-emit-rate", " tasks-assigned-latency-avg", " window-aggregate-final-emit-rate");
            while (!last.stream().allMatch(name -> names.stream().anyMatch(known -> known.endsWith(name)))) {
                if (System.nanoTime() > until) {
                    throw new IllegalStateException("after 90 seconds there is only " + names);
                }
                Thread.sleep(200);
                instances.forEach(instance -> gather(instance, names));
            }
        } finally {
            instances.forEach(instance -> instance.close(Duration.ofSeconds(10)));
        }
        names.forEach(System.out::println);
        System.exit(0);
    }

    static void gather(KafkaStreams instance, Set<String> names) {
        for (MetricName name : instance.metrics().keySet()) {
            if (name.group().startsWith("stream-")) {
                names.add(name.group() + " " + name.name());
            }
        }
    }

    static Topology topology() {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> in = builder.stream("in");
        KGroupedStream<String, String> grouped = in.groupByKey();
        grouped.count(Materialized.as("counts")).suppress(Suppressed.untilTimeLimit(Duration.ofSeconds(5), Suppressed.BufferConfig.unbounded()));
        grouped.count(Materialized.as(Stores.inMemoryKeyValueStore("counts-in-memory")));
        TimeWindowedKStream<String, String> windows = grouped.windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofSeconds(10)));
        windows.count(Materialized.as("windows"));
        windows.count(Materialized.as(Stores.inMemoryWindowStore("windows-in-memory", Duration.ofMinutes(5), Duration.ofSeconds(10), false)));
        windows.emitStrategy(EmitStrategy.onWindowClose()).count(Materialized.as("finals"));
        SessionWindowedKStream<String, String> sessions = grouped.windowedBy(SessionWindows.ofInactivityGapWithNoGrace(Duration.ofSeconds(3)));
        sessions.count(Materialized.as("sessions"));
        sessions.count(Materialized.as(Stores.inMemorySessionStore("sessions-in-memory", Duration.ofMinutes(5))));
        in.process(() -> new Processor<String, String, String, String>() {
            public void init(ProcessorContext<String, String> context) {
                context.schedule(Duration.ofMillis(100), PunctuationType.WALL_CLOCK_TIME, time -> { });
                this.context = context;
            }
            public void process(Record<String, String> record) {
                context.forward(record);
            }
            private ProcessorContext<String, String> context;
        }).to("out");
        return builder.build();
    }
}
