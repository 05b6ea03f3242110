/* End-to-end latency through a Kafka broker, on librdkafka.
 *
 *   latency BOOTSTRAP TOPIC PARTITIONS SIZE RATE SECONDS WARMUP_SECONDS [ACKS]
 *
 * One producer sends RATE records a second at fixed intended times; one consumer in the same process, hence on the same
 * clock, receives them. A record's latency counts from the moment it should have been sent, so a broker that stalls the
 * producer is charged for every record that waited (no coordinated omission). RATE 0 sends as fast as the queue takes
 * records and reports the rate that came through. Prints one line of JSON.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rdkafka.h"

/* Log-linear histogram of microseconds: exact below 1024, then 512 steps per power of two (0.2 % resolution). */
#define STEPS 512
#define BUCKETS (STEPS * 24)
#define DRAIN_SECONDS 20
#define HEADER_BYTES 16

static uint64_t histogram[BUCKETS];
static uint64_t measured, largest_us, total_us;

static rd_kafka_t *producer, *consumer;
static rd_kafka_topic_t *topic;
static int partitions, size, rate, seconds, warmup_seconds;
static int64_t first_measured_ns, end_ns;
static atomic_llong sent, failed, received;
static atomic_int sending = 1;
static int64_t received_in_window;

static int64_t now_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void die(const char *what, const char *why) {
        fprintf(stderr, "latency: %s: %s\n", what, why);
        exit(1);
}

