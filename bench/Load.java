import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The load of crates/client/examples/load.rs on Apache Kafka's own client. */
public final class Load {
    private static final Duration SILENCE_MAX = Duration.ofSeconds(30);

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "produce" -> produce(arguments[1], arguments[2], Long.parseLong(arguments[3]), Integer.parseInt(arguments[4]));
            case "consume" -> consume(arguments[1], arguments[2], Long.parseLong(arguments[3]));
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static void produce(String servers, String topic, long count, int size) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", servers);
        if (System.getenv("BATCH_BYTES") != null)
            properties.put("batch.size", System.getenv("BATCH_BYTES"));
        byte[] value = new byte[size];
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (var producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            long began = System.nanoTime();
            for (long number = 0; number < count; number++)
                producer.send(new ProducerRecord<>(topic, value), (metadata, error) -> {
                    if (error != null)
                        failure.set(error);
                });
            producer.flush();
            report(count, began);
        }
        if (failure.get() != null)
            throw failure.get();
    }

    private static void consume(String servers, String topic, long count) throws IOException {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", servers);
        properties.put("max.poll.records", "10000");
        try (var consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
            long began = System.nanoTime();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long read = 0;
            long bytes = 0;
            while (read < count) {
                var records = consumer.poll(SILENCE_MAX);
                if (records.isEmpty())
                    throw new IllegalStateException("no records come");
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    read++;
                    bytes += record.value().length + (record.value()[0] & 1);
                }
            }
            if (bytes == 0)
                throw new IllegalStateException("empty records");
            report(count, began);
        }
    }

    private static void report(long count, long began) throws IOException {
        double seconds = (System.nanoTime() - began) / 1e9;
        String peak = Files.readAllLines(Path.of("/proc/self/status")).stream()
            .filter(line -> line.startsWith("VmHWM:")).findFirst().orElseThrow().replaceAll("\\D", "");
        System.out.printf("{\"records\": %d, \"seconds\": %f, \"rss_kib\": %s}%n", count, seconds, peak);
    }
}
