/* The load of crates/client/examples/load.rs on librdkafka: produce BOOTSTRAP TOPIC COUNT SIZE | consume BOOTSTRAP TOPIC COUNT.
 *
 * The fastest ways that librdkafka has: delivery reports by callback, records taken a thousand at a time. Prints one line of JSON.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rdkafka.h"

#define CONSUME_TOGETHER 1000
#define SILENCE_MS_MAX 30000

static long long delivered_count, failed_count;

static void die(const char *what, const char *why) {
        fprintf(stderr, "load: %s: %s\n", what, why);
        exit(1);
}

static double now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
        char why[256];
        if (rd_kafka_conf_set(conf, key, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
                die(key, why);
}

static void delivered(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
        (void)client, (void)opaque;
        if (message->err)
                failed_count++;
        else
                delivered_count++;
}

static rd_kafka_t *client_of(rd_kafka_type_t type, rd_kafka_conf_t *conf, const char *bootstrap) {
        char why[256];
        set(conf, "bootstrap.servers", bootstrap);
        rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof(why));
        if (!client)
                die("client", why);
        return client;
}

/* The largest resident memory of this process, without what its parent had before. */
static long peak_memory_kib(void) {
        char line[256];
        long kib = 0;
        FILE *status = fopen("/proc/self/status", "r");
        while (status && fgets(line, sizeof(line), status))
                if (sscanf(line, "VmHWM: %ld", &kib) == 1)
                        break;
        if (status)
                fclose(status);
        return kib;
}

static void report(long long count, double began) {
        printf("{\"records\": %lld, \"seconds\": %f, \"rss_kib\": %ld}\n", count, now() - began, peak_memory_kib());
}

static void produce(const char *bootstrap, const char *name, long long count, size_t size) {
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        /* What the other clients do as they come. */
        set(conf, "enable.idempotence", "true");
        set(conf, "linger.ms", "5");
        if (getenv("BATCH_BYTES"))
                set(conf, "batch.size", getenv("BATCH_BYTES"));
        rd_kafka_conf_set_dr_msg_cb(conf, delivered);
        rd_kafka_t *client = client_of(RD_KAFKA_PRODUCER, conf, bootstrap);
        rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
        char *payload = malloc(size);
        memset(payload, 'x', size);
        double began = now();
        for (long long number = 0; number < count; number++) {
                while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, payload, size, NULL, 0, NULL) == -1) {
                        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                                die("produce", rd_kafka_err2str(rd_kafka_last_error()));
                        rd_kafka_poll(client, 100);
                }
                if (number % 1024 == 0)
                        rd_kafka_poll(client, 0);
        }
        while (delivered_count + failed_count < count)
                rd_kafka_poll(client, 100);
        if (failed_count)
                die("produce", "records were not delivered");
        report(count, began);
        free(payload);
        rd_kafka_topic_destroy(topic);
        rd_kafka_destroy(client);
}

static void consume(const char *bootstrap, const char *name, long long count) {
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        set(conf, "group.id", "load");
        set(conf, "enable.auto.commit", "false");
        set(conf, "check.crcs", "true");
        rd_kafka_t *client = client_of(RD_KAFKA_CONSUMER, conf, bootstrap);
        rd_kafka_poll_set_consumer(client);
        rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
        const struct rd_kafka_metadata *metadata;
        rd_kafka_resp_err_t err = rd_kafka_metadata(client, 0, topic, &metadata, SILENCE_MS_MAX);
        if (err || metadata->topic_cnt != 1)
                die("metadata", rd_kafka_err2str(err));
        int partitions = metadata->topics[0].partition_cnt;
        rd_kafka_metadata_destroy(metadata);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
        for (int32_t partition = 0; partition < partitions; partition++)
                rd_kafka_topic_partition_list_add(list, name, partition)->offset = RD_KAFKA_OFFSET_BEGINNING;
        double began = now();
        if ((err = rd_kafka_assign(client, list)))
                die("assign", rd_kafka_err2str(err));
        rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(client);
        rd_kafka_message_t *messages[CONSUME_TOGETHER];
        long long read = 0;
        uint64_t bytes = 0;
        while (read < count) {
                ssize_t got = rd_kafka_consume_batch_queue(queue, SILENCE_MS_MAX, messages, CONSUME_TOGETHER);
                if (got <= 0)
                        die("consume", "no records come");
                for (ssize_t index = 0; index < got; index++) {
                        rd_kafka_message_t *message = messages[index];
                        if (message->err)
                                die("consume", rd_kafka_message_errstr(message));
                        bytes += message->len + (((const char *)message->payload)[0] & 1);
                        read++;
                        rd_kafka_message_destroy(message);
                }
        }
        report(count, began);
        if (bytes == 0)
                die("consume", "empty records");
        rd_kafka_queue_destroy(queue);
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_consumer_close(client);
        rd_kafka_topic_destroy(topic);
        rd_kafka_destroy(client);
}

int main(int argc, char **argv) {
        if (argc == 6 && !strcmp(argv[1], "produce"))
                produce(argv[2], argv[3], atoll(argv[4]), (size_t)atol(argv[5]));
        else if (argc == 5 && !strcmp(argv[1], "consume"))
                consume(argv[2], argv[3], atoll(argv[4]));
        else
                die("usage", "produce BOOTSTRAP TOPIC COUNT SIZE | consume BOOTSTRAP TOPIC COUNT");
        return 0;
}
