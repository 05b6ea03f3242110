// franz-go: round trips, groups, timestamps and admin against the broker under test.
// Speaks the line protocol described in ../python/report.py.
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	partitions    = 6
	patience      = 30 * time.Second
	baseTimestamp = int64(1_700_000_000_000)
	topic         = "franz-round-trip"
	groupTopic    = "franz-group"
	keptGroup     = "franz-kept"
)

var (
	bootstrap string
	admin     *kadm.Client
)

func check(name string, body func(context.Context) error) {
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := body(limited); err != nil {
		fmt.Printf("not ok %s: %s\n", name, strings.Join(strings.Fields(err.Error()), " "))
		return
	}
	fmt.Printf("ok %s\n", name)
}

func expectEqual(actual, expected any, what string) error {
	if !reflect.DeepEqual(actual, expected) {
		return fmt.Errorf("%s: expected %v, got %v", what, expected, actual)
	}
	return nil
}

func newClient(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap)}, options...)...)
	if err != nil {
		panic(err)
	}
	return client
}

// waitUntil calls the condition, which does the polling itself, until it holds.
func waitUntil(ctx context.Context, what string, condition func() (bool, error)) error {
	for {
		holds, err := condition()
		if err != nil || holds {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: not within %s", what, patience)
		}
	}
}

func send(ctx context.Context, records []*kgo.Record, options ...kgo.Opt) error {
	client := newClient(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks())}, options...)...)
	defer client.Close()
	return client.ProduceSync(ctx, records...).FirstErr()
}

func take(ctx context.Context, client *kgo.Client, count int) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("%d of %d records: %w", len(records), count, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records[:count], nil
}

func readFrom(ctx context.Context, name string, partition int32, offset int64, count int) ([]*kgo.Record, error) {
	at := map[string]map[int32]kgo.Offset{name: {partition: kgo.NewOffset().At(offset)}}
	client := newClient(kgo.ConsumePartitions(at))
	defer client.Close()
	return take(ctx, client, count)
}

func end(ctx context.Context, name string, partition int32) (int64, error) {
	offsets, err := admin.ListEndOffsets(ctx, name)
	if err != nil {
		return 0, err
	}
	offset, _ := offsets.Lookup(name, partition)
	return offset.Offset, offset.Err
}

func topicsByAdmin(ctx context.Context) error {
	retention := "-1" // the records are of 2023
	kept := map[string]*string{"retention.ms": &retention}
	if _, err := admin.CreateTopic(ctx, 1, 1, kept, topic); err != nil {
		return err
	}
	if _, err := admin.CreateTopic(ctx, 2, 1, kept, groupTopic); err != nil {
		return err
	}
	if _, err := admin.UpdatePartitions(ctx, partitions, groupTopic); err != nil {
		return err
	}
	err := waitUntil(ctx, "six partitions", func() (bool, error) {
		topics, err := admin.ListTopics(ctx, groupTopic)
		return len(topics[groupTopic].Partitions) == partitions, err
	})
	if err != nil {
		return err
	}
	if value, err := config(ctx, "retention.ms"); err != nil || value != retention {
		return fmt.Errorf("retention.ms as created is %q, error %v", value, err)
	}
	larger := "2000000"
	if _, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &larger}}, topic); err != nil {
		return err
	}
	return waitUntil(ctx, "altered max.message.bytes", func() (bool, error) {
		value, err := config(ctx, "max.message.bytes")
		return value == larger, err
	})
}

func config(ctx context.Context, key string) (string, error) {
	resources, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	for _, entry := range resources[0].Configs {
		if entry.Key == key {
			return entry.MaybeValue(), nil
		}
	}
	return "", fmt.Errorf("%s is not described", key)
}

func roundTrip(codec kgo.CompressionCodec) func(context.Context) error {
	return func(ctx context.Context) error {
		first, err := end(ctx, topic, 0)
		if err != nil {
			return err
		}
		var sent []*kgo.Record
		for n := range 60 {
			record := &kgo.Record{Topic: topic, Timestamp: time.UnixMilli(baseTimestamp + int64(n))}
			if n%7 != 3 {
				record.Key = fmt.Appendf(nil, "key-%d", n)
			}
			if n%5 != 4 {
				record.Value = []byte(strings.Repeat(fmt.Sprintf("value %d ", n), 20))
			}
			record.Headers = []kgo.RecordHeader{{Key: "n", Value: fmt.Appendf(nil, "%d", n)}, {Key: "n", Value: []byte("again")}, {Key: "empty", Value: []byte{}}, {Key: "null"}}
			sent = append(sent, record)
		}
		if err := send(ctx, sent, kgo.ProducerBatchCompression(codec)); err != nil {
			return err
		}
		got, err := readFrom(ctx, topic, 0, first, 60)
		if err != nil {
			return err
		}
		for n, record := range got {
			expected := sent[n]
			actual := []any{record.Offset, record.Key, record.Value, record.Headers, record.Timestamp.UnixMilli()}
			wanted := []any{first + int64(n), expected.Key, expected.Value, expected.Headers, expected.Timestamp.UnixMilli()}
			if err := expectEqual(actual, wanted, "record"); err != nil {
				return err
			}
		}
		return nil
	}
}

