// Java clients of the checker, any number in one JVM. Run from source, with Kafka's jars on the class path.
//
// Each line of input is a JSON command for one client, {"id": 7, "client": "java-1", "do": "open", ...}; each line of
// output answers one. What the commands mean is described in clients.py, whose librdkafka client does the same.

import com.fasterxml.jackson.databind.*;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

public class CheckerClient {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Duration PATIENCE = Duration.ofSeconds(8);
    static final Duration CLOSE = Duration.ofSeconds(1);

    public static void main(String[] arguments) throws Exception {
        Map<String, ExecutorService> threads = new HashMap<>();
        Map<String, Client> clients = new ConcurrentHashMap<>();
        System.out.println("{\"id\": 0}");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            JsonNode command = JSON.readTree(line);
            String name = command.get("client").asText();
            threads.computeIfAbsent(name, any -> Executors.newSingleThreadExecutor()).execute(() -> {
                ObjectNode answer = JSON.createObjectNode().put("id", command.get("id").asLong()).put("outcome", "ok");
                try {
                    clients.computeIfAbsent(name, any -> new Client()).run(command, answer);
                } catch (Throwable error) {
                    answer.put("outcome", "info").put("dead", true).put("error", error.toString());
                }
                synchronized (System.out) {
                    System.out.println(answer);
                    System.out.flush();
                }
            });
        }
        Runtime.getRuntime().halt(0);
    }

    /** One producer and one consumer, used by one thread. */
    static class Client implements ConsumerRebalanceListener {
        KafkaProducer<byte[], byte[]> producer;
        KafkaConsumer<byte[], byte[]> consumer;
        String topic;
        String group;
        boolean transactional;
        int session;
        boolean fromStart;
        boolean moved;

        void run(JsonNode command, ObjectNode answer) throws Exception {
            switch (command.get("do").asText()) {
                case "open" -> open(command);
                case "assign" -> assign(command.get("partitions"));
                case "subscribe" -> {
                    consumer.subscribe(List.of(topic), this);
                    move(false);
                }
                case "operate" -> {
                    if (transactional) {
                        transact(command.get("steps"), answer);
                    } else {
                        steps(command.get("steps"), answer.putArray("steps"), null, new HashMap<>());
                    }
                }
                case "close" -> close();
                default -> throw new IllegalArgumentException(command.toString());
            }
        }

        void open(JsonNode command) {
            close();
            topic = command.get("topic").asText();
            transactional = command.hasNonNull("transactional_id");
            group = command.get("group").asText();
            Map<String, Object> settings = new HashMap<>();
            settings.put("bootstrap.servers", command.get("bootstrap").asText());
            settings.put("reconnect.backoff.max.ms", 200);
            settings.put("request.timeout.ms", 3000);
            settings.put("default.api.timeout.ms", 5000);
            Map<String, Object> producing = new HashMap<>(settings);
            producing.put("delivery.timeout.ms", 6000);
            producing.put("max.block.ms", 5000);
            producing.put("linger.ms", 0);
            if (transactional) {
                producing.put("transactional.id", command.get("transactional_id").asText());
                producing.put("transaction.timeout.ms", command.get("transaction_timeout_ms").asInt());
            }
            producer = new KafkaProducer<>(producing, new ByteArraySerializer(), new ByteArraySerializer());
            settings.put("group.id", group);
            settings.put("group.protocol", command.get("group_protocol").asText());
            settings.put("auto.offset.reset", "earliest");
            settings.put("enable.auto.commit", false);
            settings.put("isolation.level", "read_committed");
            settings.put("fetch.max.wait.ms", 50);
            settings.put("max.poll.records", 40);
            if (command.get("group_protocol").asText().equals("classic")) {
                settings.put("session.timeout.ms", 6000);
                settings.put("heartbeat.interval.ms", 300);
            }
            consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            if (transactional) {
                producer.initTransactions();
            }
        }

        void close() {
            if (producer != null) {
                producer.close(Duration.ZERO);
                producer = null;
            }
            if (consumer != null) {
                KafkaConsumer<byte[], byte[]> leaving = consumer;
                consumer = null;
                leaving.close(CloseOptions.timeout(CLOSE));
            }
        }

        void assign(JsonNode partitions) {
            List<TopicPartition> chosen = new ArrayList<>();
            partitions.forEach(partition -> chosen.add(new TopicPartition(topic, partition.asInt())));
            consumer.unsubscribe();
            consumer.assign(chosen);
            consumer.seekToBeginning(chosen);
            move(true);
        }

        void move(boolean toStart) {
            session++;
            fromStart = toStart;
            moved = true;
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            move(false);
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            move(false);
        }

        void transact(JsonNode steps, ObjectNode answer) {
            Map<TopicPartition, long[]> consumed = new HashMap<>();
            List<Future<RecordMetadata>> acknowledgements = new ArrayList<>();
            ArrayNode done = answer.putArray("steps");
            boolean asked = false;
            try {
                moved = false;
                producer.beginTransaction();
                steps(steps, done, acknowledgements, consumed);
                if (moved && !consumed.isEmpty() && !consumer.subscription().isEmpty()) {
                    throw new IllegalStateException("a rebalance fell into the transaction");
                }
                if (!consumer.subscription().isEmpty()) {
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                    consumed.forEach((partition, range) -> offsets.put(partition, new OffsetAndMetadata(range[1] + 1)));
                    if (!offsets.isEmpty()) {
                        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                    }
                    answer.put("group", group);
                }
                producer.flush();
                asked = true;
                answer.put("committing", System.nanoTime());
                commit();
                for (int i = 0, sent = 0; i < done.size(); i++) {
                    if (done.get(i).has("value")) {
                        ((ObjectNode) done.get(i)).put("offset", acknowledgements.get(sent++).get().offset());
                    }
                }
            } catch (Throwable error) {
                answer.put("error", error.toString());
                boolean aborted = false;
                if (!(error instanceof ProducerFencedException || error instanceof OutOfOrderSequenceException || error instanceof TimeoutException && asked)) {
                    try {
                        producer.abortTransaction();
                        aborted = true;
                    } catch (Throwable second) {
                        answer.put("error", error + ", then " + second);
                    }
                }
                // Whoever never asked for the commit cannot have got it.
                answer.put("outcome", aborted || !asked ? "fail" : "info");
                answer.put("dead", !aborted);
                if (aborted) {
                    rewind(consumed);
                }
            }
        }

        /** A commit that timed out may be asked for again. */
        void commit() {
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (true) {
                try {
                    producer.commitTransaction();
                    return;
                } catch (TimeoutException error) {
                    if (System.nanoTime() > deadline) {
                        throw error;
                    }
                }
            }
        }

        /** Back to where the aborted transaction began to read. */
        void rewind(Map<TopicPartition, long[]> consumed) {
            move(false);
            consumed.forEach((partition, range) -> {
                if (consumer.assignment().contains(partition)) {
                    consumer.seek(partition, range[0]);
                }
            });
        }

        /** Sends and polls in their order; outside of transactions each send waits for its own acknowledgement. */
        void steps(JsonNode wanted, ArrayNode done, List<Future<RecordMetadata>> acknowledgements, Map<TopicPartition, long[]> consumed)
                throws Exception {
            for (JsonNode step : wanted) {
                ObjectNode result = done.addObject();
                if (step.has("value")) {
                    int partition = step.get("partition").asInt();
                    String value = step.get("value").asText();
                    result.put("partition", partition).put("value", value);
                    Future<RecordMetadata> acknowledgement;
                    try {
                        acknowledgement = producer.send(new ProducerRecord<>(topic, partition, null, value.getBytes(StandardCharsets.UTF_8)));
                        if (acknowledgements == null) {
                            result.put("offset", acknowledgement.get().offset()).put("outcome", "ok");
                        } else {
                            acknowledgements.add(acknowledgement);
                        }
                    } catch (ExecutionException | KafkaException error) {
                        result.put("outcome", "info").put("error", error.toString());
                        if (acknowledgements != null) {
                            throw error;
                        }
                    }
                } else {
                    ArrayNode records = result.putArray("records");
                    ConsumerRecords<byte[], byte[]> polled = consumer.poll(Duration.ofMillis(step.get("poll_ms").asInt()));
                    result.put("at", System.nanoTime()).put("session", session).put("from_start", fromStart);
                    // A rebalance before the first record is none that the transaction must mind.
                    if (consumed.isEmpty()) {
                        moved = false;
                    }
                    for (ConsumerRecord<byte[], byte[]> record : polled) {
                        records.addArray().add(record.partition()).add(record.offset()).add(new String(record.value(), StandardCharsets.UTF_8));
                        long[] range = consumed.computeIfAbsent(new TopicPartition(topic, record.partition()), any -> new long[] {record.offset(), 0});
                        range[1] = record.offset();
                    }
                }
            }
        }
    }
}