static int bucket_of(uint64_t us) {
        int shift = 0;
        while ((us >> shift) >= 2 * STEPS)
                shift++;
        int bucket = shift * STEPS + (int)(us >> shift);
        return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The largest value that falls into a bucket. */
static uint64_t value_of(int bucket) {
        if (bucket < 2 * STEPS)
                return (uint64_t)bucket;
        int shift = bucket / STEPS - 1;
        return ((uint64_t)(bucket - shift * STEPS + 1) << shift) - 1;
}

static uint64_t percentile(double share) {
        uint64_t wanted = (uint64_t)(share * (double)measured + 0.5), seen = 0;
        for (int bucket = 0; bucket < BUCKETS; bucket++) {
                seen += histogram[bucket];
                if (seen >= wanted && seen > 0)
                        return value_of(bucket) < largest_us ? value_of(bucket) : largest_us;
        }
        return largest_us;
}

static void delivered(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
        (void)client, (void)opaque;
        if (message->err)
                atomic_fetch_add(&failed, 1);
}

static void ignore_log(const rd_kafka_t *client, int level, const char *facility, const char *text) {
        (void)client, (void)level, (void)facility, (void)text;
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
        char why[256];
        if (rd_kafka_conf_set(conf, key, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
                die(key, why);
}

static void *send_records(void *unused) {
        (void)unused;
        char *payload = malloc((size_t)size);
        memset(payload, 'x', (size_t)size);
        int64_t start = now_ns();
        for (int64_t number = 0;; number++) {
                int64_t now = now_ns();
                int64_t intended = rate ? start + (int64_t)((double)number * 1e9 / rate) : now;
                if (intended >= end_ns)
                        break;
                if (intended > now) {
                        rd_kafka_poll(producer, 0);
                        struct timespec until = {intended / 1000000000, intended % 1000000000};
                        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
                        }
                }
                memcpy(payload, &intended, sizeof(intended));
                while (rd_kafka_produce(topic, (int32_t)(number % partitions), RD_KAFKA_MSG_F_COPY, payload, (size_t)size, NULL, 0, NULL) == -1) {
                        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                                die("produce", rd_kafka_err2str(rd_kafka_last_error()));
                        rd_kafka_poll(producer, 1);
                }
                atomic_fetch_add(&sent, 1);
                if (number % 1024 == 0)
                        rd_kafka_poll(producer, 0);
        }
        free(payload);
        rd_kafka_flush(producer, DRAIN_SECONDS * 1000);
        atomic_store(&sending, 0);
        return NULL;
}

static void receive_records(void) {
        int64_t give_up = end_ns + (int64_t)DRAIN_SECONDS * 1000000000;
        while (atomic_load(&sending) || (atomic_load(&received) + atomic_load(&failed) < atomic_load(&sent) && now_ns() < give_up)) {
                rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 50);
                if (!message)
                        continue;
                int64_t now = now_ns(), intended;
                if (!message->err && message->len >= HEADER_BYTES) {
                        memcpy(&intended, message->payload, sizeof(intended));
                        atomic_fetch_add(&received, 1);
                        if (now >= first_measured_ns && now < end_ns)
                                received_in_window++;
                        if (intended >= first_measured_ns) {
                                uint64_t us = (uint64_t)(now - intended) / 1000;
                                histogram[bucket_of(us)]++;
                                measured++;
                                total_us += us;
                                if (us > largest_us)
                                        largest_us = us;
                        }
                }
                rd_kafka_message_destroy(message);
        }
}

int main(int argc, char **argv) {
        char why[256];
        if (argc < 8)
                die("usage", "latency BOOTSTRAP TOPIC PARTITIONS SIZE RATE SECONDS WARMUP_SECONDS [ACKS]");
        const char *bootstrap = argv[1], *name = argv[2];
        partitions = atoi(argv[3]);
        size = atoi(argv[4]) < HEADER_BYTES ? HEADER_BYTES : atoi(argv[4]);
        rate = atoi(argv[5]);
        seconds = atoi(argv[6]);
        warmup_seconds = atoi(argv[7]);
        const char *acks = argc > 8 ? argv[8] : "all";

        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        set(conf, "bootstrap.servers", bootstrap);
        set(conf, "linger.ms", "1");
        set(conf, "acks", acks);
        rd_kafka_conf_set_dr_msg_cb(conf, delivered);
        rd_kafka_conf_set_log_cb(conf, ignore_log);
        if (!(producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why))))
                die("producer", why);
        if (!(topic = rd_kafka_topic_new(producer, name, NULL)))
                die("topic", rd_kafka_err2str(rd_kafka_last_error()));

        conf = rd_kafka_conf_new();
        set(conf, "bootstrap.servers", bootstrap);
        set(conf, "group.id", "latency");
        set(conf, "enable.auto.commit", "false");
        rd_kafka_conf_set_log_cb(conf, ignore_log);
        if (!(consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why))))
                die("consumer", why);
        rd_kafka_poll_set_consumer(consumer);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
        for (int32_t partition = 0; partition < partitions; partition++) {
                int64_t low, high;
                rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(consumer, name, partition, &low, &high, 30000);
                if (err)
                        die("watermarks", rd_kafka_err2str(err));
                rd_kafka_topic_partition_list_add(list, name, partition)->offset = high;
        }
        rd_kafka_resp_err_t err = rd_kafka_assign(consumer, list);
        if (err)
                die("assign", rd_kafka_err2str(err));
        rd_kafka_topic_partition_list_destroy(list);

        int64_t start = now_ns();
        first_measured_ns = start + (int64_t)warmup_seconds * 1000000000;
        end_ns = first_measured_ns + (int64_t)seconds * 1000000000;
        pthread_t sender;
        if (pthread_create(&sender, NULL, send_records, NULL))
                die("thread", strerror(errno));
        receive_records();
        pthread_join(sender, NULL);

        printf("{\"sent\": %lld, \"received\": %lld, \"failed\": %lld, \"measured\": %" PRIu64 ", \"rate\": %.0f, \"mean_us\": %.0f, "
               "\"p50_us\": %" PRIu64 ", \"p99_us\": %" PRIu64 ", \"p999_us\": %" PRIu64 ", \"max_us\": %" PRIu64 "}\n",
               (long long)sent, (long long)received, (long long)failed, measured, (double)received_in_window / seconds,
               measured ? (double)total_us / (double)measured : 0.0, percentile(0.5), percentile(0.99), percentile(0.999), largest_us);
        int complete = atomic_load(&received) == atomic_load(&sent);
        rd_kafka_consumer_close(consumer);
        rd_kafka_destroy(consumer);
        rd_kafka_topic_destroy(topic);
        rd_kafka_destroy(producer);
        return complete ? 0 : 2;
}