func idempotent(ctx context.Context) error {
	first, err := end(ctx, topic, 0)
	if err != nil {
		return err
	}
	var sent []*kgo.Record
	for n := range 2000 {
		sent = append(sent, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "%d", n)})
	}
	// Idempotence is this client's default; small batches make many sequences.
	if err := send(ctx, sent, kgo.ProducerBatchMaxBytes(1024)); err != nil {
		return err
	}
	got, err := readFrom(ctx, topic, 0, first, len(sent))
	for n, record := range got {
		if err := expectEqual(string(record.Value), fmt.Sprint(n), "value"); err != nil {
			return err
		}
	}
	return err
}

func seekByTimestamp(ctx context.Context) error {
	var sent []*kgo.Record
	for n := range 50 {
		sent = append(sent, &kgo.Record{Topic: groupTopic, Value: []byte("x"), Timestamp: time.UnixMilli(baseTimestamp + 10*int64(n))})
	}
	if err := send(ctx, sent); err != nil {
		return err
	}
	offsets, err := admin.ListOffsetsAfterMilli(ctx, baseTimestamp+205, groupTopic)
	if err != nil {
		return err
	}
	found, _ := offsets.Lookup(groupTopic, 0)
	if err := expectEqual([]int64{found.Offset, found.Timestamp}, []int64{sent[0].Offset + 21, baseTimestamp + 210}, "first at or after"); err != nil {
		return err
	}
	records, err := readFrom(ctx, groupTopic, 0, found.Offset, 1)
	if err != nil {
		return err
	}
	return expectEqual(records[0].Timestamp.UnixMilli(), baseTimestamp+210, "timestamp of the record found")
}

// member is one consumer of a group, and how many partitions it owns.
type member struct {
	client *kgo.Client
	owned  int
}

func join(group string, balancer kgo.GroupBalancer) *member {
	m := &member{}
	take := func(_ context.Context, _ *kgo.Client, given map[string][]int32) { m.owned += len(given[groupTopic]) }
	give := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { m.owned -= len(lost[groupTopic]) }
	m.client = newClient(kgo.ConsumerGroup(group), kgo.ConsumeTopics(groupTopic), kgo.Balancers(balancer),
		kgo.HeartbeatInterval(300*time.Millisecond), kgo.SessionTimeout(6*time.Second), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(take), kgo.OnPartitionsRevoked(give), kgo.OnPartitionsLost(give))
	return m
}

// poll lets a rebalance run, then reads the count it left; rebalances happen only between polls.
func (m *member) poll(ctx context.Context) int {
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	m.client.PollFetches(short)
	owned := m.owned
	m.client.AllowRebalance()
	return owned
}

func groupOfTwo(balancer kgo.GroupBalancer) func(context.Context) error {
	return func(ctx context.Context) error {
		group := "franz-group-" + balancer.ProtocolName()
		first := join(group, balancer)
		defer first.client.CloseAllowingRebalance()
		err := waitUntil(ctx, "the first member owns all partitions", func() (bool, error) { return first.poll(ctx) == partitions, nil })
		if err != nil {
			return err
		}
		second := join(group, balancer)
		defer second.client.CloseAllowingRebalance()
		err = waitUntil(ctx, "two members share the partitions", func() (bool, error) {
			return first.poll(ctx) == 3 && second.poll(ctx) == 3, nil
		})
		if err != nil {
			return err
		}
		first.client.CloseAllowingRebalance()
		return waitUntil(ctx, "the member that stays owns all partitions", func() (bool, error) { return second.poll(ctx) == partitions, nil })
	}
}

func committedOffsets(ctx context.Context) error {
	var sent []*kgo.Record
	for n := range 20 {
		sent = append(sent, &kgo.Record{Topic: groupTopic, Partition: 1, Value: fmt.Appendf(nil, "%d", n)})
	}
	if err := send(ctx, sent); err != nil {
		return err
	}
	client := newClient(kgo.ConsumerGroup(keptGroup), kgo.ConsumeTopics(groupTopic), kgo.DisableAutoCommit())
	if _, err := take(ctx, client, 20); err != nil {
		return err
	}
	at := map[string]map[int32]kgo.EpochOffset{groupTopic: {1: {Epoch: -1, Offset: 12}}}
	var failed error
	client.CommitOffsetsSync(ctx, at, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		failed = err
	})
	client.Close()
	if failed != nil {
		return failed
	}
	return committedOffsetIsKept(ctx)
}

