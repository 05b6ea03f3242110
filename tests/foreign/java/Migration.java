// Java consumers that change their group's protocol under load: classic members are replaced by members of the consumer
// protocol one after the other, and these by classic ones again (KIP-848). Nothing gets lost, and no offset goes back.
// Run from source, and speaks the line protocol described in ../python/report.py.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.*;

public class Migration {
    static final int PARTITIONS = 6;
    static final Duration PATIENCE = Duration.ofSeconds(60);
    static String bootstrap;
    static Admin admin;

    interface Body {
        void run() throws Exception;
    }

    static void check(String name, Body body) {
        try {
            body.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            String where = Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().startsWith("Migration")).map(f -> " line " + f.getLineNumber())
                .findFirst().orElse("");
            System.out.println("not ok " + name + ": " + error.toString().replaceAll("\\s+", " ") + where);
        }
    }

    static void expect(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void waitUntil(Callable<Boolean> condition, String what) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.call()) {
            expect(System.nanoTime() < deadline, what + ": not within " + PATIENCE);
            Thread.sleep(50);
        }
    }

    /** A consumer on a thread of its own, which commits whatever it has read. */
    static class Member {
        final String name;
        final KafkaConsumer<String, String> consumer;
        final Queue<String> seen;
        final Thread thread;
        volatile boolean isStopping;
        volatile int assigned;
        volatile Throwable failure;

        Member(String name, String group, String topic, Queue<String> seen, Map<String, Object> settings) {
            Map<String, Object> all = new HashMap<>(Map.of(
                "bootstrap.servers", bootstrap, "group.id", group, "client.id", name, "auto.offset.reset", "earliest",
                "enable.auto.commit", false, "max.poll.records", 50));
            all.putAll(settings);
            this.name = name;
            this.seen = seen;
            consumer = new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
            thread = new Thread(() -> run(topic), name);
            thread.start();
        }

        void run(String topic) {
            Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    commit(done);
                    done.keySet().removeAll(partitions);
                }

                public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }

                public void onPartitionsLost(Collection<TopicPartition> partitions) {
                    done.keySet().removeAll(partitions);
                }
            });
            try {
                while (!isStopping) {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                        seen.add(record.value());
                        done.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                    }
                    assigned = consumer.assignment().size();
                    commit(done);
                }
                consumer.close();
            } catch (Throwable error) {
                failure = error;
            }
        }

        void commit(Map<TopicPartition, OffsetAndMetadata> done) {
            try {
                consumer.commitSync(done);
            } catch (CommitFailedException | RebalanceInProgressException error) {
                // The next commit, or the next owner, does it.
            }
        }

        void stop() throws Exception {
            isStopping = true;
            thread.join(PATIENCE.toMillis());
            expect(!thread.isAlive(), name + " does not stop");
            expect(failure == null, name + " failed: " + failure);
        }
    }

    static Map<String, Object> classic(String assignor) {
        return Map.of("group.protocol", "classic", "heartbeat.interval.ms", 300, "session.timeout.ms", 6000,
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor);
    }

    static GroupType type(String group) throws Exception {
        return admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get(30, TimeUnit.SECONDS).stream()
            .filter(listing -> listing.groupId().equals(group)).findFirst().flatMap(GroupListing::type).orElse(GroupType.UNKNOWN);
    }

    /** Whether the members share all partitions, as they see it themselves and as the coordinator does. */
    static boolean isShared(String group, List<Member> members) throws Exception {
        ConsumerGroupDescription described;
        try {
            described = admin.describeConsumerGroups(List.of(group)).all().get(30, TimeUnit.SECONDS).get(group);
        } catch (ExecutionException error) {
            expect(error.getCause() instanceof GroupIdNotFoundException, "describing the group: " + error.getCause());
            return false;
        }
        int had = described.members().stream().mapToInt(member -> member.assignment().topicPartitions().size()).sum();
        return described.members().size() == members.size() && had == PARTITIONS
            && members.stream().mapToInt(member -> member.assigned).sum() == PARTITIONS
            && members.stream().allMatch(member -> member.assigned > 0);
    }

    static Map<TopicPartition, Long> committed(String group) throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get(30, TimeUnit.SECONDS).entrySet().stream()
            .collect(Collectors.toMap(Map.Entry::getKey, entry -> entry.getValue().offset()));
    }

    static void thereAndBack(String assignor, boolean isStatic) throws Exception {
        String group = "migration-" + assignor + (isStatic ? "-static" : "");
        admin.createTopics(List.of(new NewTopic(group, PARTITIONS, (short) 1))).all().get(30, TimeUnit.SECONDS);
        AtomicBoolean isOver = new AtomicBoolean();
        Queue<String> sent = new ConcurrentLinkedQueue<>();
        Queue<String> seen = new ConcurrentLinkedQueue<>();
        Thread source = new Thread(() -> {
            Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "linger.ms", 2);
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
                for (int number = 0; !isOver.get(); number++) {
                    String value = String.valueOf(number);
                    producer.send(new ProducerRecord<>(group, number % PARTITIONS, null, value), (metadata, error) -> {
                        if (error == null) {
                            sent.add(value);
                        }
                    });
                    Thread.sleep(2);
                }
            } catch (InterruptedException error) {
                throw new RuntimeException(error);
            }
        });
        source.start();

        List<Member> members = new ArrayList<>();
        Map<TopicPartition, Long> before = Map.of();
        // What the two members speak after each step, and what the group is then.
        List<List<String>> steps = List.of(
            List.of("classic", "classic"), List.of("consumer", "classic"), List.of("consumer", "consumer"),
            List.of("classic", "consumer"), List.of("classic", "classic"));
        try {
            for (int step = 0; step < steps.size(); step++) {
                for (int index = 0; index < 2; index++) {
                    String protocol = steps.get(step).get(index);
                    if (step > 0 && protocol.equals(steps.get(step - 1).get(index))) {
                        continue;
                    }
                    if (step > 0) {
                        members.remove(index).stop();
                    }
                    Map<String, Object> settings = new HashMap<>(
                        protocol.equals("classic") ? classic(assignor) : Map.of("group.protocol", "consumer"));
                    if (isStatic) {
                        settings.put("group.instance.id", "instance-" + index);
                    }
                    members.add(index, new Member(protocol + "-" + index + "-" + step, group, group, seen, settings));
                }
                waitUntil(() -> isShared(group, members), "partitions shared after step " + step);
                GroupType expected = steps.get(step).contains("consumer") ? GroupType.CONSUMER : GroupType.CLASSIC;
                expect(type(group) == expected, "after step " + step + " the group is " + type(group));
                int had = seen.size();
                waitUntil(() -> seen.size() > had + 50, "records after step " + step);
                Map<TopicPartition, Long> now = committed(group);
                for (Map.Entry<TopicPartition, Long> entry : before.entrySet()) {
                    expect(now.getOrDefault(entry.getKey(), -1L) >= entry.getValue(), entry.getKey() + " went back in step " + step);
                }
                before = now;
            }
            isOver.set(true);
            source.join();
            waitUntil(() -> new HashSet<>(seen).containsAll(sent), "every record is read");
            waitUntil(() -> {
                Map<TopicPartition, Long> now = committed(group);
                return now.size() == PARTITIONS && now.values().stream().mapToLong(Long::longValue).sum() == sent.size();
            }, "every record is committed");
        } finally {
            isOver.set(true);
            for (Member member : members) {
                member.stop();
            }
        }
    }

    public static void main(String[] arguments) {
        bootstrap = arguments[0];
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        if (arguments[1].equals("first")) {
            check("a group rolls to the consumer protocol and back, eager", () -> thereAndBack("RangeAssignor", false));
            check("a group rolls to the consumer protocol and back, cooperative", () -> thereAndBack("CooperativeStickyAssignor", false));
            check("static members roll to the consumer protocol and back", () -> thereAndBack("RangeAssignor", true));
        }
        admin.close();
        System.out.println("done");
    }
}
