import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.OptionalLong;
import java.util.Random;
import java.util.zip.CRC32C;

import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.DefaultRecordBatch;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

/**
 * Writes record batches with Apache Kafka's own classes, and prints how those classes read any.
 *
 * <p>{@code write DIR} makes the vectors; {@code read DIR} prints each {@code .bin} into a
 * {@code .txt} beside it.
 */
public final class RecordVectors {
    private static final long TIME = 1_700_000_000_000L;
    private static final byte V2 = RecordBatch.MAGIC_VALUE_V2;

    public static void main(String[] args) throws IOException {
        Path directory = Path.of(args[1]);
        if (args[0].equals("write")) {
            write(directory);
        }
        try (DirectoryStream<Path> files = Files.newDirectoryStream(directory, "*.bin")) {
            for (Path file : files) {
                String name = file.getFileName().toString().replace(".bin", ".txt");
                Files.writeString(directory.resolve(name), describe(Files.readAllBytes(file)));
            }
        }
    }

    private static void write(Path directory) throws IOException {
        for (CompressionType type : CompressionType.values()) {
            save(directory, "mixed-" + type.name, mixed(type));
        }
        SimpleRecord[] two = {
            new SimpleRecord(TIME, bytes("a"), bytes("1")),
            new SimpleRecord(TIME + 5, bytes("b"), bytes("2")),
        };
        save(directory, "idempotent",
            MemoryRecords.withIdempotentRecords(Compression.NONE, 4242L, (short) 7, 99, two));
        save(directory, "transactional",
            MemoryRecords.withTransactionalRecords(1000L, Compression.NONE, 4242L, (short) 7,
                Integer.MAX_VALUE, 3, two));
        save(directory, "commit", MemoryRecords.withEndTransactionMarker(0L, TIME, -1, 4242L,
            (short) 7, new EndTransactionMarker(ControlRecordType.COMMIT, 12)));
        save(directory, "abort", MemoryRecords.withEndTransactionMarker(0L, TIME, -1, 4242L,
            (short) 7, new EndTransactionMarker(ControlRecordType.ABORT, 13)));
        save(directory, "leader-change", MemoryRecords.withLeaderChangeMessage(55L, TIME, 9,
            ByteBuffer.allocate(256), new LeaderChangeMessage().setVersion((short) 0).setLeaderId(3)));

        MemoryRecordsBuilder appendTime = MemoryRecords.builder(ByteBuffer.allocate(256), V2,
            Compression.NONE, TimestampType.LOG_APPEND_TIME, 20L, TIME + 77);
        appendTime.append(TIME, bytes("a"), bytes("1"));
        appendTime.append(TIME + 5, bytes("b"), bytes("2"));
        save(directory, "log-append-time", appendTime.build());

        MemoryRecordsBuilder compacted = MemoryRecords.builder(ByteBuffer.allocate(256), V2,
            Compression.NONE, TimestampType.CREATE_TIME, 100L, -1L, 4242L, (short) 7, 30);
        compacted.appendWithOffset(103L, TIME, bytes("a"), bytes("1"));
        compacted.appendWithOffset(107L, TIME - 9, bytes("b"), null);
        compacted.overrideLastOffset(110L);
        save(directory, "compacted", compacted.build());

        MemoryRecordsBuilder horizon = new MemoryRecordsBuilder(new ByteBufferOutputStream(256), V2,
            Compression.NONE, TimestampType.CREATE_TIME, 100L, RecordBatch.NO_TIMESTAMP,
            RecordBatch.NO_PRODUCER_ID, RecordBatch.NO_PRODUCER_EPOCH, RecordBatch.NO_SEQUENCE,
            false, false, 6, 1024, TIME + 1000);
        horizon.appendWithOffset(100L, TIME, bytes("a"), null);
        horizon.appendWithOffset(101L, TIME + 2000, bytes("b"), null);
        save(directory, "delete-horizon", horizon.build());

        ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(empty, V2, 4242L, (short) 7, 30, 100L, 110L, 4,
            TimestampType.CREATE_TIME, TIME, false, false);
        empty.flip();
        save(directory, "empty", MemoryRecords.readableRecords(empty));

        save(directory, "magic-0", MemoryRecords.withRecords((byte) 0, Compression.NONE, two));
        save(directory, "magic-1", MemoryRecords.withRecords((byte) 1, Compression.NONE, two));
    }