func committedOffsetIsKept(ctx context.Context) error {
	offsets, err := admin.FetchOffsets(ctx, keptGroup)
	if err != nil {
		return err
	}
	kept, _ := offsets.Lookup(groupTopic, 1)
	if err := expectEqual(kept.At, int64(12), "committed offset"); err != nil {
		return err
	}
	records, err := readFrom(ctx, groupTopic, 1, kept.At, 1)
	if err != nil {
		return err
	}
	return expectEqual(string(records[0].Value), "12", "record at the committed offset")
}

func groupsByAdmin(ctx context.Context) error {
	const group = "franz-admin"
	m := join(group, kgo.RangeBalancer())
	err := waitUntil(ctx, "the only member owns all partitions", func() (bool, error) { return m.poll(ctx) == partitions, nil })
	if err != nil {
		return err
	}
	listed, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	if _, found := listed[group]; !found {
		return fmt.Errorf("the group is not listed")
	}
	described, err := admin.DescribeGroups(ctx, group)
	if err != nil {
		return err
	}
	if err := expectEqual([]any{described[group].State, len(described[group].Members)}, []any{"Stable", 1}, "state and members"); err != nil {
		return err
	}
	m.client.CloseAllowingRebalance()
	commit := kadm.Offsets{}
	commit.AddOffset(groupTopic, 0, 5, -1)
	if err := admin.CommitAllOffsets(ctx, group, commit); err != nil {
		return err
	}
	if _, err := admin.DeleteGroup(ctx, group); err != nil {
		return err
	}
	listed, err = admin.ListGroups(ctx)
	if _, found := listed[group]; found {
		return fmt.Errorf("the deleted group is listed")
	}
	return err
}

func deleteByAdmin(ctx context.Context) error {
	const name = "franz-short-lived"
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, name); err != nil {
		return err
	}
	var sent []*kgo.Record
	for n := range 10 {
		sent = append(sent, &kgo.Record{Topic: name, Value: fmt.Appendf(nil, "%d", n)})
	}
	if err := send(ctx, sent); err != nil {
		return err
	}
	before := kadm.Offsets{}
	before.AddOffset(name, 0, 4, -1)
	deleted, err := admin.DeleteRecords(ctx, before)
	if err != nil {
		return err
	}
	low, _ := deleted.Lookup(name, 0)
	if err := expectEqual(low.LowWatermark, int64(4), "low watermark after deleting records"); err != nil {
		return err
	}
	if _, err := admin.DeleteTopic(ctx, name); err != nil {
		return err
	}
	return waitUntil(ctx, "the topic is gone", func() (bool, error) {
		topics, err := admin.ListTopics(ctx, name)
		return topics[name].Err == kerr.UnknownTopicOrPartition, err
	})
}

func writeCross(ctx context.Context) error {
	client := newClient()
	defer client.Close()
	var sent []*kgo.Record
	for n := range 24 {
		key := fmt.Sprintf("key-%d", n)
		sent = append(sent, &kgo.Record{Topic: "cross", Key: []byte(key), Value: []byte("franz-go:" + key)})
	}
	return client.ProduceSync(ctx, sent...).FirstErr()
}

func readCross(ctx context.Context) error {
	offsets, err := admin.ListEndOffsets(ctx, "cross")
	if err != nil {
		return err
	}
	total := 0
	offsets.Each(func(offset kadm.ListedOffset) { total += int(offset.Offset) })
	client := newClient(kgo.ConsumeTopics("cross"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	records, err := take(ctx, client, total)
	for _, record := range records {
		fmt.Printf("record %d %s %s\n", record.Partition, record.Key, record.Value)
	}
	return err
}

func main() {
	bootstrap = os.Args[1]
	if os.Args[2] == "connect" {
		connect(os.Args[3])
		return
	}
	admin = kadm.NewClient(newClient())
	if os.Args[2] == "first" {
		check("create, grow, describe and alter topics", topicsByAdmin)
		codecs := []struct {
			name  string
			codec kgo.CompressionCodec
		}{
			{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
			{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
		}
		for _, each := range codecs {
			check("round trip "+each.name, roundTrip(each.codec))
		}
		check("idempotent producer", idempotent)
		check("seek by timestamp", seekByTimestamp)
		check("group of two, range", groupOfTwo(kgo.RangeBalancer()))
		check("group of two, cooperative", groupOfTwo(kgo.CooperativeStickyBalancer()))
		check("committed offsets survive the consumer", committedOffsets)
		check("list, describe and delete groups", groupsByAdmin)
		check("delete records and topics", deleteByAdmin)
		check("write cross", writeCross)
	} else {
		check("committed offsets survive the broker", committedOffsetIsKept)
		check("read cross", readCross)
	}
	admin.Close()
	fmt.Println("done")
}
