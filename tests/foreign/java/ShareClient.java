// Java's KafkaShareConsumer against the broker under test: every kind of acknowledgement, locks that end, members
// that share, administration, and what a SIGKILL leaves.
// Run from source (`java -cp 'libs/*' ShareClient.java BOOTSTRAP first|second`); speaks the line protocol described
// in ../python/report.py.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public class ShareClient {
    static final Duration PATIENCE = Duration.ofSeconds(30);
    static final String TOPIC = "share-kinds";
    static final String SPREAD_TOPIC = "share-spread";
    static final String KEPT_TOPIC = "share-kept";
    static final String KEPT_GROUP = "share-kept-group";

    static String bootstrap;
    static boolean isExact;
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
                .filter(frame -> frame.getClassName().startsWith("ShareClient")).map(f -> " line " + f.getLineNumber())
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

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
    }

    static void setGroup(String group, String... settings) throws Exception {
        List<AlterConfigOp> operations = new ArrayList<>();
        for (int i = 0; i < settings.length; i += 2) {
            operations.add(new AlterConfigOp(new ConfigEntry(settings[i], settings[i + 1]), AlterConfigOp.OpType.SET));
        }
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        get(admin.incrementalAlterConfigs(Map.of(resource, operations)).all());
    }

    static void produce(String topic, int partition, int from, int to) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "linger.ms", 5);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int value = from; value < to; value++) {
                producer.send(new ProducerRecord<>(topic, partition, null, "v" + value));
            }
            producer.flush();
        }
    }

    static KafkaShareConsumer<String, String> consumer(String group, Object... settings) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        all.put("group.id", group);
        all.put("share.acknowledgement.mode", "explicit");
        for (int i = 0; i < settings.length; i += 2) {
            all.put((String) settings[i], settings[i + 1]);
        }
        return new KafkaShareConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    /** Polls until so many records have come, treating each one as it comes. */
    static List<ConsumerRecord<String, String>> take(
            KafkaShareConsumer<String, String> consumer, int count,
            java.util.function.Function<ConsumerRecord<String, String>, AcknowledgeType> judge) throws Exception {
        List<ConsumerRecord<String, String>> taken = new ArrayList<>();
        waitUntil(() -> {
            for (var record : consumer.poll(Duration.ofMillis(200))) {
                taken.add(record);
                consumer.acknowledge(record, judge.apply(record));
            }
            expectCommitted(consumer.commitSync());
            return taken.size() >= count;
        }, count + " records, of which " + taken.size() + " came");
        return taken;
    }

    static void expectCommitted(Map<TopicIdPartition, Optional<KafkaException>> outcomes) {
        outcomes.forEach((partition, error) -> error.ifPresent(e -> {
            throw new AssertionError("acknowledgements of " + partition + ": " + e);
        }));
    }

    static Set<String> values(Collection<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).collect(Collectors.toCollection(TreeSet::new));
    }

    static Set<String> numbers(int from, int to) {
        return IntStream.range(from, to).mapToObj(value -> "v" + value).collect(Collectors.toCollection(TreeSet::new));
    }

    static void kinds() throws Exception {
        String group = "share-kinds-group";
        setGroup(group, "share.auto.offset.reset", "earliest");
        produce(TOPIC, 0, 0, 30);
        try (var consumer = consumer(group)) {
            consumer.subscribe(List.of(TOPIC));
            Map<String, Integer> times = new TreeMap<>();
            Map<String, Short> counts = new TreeMap<>();
            // Every third record is released twice, every fifth rejected, the others accepted.
            var taken = take(consumer, 30 + 2 * 10, record -> {
                int number = Integer.parseInt(record.value().substring(1));
                int time = times.merge(record.value(), 1, Integer::sum);
                counts.put(record.value(), record.deliveryCount().orElse((short) 0));
                if (number % 3 == 0 && time <= 2) return AcknowledgeType.RELEASE;
                return number % 5 == 1 ? AcknowledgeType.REJECT : AcknowledgeType.ACCEPT;
            });
            expectEqual(taken.size(), 50, "deliveries");
            expectEqual(values(taken), numbers(0, 30), "records");
            for (int number = 0; number < 30; number++) {
                int expected = number % 3 == 0 ? 3 : 1;
                expectEqual(times.get("v" + number), expected, "deliveries of v" + number);
                expectEqual((int) counts.get("v" + number), expected, "delivery count of v" + number);
            }
        }
        waitUntil(() -> lag(group, TOPIC, 0) == 0, "nothing is left");
    }

    static void exhausted() throws Exception {
        String group = "share-exhausted-group";
        setGroup(group, "share.auto.offset.reset", "earliest", "share.delivery.count.limit", "3");
        try (var consumer = consumer(group)) {
            consumer.subscribe(List.of("share-exhausted"));
            produce("share-exhausted", 0, 0, 1);
            take(consumer, 3, record -> AcknowledgeType.RELEASE);
            waitUntil(() -> lag(group, "share-exhausted", 0) == 0, "the record is given up");
            expectEqual(consumer.poll(Duration.ofMillis(300)).count(), 0, "deliveries after the limit");
        }
    }

    static void locks() throws Exception {
        String group = "share-locks-group";
        setGroup(group, "share.auto.offset.reset", "earliest", "share.record.lock.duration.ms", "1000");
        produce("share-locks", 0, 0, 2);
        try (var slow = consumer(group, "max.poll.records", 1, "share.acquire.mode", "record_limit");
             var other = consumer(group)) {
            slow.subscribe(List.of("share-locks"));
            List<ConsumerRecord<String, String>> held = new ArrayList<>();
            waitUntil(() -> {
                slow.poll(Duration.ofMillis(200)).forEach(held::add);
                return !held.isEmpty();
            }, "a record");
            expectEqual(held.size(), 1, "records of a strict limit");
            // Renewed locks last: the other member gets the second record and not the first.
            long begin = System.nanoTime();
            other.subscribe(List.of("share-locks"));
            List<ConsumerRecord<String, String>> others = new ArrayList<>();
            // Kafka makes target assignments a second apart, and tells of them with the next heartbeat.
            while (System.nanoTime() - begin < 1_800_000_000L || others.isEmpty() && System.nanoTime() - begin < PATIENCE.toNanos()) {
                slow.acknowledge(held.get(0), AcknowledgeType.RENEW);
                expectCommitted(slow.commitSync());
                slow.poll(Duration.ofMillis(50));
                for (var record : other.poll(Duration.ofMillis(100))) {
                    others.add(record);
                    other.acknowledge(record, AcknowledgeType.ACCEPT);
                }
                other.commitSync();
            }
            expectEqual(values(others), Set.of("v1"), "records of the other member");
            // Without renewal the lock ends, and the record is delivered to somebody who asks.
            waitUntil(() -> {
                other.poll(Duration.ofMillis(200)).forEach(others::add);
                return others.size() == 2;
            }, "the record comes back");
            expectEqual(others.get(1).deliveryCount().orElse((short) 0), (short) 2, "its delivery count");
            slow.acknowledge(held.get(0), AcknowledgeType.ACCEPT);
            var outcome = slow.commitSync();
            expectEqual(outcome.values().stream().anyMatch(Optional::isPresent), true, outcome + ": an acknowledgement that comes too late is refused");
            other.acknowledge(others.get(1), AcknowledgeType.ACCEPT);
            expectCommitted(other.commitSync());
        }
    }

    static void spread() throws Exception {
        String group = "share-spread-group";
        setGroup(group, "share.auto.offset.reset", "earliest");
        for (int partition = 0; partition < 3; partition++) {
            produce(SPREAD_TOPIC, partition, partition * 200, partition * 200 + 200);
        }
        Map<String, Integer> deliveries = new ConcurrentHashMap<>();
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Integer>> members = new ArrayList<>();
        for (int member = 0; member < 4; member++) {
            members.add(pool.submit(() -> {
                int count = 0;
                try (var consumer = consumer(group, "share.acknowledgement.mode", "implicit", "max.poll.records", 20)) {
                    consumer.subscribe(List.of(SPREAD_TOPIC));
                    long deadline = System.nanoTime() + PATIENCE.toNanos();
                    while (deliveries.size() < 600 && System.nanoTime() < deadline) {
                        for (var record : consumer.poll(Duration.ofMillis(100))) {
                            deliveries.merge(record.value(), 1, Integer::sum);
                            count++;
                        }
                    }
                    // Closing gives back what was delivered last and not acknowledged.
                    expectCommitted(consumer.commitSync());
                }
                return count;
            }));
        }
        int sum = 0;
        for (var member : members) sum += member.get();
        pool.shutdown();
        expectEqual(deliveries.size(), 600, "records");
        expectEqual(sum, 600, "deliveries in all");
        waitUntil(() -> lag(group, SPREAD_TOPIC, 0) + lag(group, SPREAD_TOPIC, 1) + lag(group, SPREAD_TOPIC, 2) == 0,
            "everything is acknowledged");
    }

    static void leaving() throws Exception {
        String group = "share-leaving-group";
        setGroup(group, "share.auto.offset.reset", "earliest");
        produce("share-leaving", 0, 0, 5);
        var leaver = consumer(group);
        leaver.subscribe(List.of("share-leaving"));
        List<ConsumerRecord<String, String>> held = new ArrayList<>();
        waitUntil(() -> {
            leaver.poll(Duration.ofMillis(200)).forEach(held::add);
            return held.size() == 5;
        }, "five records");
        leaver.close();
        // What the leaver had is given back at once, long before its locks end.
        try (var heir = consumer(group)) {
            heir.subscribe(List.of("share-leaving"));
            expectEqual(values(take(heir, 5, record -> AcknowledgeType.ACCEPT)), numbers(0, 5), "records");
        }
    }

    static OptionalLong offsetOf(String group, String topic, int partition,
            java.util.function.ToLongFunction<SharePartitionOffsetInfo> what) throws Exception {
        var spec = Map.of(group, new ListShareGroupOffsetsSpec().topicPartitions(List.of(new TopicPartition(topic, partition))));
        var info = get(admin.listShareGroupOffsets(spec).partitionsToOffsetInfo(group)).get(new TopicPartition(topic, partition));
        return info == null ? OptionalLong.empty() : OptionalLong.of(what.applyAsLong(info));
    }

    static long startOffset(String group, String topic, int partition) throws Exception {
        return offsetOf(group, topic, partition, SharePartitionOffsetInfo::startOffset).orElse(-1);
    }

    static long lag(String group, String topic, int partition) throws Exception {
        return offsetOf(group, topic, partition, info -> info.lag().orElse(-1L)).orElse(-1);
    }

    static void administration() throws Exception {
        String group = "share-spread-group";
        var listed = get(admin.listGroups(ListGroupsOptions.forShareGroups()).all());
        expectEqual(listed.stream().anyMatch(g -> g.groupId().equals(group) && g.type().get() == GroupType.SHARE), true, "the group is listed");
        var described = get(admin.describeShareGroups(List.of(group)).all()).get(group);
        expectEqual(described.groupState(), GroupState.EMPTY, "state");
        TopicPartition first = new TopicPartition(SPREAD_TOPIC, 0);
        get(admin.alterShareGroupOffsets(group, Map.of(first, 150L)).all());
        expectEqual(startOffset(group, SPREAD_TOPIC, 0), 150L, "start after it was set");
        expectEqual(lag(group, SPREAD_TOPIC, 0), 50L, "lag after the start was set");
        try (var consumer = consumer(group)) {
            consumer.subscribe(List.of(SPREAD_TOPIC));
            expectEqual(values(take(consumer, 50, record -> AcknowledgeType.ACCEPT)), numbers(150, 200), "records");
            var member = get(admin.describeShareGroups(List.of(group)).all()).get(group).members().iterator().next();
            expectEqual(member.assignment().topicPartitions().size(), 3, "assigned partitions");
            try {
                get(admin.alterShareGroupOffsets(group, Map.of(first, 0L)).all());
                throw new AssertionError("offsets of a group with members were set");
            } catch (ExecutionException refused) {
                expectEqual(refused.getCause().getClass().getSimpleName(), "GroupNotEmptyException", "refusal");
            }
        }
        get(admin.deleteShareGroupOffsets(group, Set.of(SPREAD_TOPIC)).all());
        var left = get(admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec())).partitionsToOffsetInfo(group));
        expectEqual(left.size(), 0, "offsets that are left");
        get(admin.deleteShareGroups(List.of(group)).all());
        listed = get(admin.listGroups(ListGroupsOptions.forShareGroups()).all());
        expectEqual(listed.stream().anyMatch(g -> g.groupId().equals(group)), false, "the group is gone");
    }

    /** Half of the records are dealt with, some are released, some held; then the broker dies. */
    /** Consumers of committed records get those of committed transactions, as soon as these have ended, and no others. */
    static void committed() throws Exception {
        String group = "share-committed-group", topic = "share-committed";
        setGroup(group, "share.auto.offset.reset", "earliest", "share.isolation.level", "read_committed");
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "transactional.id", "share-payer", "linger.ms", 5);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
             var consumer = consumer(group)) {
            producer.initTransactions();
            for (int round = 0; round < 4; round++) {
                producer.beginTransaction();
                for (int value = 10 * round; value < 10 * round + 5; value++) {
                    producer.send(new ProducerRecord<>(topic, 0, null, "v" + value));
                }
                producer.flush();
                if (round % 2 == 0) producer.commitTransaction();
                else producer.abortTransaction();
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, "v40"));
            producer.flush();
            produce(topic, 0, 50, 53);
            consumer.subscribe(List.of(topic));
            Set<String> expected = new TreeSet<>(numbers(0, 5));
            expected.addAll(numbers(20, 25));
            expectEqual(values(take(consumer, 10, record -> AcknowledgeType.ACCEPT)), expected, "records before the open transaction");
            expectEqual(consumer.poll(Duration.ofMillis(500)).count(), 0, "records behind the open transaction");
            producer.commitTransaction();
            expected = new TreeSet<>(numbers(50, 53));
            expected.add("v40");
            expectEqual(values(take(consumer, 4, record -> AcknowledgeType.ACCEPT)), expected, "records after its end");
        }
        waitUntil(() -> lag(group, topic, 0) == 0, "nothing is left");
    }

    static void beforeTheKill() throws Exception {
        setGroup(KEPT_GROUP, "share.auto.offset.reset", "earliest");
        produce(KEPT_TOPIC, 0, 0, 100);
        var consumer = consumer(KEPT_GROUP);
        consumer.subscribe(List.of(KEPT_TOPIC));
        take(consumer, 100, record -> {
            int number = Integer.parseInt(record.value().substring(1));
            return number % 2 == 0 ? AcknowledgeType.ACCEPT : number % 4 == 1 ? AcknowledgeType.REJECT : AcknowledgeType.RELEASE;
        });
        // The released ones are on their way to this consumer again; it dies with them.
        Runtime.getRuntime().halt(0);
    }

    static void afterTheKill() throws Exception {
        produce(KEPT_TOPIC, 0, 100, 110);
        try (var consumer = consumer(KEPT_GROUP)) {
            consumer.subscribe(List.of(KEPT_TOPIC));
            Set<String> expected = numbers(100, 110);
            IntStream.range(0, 100).filter(number -> number % 4 == 3).forEach(number -> expected.add("v" + number));
            var taken = take(consumer, expected.size(), record -> AcknowledgeType.ACCEPT);
            expectEqual(values(taken), expected, "records");
            expectEqual(taken.size(), expected.size(), "deliveries");
            expectEqual(consumer.poll(Duration.ofMillis(300)).count(), 0, "deliveries after that");
        }
        waitUntil(() -> lag(KEPT_GROUP, KEPT_TOPIC, 0) == 0, "nothing is left");
        // What Kafka has stored of the start lags behind: the last records that were dealt with move it with the next ones.
        long start = startOffset(KEPT_GROUP, KEPT_TOPIC, 0);
        expectEqual(isExact ? start == 110 : start <= 110, true, "start " + start);
    }

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        isExact = arguments[2].equals("fleuve");
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        if (arguments[1].equals("first")) {
            List<NewTopic> topics = new ArrayList<>(Stream.of(TOPIC, KEPT_TOPIC, "share-exhausted", "share-locks", "share-leaving", "share-committed")
                .map(name -> new NewTopic(name, 1, (short) 1)).toList());
            topics.add(new NewTopic(SPREAD_TOPIC, 3, (short) 1));
            get(admin.createTopics(topics).all());
            check("released records come back, rejected and accepted ones do not", ShareClient::kinds);
            check("a record is delivered only so often", ShareClient::exhausted);
            check("locks end, unless they are renewed", ShareClient::locks);
            check("four members share three partitions", ShareClient::spread);
            check("who leaves gives records back", ShareClient::leaving);
            check("consumers of committed records get no others", ShareClient::committed);
            check("groups are listed, described, altered and deleted", ShareClient::administration);
            System.out.println("done");
            System.out.flush();
            beforeTheKill();
        }
        check("after a SIGKILL nothing acknowledged comes back, and nothing else is lost", ShareClient::afterTheKill);
        System.out.println("done");
        System.exit(0);
    }
}