    /** Every shape a record can have; compressed ones also span several blocks of each codec. */
    private static MemoryRecords mixed(CompressionType type) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), V2,
            Compression.of(type).build(), TimestampType.CREATE_TIME, 0L);
        builder.append(TIME, bytes("key"), bytes("value"));
        builder.append(TIME + 1, null, bytes("no key"));
        builder.append(TIME + 2, bytes("tombstone"), null);
        builder.append(TIME - 100_000, (byte[]) null, (byte[]) null);
        builder.append(TIME + 3, bytes(""), bytes(""), new Header[] {
            new RecordHeader("twice", bytes("first")),
            new RecordHeader("other", null),
            new RecordHeader("twice", bytes("second")),
            new RecordHeader("", bytes("")),
            new RecordHeader("schlüssel-鍵", bytes("wert-値")),
        });
        builder.append(0L, bytes("epoch"), bytes("x".repeat(300)));
        if (type != CompressionType.NONE) {
            byte[] noise = new byte[1000];
            new Random(1).nextBytes(noise);
            builder.append(TIME + 4, bytes("noise"), noise);
            builder.append(TIME + 5, bytes("long"), bytes("0123456789abcdef".repeat(4_400)));
        }
        return builder.build();
    }

    private static void save(Path directory, String name, MemoryRecords records) throws IOException {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        Files.write(directory.resolve(name + ".bin"), bytes);
    }

    private static String describe(byte[] bytes) {
        StringBuilder out = new StringBuilder();
        for (MutableRecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(bytes)).batches()) {
            batch.ensureValid();
            if (batch.magic() < V2) {
                out.append(String.format("old magic=%d%n", batch.magic()));
                continue;
            }
            OptionalLong horizon = batch.deleteHorizonMs();
            out.append(String.format(
                "batch offsets=%d..%d size=%d epoch=%d crc=%08x codec=%s time=%s max=%d "
                    + "producer=%d/%d sequence=%d..%d count=%d transactional=%b control=%b horizon=%s%n",
                batch.baseOffset(), batch.lastOffset(), batch.sizeInBytes(),
                batch.partitionLeaderEpoch(), batch.checksum(), batch.compressionType().name,
                batch.timestampType().name, batch.maxTimestamp(), batch.producerId(),
                batch.producerEpoch(), batch.baseSequence(), batch.lastSequence(),
                batch.countOrNull(), batch.isTransactional(), batch.isControlBatch(),
                horizon.isPresent() ? Long.toString(horizon.getAsLong()) : "none"));
            for (Record record : batch) {
                out.append(String.format("record offset=%d timestamp=%d key=%s value=%s",
                    record.offset(), record.timestamp(), digest(record.key()), digest(record.value())));
                for (Header header : record.headers()) {
                    ByteBuffer value = header.value() == null ? null : ByteBuffer.wrap(header.value());
                    out.append(String.format(" %s=%s", header.key(), digest(value)));
                }
                if (batch.isControlBatch()) {
                    out.append(String.format(" type=%s", ControlRecordType.parse(record.key())));
                }
                out.append('\n');
            }
        }
        return out.toString();
    }

    /** Short ones in hexadecimal, long ones as size and checksum. */
    private static String digest(ByteBuffer buffer) {
        if (buffer == null) {
            return "null";
        }
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        if (bytes.length <= 32) {
            return "x" + HexFormat.of().formatHex(bytes);
        }
        CRC32C crc = new CRC32C();
        crc.update(bytes);
        return String.format("%d:%08x", bytes.length, crc.getValue());
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
