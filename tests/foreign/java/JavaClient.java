// The Java client: round trips, groups, timestamps and admin against the broker under test.
// Run from source (`java -cp 'libs/*' JavaClient.java BOOTSTRAP PHASE`), so it needs no build system.
// Speaks the line protocol described in ../python/report.py.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

public class JavaClient {
    static final int PARTITIONS = 6;
    static final Duration PATIENCE = Duration.ofSeconds(30);
    static final long BASE_TIMESTAMP = 1_700_000_000_000L;
    static final String TOPIC = "java-round-trip";
    static final String GROUP_TOPIC = "java-group";
    static final String KEPT_GROUP = "java-kept";

    static String bootstrap;
    static Admin admin;

    interface Body {
        void run() throws Exception;
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void check(String name, Body body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            String where = Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().startsWith("JavaClient")).map(f -> " line " + f.getLineNumber())
                .skip(error instanceof AssertionError ? 1 : 0).findFirst().orElse("");
            System.out.println("not ok " + name + ": " + error.toString().replaceAll("\\s+", " ") + where);
        }
    }

    static void expectEqual(Object actual, Object expected, String what) {
        if (!Objects.equals(actual, expected)) {
            throw new AssertionError(what + ": expected " + expected + ", got " + actual);
        }
    }

    /** Calls the condition, which does the polling itself, until it holds. */
    static void waitUntil(Condition condition, String what) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.holds()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError(what + ": not within " + PATIENCE);
            }
        }
    }

    static <T> T get(org.apache.kafka.common.KafkaFuture<T> future) throws Exception {
        return future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
    }

    static KafkaProducer<String, String> producer(Object... settings) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        all.put("linger.ms", 2);
        for (int i = 0; i < settings.length; i += 2) {
            all.put((String) settings[i], settings[i + 1]);
        }
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String group, Object... settings) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        all.put("group.id", group);
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", false);
        all.put("heartbeat.interval.ms", 300);
        all.put("session.timeout.ms", 6000);
        for (int i = 0; i < settings.length; i += 2) {
            all.put((String) settings[i], settings[i + 1]);
        }
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    static List<RecordMetadata> send(List<ProducerRecord<String, String>> records, Object... settings) throws Exception {
        List<RecordMetadata> reports = new ArrayList<>();
        try (KafkaProducer<String, String> client = producer(settings)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            records.forEach(record -> futures.add(client.send(record)));
            client.flush();
            for (Future<RecordMetadata> future : futures) {
                reports.add(future.get());
            }
        }
        return reports;
    }

    static List<ConsumerRecord<String, String>> take(KafkaConsumer<String, String> client, long count) throws Exception {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        waitUntil(() -> {
            client.poll(Duration.ofMillis(200)).forEach(records::add);
            return records.size() >= count;
        }, count + " records from a consumer");
        return records;
    }

    static List<ConsumerRecord<String, String>> readFrom(TopicPartition partition, long offset, int count) throws Exception {
        try (KafkaConsumer<String, String> client = consumer("java-reader")) {
            client.assign(List.of(partition));
            client.seek(partition, offset);
            return take(client, count);
        }
    }

    static long end(TopicPartition partition) throws Exception {
        return get(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).partitionResult(partition)).offset();
    }

    static String config(String key) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        return get(admin.describeConfigs(List.of(resource)).all()).get(resource).get(key).value();
    }

    static void topicsByAdmin() throws Exception {
        Map<String, String> keptForever = Map.of("retention.ms", "-1"); // the records are of 2023
        get(admin.createTopics(List.of(
            new NewTopic(TOPIC, 1, (short) 1).configs(keptForever),
            new NewTopic(GROUP_TOPIC, 2, (short) 1).configs(keptForever))).all());
        get(admin.createPartitions(Map.of(GROUP_TOPIC, NewPartitions.increaseTo(PARTITIONS))).all());
        waitUntil(() -> get(admin.describeTopics(List.of(GROUP_TOPIC)).allTopicNames()).get(GROUP_TOPIC).partitions().size()
            == PARTITIONS, "six partitions");
        expectEqual(config("retention.ms"), "-1", "retention.ms as created");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry("max.message.bytes", "2000000"), AlterConfigOp.OpType.SET);
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all());
        waitUntil(() -> config("max.message.bytes").equals("2000000"), "altered max.message.bytes");
        expectEqual(get(admin.describeCluster().nodes()).size(), 1, "nodes of the cluster");
    }

    static void roundTrip(String codec) throws Exception {
        TopicPartition partition = new TopicPartition(TOPIC, 0);
        long first = end(partition);
        List<ProducerRecord<String, String>> sent = new ArrayList<>();
        for (int n = 0; n < 60; n++) {
            List<Header> headers = List.of(header("n", "" + n), header("n", "again"), header("empty", ""), header("null", null));
            sent.add(new ProducerRecord<>(TOPIC, 0, BASE_TIMESTAMP + n, n % 7 == 3 ? null : codec + "-" + n,
                n % 5 == 4 ? null : ("value " + n + " ").repeat(20), headers));
        }
        List<Long> offsets = send(sent, "compression.type", codec).stream().map(RecordMetadata::offset).toList();
        expectEqual(offsets, LongStream.range(first, first + 60).boxed().toList(), "offsets");
        List<ConsumerRecord<String, String>> got = readFrom(partition, first, 60);
        for (int n = 0; n < 60; n++) {
            ProducerRecord<String, String> expected = sent.get(n);
            ConsumerRecord<String, String> actual = got.get(n);
            expectEqual(Arrays.asList(actual.key(), actual.value(), actual.timestamp(), List.of(actual.headers().toArray())),
                Arrays.asList(expected.key(), expected.value(), expected.timestamp(), List.of(expected.headers().toArray())), "record");
        }
    }

    static Header header(String key, String value) {
        return new RecordHeader(key, value == null ? null : value.getBytes(StandardCharsets.UTF_8));
    }

    static void idempotent() throws Exception {
        TopicPartition partition = new TopicPartition(TOPIC, 0);
        long first = end(partition);
        List<String> values = IntStream.range(0, 2000).mapToObj(Integer::toString).toList();
        send(values.stream().map(value -> new ProducerRecord<String, String>(TOPIC, 0, null, value)).toList(),
            "enable.idempotence", true, "batch.size", 500, "max.in.flight.requests.per.connection", 5);
        expectEqual(readFrom(partition, first, 2000).stream().map(ConsumerRecord::value).toList(), values, "values, each once");
    }

    static void seekByTimestamp() throws Exception {
        TopicPartition partition = new TopicPartition(GROUP_TOPIC, 0);
        List<ProducerRecord<String, String>> records = new ArrayList<>();
        for (int n = 0; n < 50; n++) {
            records.add(new ProducerRecord<>(GROUP_TOPIC, 0, BASE_TIMESTAMP + 10 * n, null, "x"));
        }
        long base = send(records).get(0).offset();
        try (KafkaConsumer<String, String> client = consumer("java-reader")) {
            OffsetAndTimestamp found = client.offsetsForTimes(Map.of(partition, BASE_TIMESTAMP + 205)).get(partition);
            expectEqual(List.of(found.offset(), found.timestamp()), List.of(base + 21, BASE_TIMESTAMP + 210), "first at or after");
            expectEqual(client.offsetsForTimes(Map.of(partition, BASE_TIMESTAMP + 10_000)).get(partition), null, "after the last");
            client.assign(List.of(partition));
            client.seek(partition, found.offset());
            expectEqual(take(client, 1).get(0).timestamp(), BASE_TIMESTAMP + 210, "timestamp of the record found");
        }
        long newest = get(admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).partitionResult(partition)).offset();
        expectEqual(newest, base + 49, "offset of the largest timestamp");
    }

    static void groupOfTwo(String assignor) throws Exception {
        String group = "java-group-" + assignor;
        String strategy = "org.apache.kafka.clients.consumer." + assignor;
        List<KafkaConsumer<String, String>> members = new ArrayList<>();
        members.add(consumer(group, "partition.assignment.strategy", strategy));
        members.add(consumer(group, "partition.assignment.strategy", strategy, "group.instance.id", "second"));
        Callable<List<Integer>> sizes = () -> {
            members.forEach(member -> member.poll(Duration.ofMillis(50)));
            return members.stream().map(member -> member.assignment().size()).toList();
        };
        try {
            members.get(0).subscribe(List.of(GROUP_TOPIC));
            waitUntil(() -> {
                members.get(0).poll(Duration.ofMillis(50));
                return members.get(0).assignment().size() == PARTITIONS;
            }, "the first member owns all partitions");
            members.get(1).subscribe(List.of(GROUP_TOPIC));
            waitUntil(() -> sizes.call().equals(List.of(3, 3)), "two members share the partitions");
            members.remove(0).close();
            waitUntil(() -> sizes.call().equals(List.of(PARTITIONS)), "the static member that stays owns all partitions");
        } finally {
            members.forEach(KafkaConsumer::close);
        }
    }

    static void committedOffsets() throws Exception {
        TopicPartition partition = new TopicPartition(GROUP_TOPIC, 1);
        send(IntStream.range(0, 20).mapToObj(n -> new ProducerRecord<String, String>(GROUP_TOPIC, 1, null, "" + n)).toList());
        try (KafkaConsumer<String, String> client = consumer(KEPT_GROUP)) {
            client.subscribe(List.of(GROUP_TOPIC));
            take(client, 20);
            client.commitSync(Map.of(partition, new OffsetAndMetadata(12, "noted")));
        }
        committedOffsetIsKept();
    }

    static void committedOffsetIsKept() throws Exception {
        TopicPartition partition = new TopicPartition(GROUP_TOPIC, 1);
        try (KafkaConsumer<String, String> client = consumer(KEPT_GROUP)) {
            TopicPartition never = new TopicPartition(GROUP_TOPIC, 2);
            Map<TopicPartition, OffsetAndMetadata> stored = client.committed(Set.of(partition, never));
            expectEqual(List.of(stored.get(partition).offset(), stored.get(partition).metadata()), List.of(12L, "noted"), "committed");
            expectEqual(stored.get(never), null, "offset never committed");
            client.assign(List.of(partition));
            expectEqual(take(client, 1).get(0).value(), "12", "record at the committed offset");
        }
    }

    static void groupsByAdmin() throws Exception {
        String group = "java-admin";
        TopicPartition partition = new TopicPartition(GROUP_TOPIC, 0);
        try (KafkaConsumer<String, String> member = consumer(group)) {
            member.subscribe(List.of(GROUP_TOPIC));
            waitUntil(() -> {
                member.poll(Duration.ofMillis(50));
                return member.assignment().size() == PARTITIONS;
            }, "the only member owns all partitions");
            expectEqual(groups().contains(group), true, "the group is listed");
            ConsumerGroupDescription described = get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            expectEqual(described.groupState().toString() + described.members().size(), "Stable1", "state and members");
            member.commitSync(Map.of(partition, new OffsetAndMetadata(5)));
        }
        get(admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(3))).all());
        Map<TopicPartition, OffsetAndMetadata> offsets = get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        expectEqual(offsets.get(partition).offset(), 3L, "listed offset");
        get(admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all());
        get(admin.deleteConsumerGroups(List.of(group)).all());
        expectEqual(groups().contains(group), false, "the deleted group is listed");
    }

    static Set<String> groups() throws Exception {
        return get(admin.listGroups().all()).stream().map(GroupListing::groupId).collect(Collectors.toSet());
    }

    static void deleteByAdmin() throws Exception {
        String name = "java-short-lived";
        TopicPartition partition = new TopicPartition(name, 0);
        get(admin.createTopics(List.of(new NewTopic(name, 1, (short) 1))).all());
        send(IntStream.range(0, 10).mapToObj(n -> new ProducerRecord<String, String>(name, 0, null, "" + n)).toList());
        long low = get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(partition)).lowWatermark();
        expectEqual(low, 4L, "low watermark after deleting records");
        get(admin.deleteTopics(List.of(name)).all());
        waitUntil(() -> !get(admin.listTopics().names()).contains(name), "the topic is gone");
    }

    static void writeCross() throws Exception {
        send(IntStream.range(0, 24).mapToObj(n -> "key-" + n)
            .map(key -> new ProducerRecord<>("cross", key, "java:" + key)).toList());
    }

    static void readCross() throws Exception {
        List<TopicPartition> partitions = IntStream.range(0, PARTITIONS).mapToObj(n -> new TopicPartition("cross", n)).toList();
        try (KafkaConsumer<String, String> client = consumer("java-reader")) {
            client.assign(partitions);
            client.seekToBeginning(partitions);
            long total = client.endOffsets(partitions).values().stream().mapToLong(Long::longValue).sum();
            for (ConsumerRecord<String, String> record : take(client, total)) {
                System.out.println("record " + record.partition() + " " + record.key() + " " + record.value());
            }
        }
    }

    public static void main(String[] arguments) {
        bootstrap = arguments[0];
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        if (arguments[1].equals("first")) {
            check("create, grow, describe and alter topics", JavaClient::topicsByAdmin);
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                check("round trip " + codec, () -> roundTrip(codec));
            }
            check("idempotent producer", JavaClient::idempotent);
            check("seek by timestamp", JavaClient::seekByTimestamp);
            check("group of two, range", () -> groupOfTwo("RangeAssignor"));
            check("group of two, cooperative", () -> groupOfTwo("CooperativeStickyAssignor"));
            check("committed offsets survive the consumer", JavaClient::committedOffsets);
            check("list, describe, alter and delete groups", JavaClient::groupsByAdmin);
            check("delete records and topics", JavaClient::deleteByAdmin);
            check("write cross", JavaClient::writeCross);
        } else {
            check("committed offsets survive the broker", JavaClient::committedOffsetIsKept);
            check("read cross", JavaClient::readCross);
        }
        admin.close();
        System.out.println("done");
    }
}
