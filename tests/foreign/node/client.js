// kafkajs: round trips, a group of two, timestamps and admin against the broker under test.
// Speaks the line protocol described in ../python/report.py.
"use strict";

const { readFileSync } = require("fs");

const { Kafka, CompressionTypes, CompressionCodecs, Partitioners, logLevel } = require("kafkajs");

CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");

const [bootstrap, phase] = process.argv.slice(2);
const PARTITIONS = 6;
const PATIENCE_MS = 30_000;
const BASE_TIMESTAMP = 1_700_000_000_000;
// The records are of 2023: retention would take them.
const KEPT_FOREVER = [{ name: "retention.ms", value: "-1" }];
const TOPIC = "kafkajs-round-trip";
const GROUP_TOPIC = "kafkajs-group";
const KEPT_GROUP = "kafkajs-kept";
const CROSS_KEYS = Array.from({ length: 24 }, (_, number) => `key-${number}`);

const kafka = new Kafka({ clientId: "kafkajs", brokers: [bootstrap], logLevel: logLevel.NOTHING, ...security() });
const admin = kafka.admin();

function say(line) {
  process.stdout.write(line + "\n");
}

async function check(name, body) {
  try {
    await body();
    say(`ok ${name}`);
  } catch (error) {
    const where = (error.stack || "").split("\n").find((line) => line.includes("client.js")) || "";
    say(`not ok ${name}: ${String(error).replace(/\s+/g, " ")} ${where.trim()}`);
  }
}

function expectEqual(actual, expected, what) {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${what}: expected ${e}, got ${a}`);
}

// Polls the condition until it holds.
async function waitUntil(condition, what) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${PATIENCE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function send(topic, messages, compression = CompressionTypes.None, settings = {}) {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...settings });
  await producer.connect();
  try {
    return await producer.send({ topic, messages, compression, acks: -1 });
  } finally {
    await producer.disconnect();
  }
}

async function join(groupId, topic, settings = {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 300, maxWaitTimeInMs: 200, ...settings });
  const member = { consumer, assigned: 0, records: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.assigned = (payload.memberAssignment[topic] || []).length;
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  return member;
}

function run(member) {
  return member.consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => void member.records.push({ partition, ...message }),
  });
}

async function partitionEnd(topic, partition) {
  const offsets = await admin.fetchTopicOffsets(topic);
  return Number(offsets.find((entry) => entry.partition === partition).high);
}

// Reads `count` records of one partition from an offset on.
async function readFrom(topic, partition, offset, count) {
  const member = await join(`kafkajs-reader-${Date.now()}-${Math.random()}`, topic);
  try {
    await run(member);
    member.consumer.seek({ topic, partition, offset: String(offset) });
    const found = () => member.records.filter((r) => r.partition === partition && Number(r.offset) >= offset);
    await waitUntil(() => found().length >= count, `${count} records of ${topic}`);
    return found().slice(0, count);
  } finally {
    await member.consumer.disconnect();
  }
}

async function topicsByAdmin() {
  await admin.createTopics({
    waitForLeaders: true,
    topics: [
      { topic: TOPIC, numPartitions: 1, configEntries: KEPT_FOREVER },
      { topic: GROUP_TOPIC, numPartitions: 2, configEntries: KEPT_FOREVER },
    ],
  });
  await admin.createPartitions({ topicPartitions: [{ topic: GROUP_TOPIC, count: PARTITIONS }] });
  const partitions = async () => (await admin.fetchTopicMetadata({ topics: [GROUP_TOPIC] })).topics[0].partitions.length;
  await waitUntil(async () => (await partitions()) === PARTITIONS, "six partitions");
  const { resources } = await admin.describeConfigs({ resources: [{ type: 2, name: TOPIC, configNames: ["retention.ms"] }] });
  expectEqual(resources[0].configEntries[0].configValue, "-1", "retention.ms as created");
}

async function roundTrip(codec) {
  const first = await partitionEnd(TOPIC, 0);
  const messages = Array.from({ length: 60 }, (_, number) => ({
    key: number % 7 === 3 ? null : `${codec}-${number}`,
    value: number % 5 === 4 ? null : `value ${number} `.repeat(20),
    partition: 0,
    headers: { n: [String(number), "again"], empty: "" },
    timestamp: String(BASE_TIMESTAMP + number),
  }));
  const [report] = await send(TOPIC, messages, codec);
  expectEqual(Number(report.baseOffset), first, "base offset");
  const text = (buffer) => (buffer === null ? null : buffer.toString());
  const records = await readFrom(TOPIC, 0, first, 60);
  records.forEach((record, number) => {
    const sent = messages[number];
    const headers = { n: record.headers.n.map(text), empty: text(record.headers.empty) };
    expectEqual([text(record.key), text(record.value), headers, record.timestamp], [sent.key, sent.value, sent.headers, sent.timestamp], "record");
  });
}

async function idempotent() {
  const first = await partitionEnd(TOPIC, 0);
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  for (let batch = 0; batch < 20; batch++) {
    const messages = Array.from({ length: 50 }, (_, number) => ({ partition: 0, value: String(batch * 50 + number) }));
    await producer.send({ topic: TOPIC, messages, acks: -1 });
  }
  await producer.disconnect();
  const values = (await readFrom(TOPIC, 0, first, 1000)).map((record) => Number(record.value));
  expectEqual(values, Array.from({ length: 1000 }, (_, number) => number), "values, each once");
}

async function seekByTimestamp() {
  const messages = Array.from({ length: 50 }, (_, n) => ({ partition: 0, value: "x", timestamp: String(BASE_TIMESTAMP + 10 * n) }));
  const base = Number((await send(GROUP_TOPIC, messages))[0].baseOffset);
  const offsets = await admin.fetchTopicOffsetsByTimestamp(GROUP_TOPIC, BASE_TIMESTAMP + 205);
  const found = Number(offsets.find((entry) => entry.partition === 0).offset);
  expectEqual(found, base + 21, "first offset at or after the timestamp");
  const [record] = await readFrom(GROUP_TOPIC, 0, found, 1);
  expectEqual(record.timestamp, String(BASE_TIMESTAMP + 210), "timestamp of the record found");
}

async function groupOfTwo() {
  const members = [await join("kafkajs-group", GROUP_TOPIC), await join("kafkajs-group", GROUP_TOPIC)];
  try {
    await run(members[0]);
    await waitUntil(() => members[0].assigned === PARTITIONS, "the first member owns all partitions");
    await run(members[1]);
    await waitUntil(() => members.every((member) => member.assigned === 3), "two members share the partitions");
    await members.shift().consumer.disconnect();
    await waitUntil(() => members[0].assigned === PARTITIONS, "the member that stays owns all partitions");
  } finally {
    for (const member of members) await member.consumer.disconnect();
  }
}

async function committedOffsets() {
  await send(GROUP_TOPIC, Array.from({ length: 20 }, (_, number) => ({ partition: 1, value: String(number) })));
  const member = await join(KEPT_GROUP, GROUP_TOPIC);
  await run(member);
  await waitUntil(() => member.records.filter((record) => record.partition === 1).length === 20, "20 records");
  await member.consumer.commitOffsets([{ topic: GROUP_TOPIC, partition: 1, offset: "12", metadata: "noted" }]);
  await member.consumer.disconnect();
  await committedOffsetIsKept();
}

async function committedOffsetIsKept() {
  const [{ partitions }] = await admin.fetchOffsets({ groupId: KEPT_GROUP, topics: [GROUP_TOPIC] });
  const stored = partitions.find((entry) => entry.partition === 1);
  expectEqual([stored.offset, stored.metadata], ["12", "noted"], "committed offset");
  const member = await join(KEPT_GROUP, GROUP_TOPIC);
  try {
    await run(member);
    const fromOne = () => member.records.filter((record) => record.partition === 1);
    await waitUntil(() => fromOne().length > 0, "records after the committed offset");
    expectEqual(fromOne()[0].value.toString(), "12", "record at the committed offset");
  } finally {
    await member.consumer.disconnect();
  }
}

async function groupsByAdmin() {
  const groupId = "kafkajs-admin";
  const member = await join(groupId, GROUP_TOPIC);
  await run(member);
  await waitUntil(() => member.assigned === PARTITIONS, "assignment");
  const listed = async () => (await admin.listGroups()).groups.map((group) => group.groupId);
  expectEqual((await listed()).includes(groupId), true, "the group is listed");
  const { groups } = await admin.describeGroups([groupId]);
  expectEqual([groups[0].state, groups[0].members.length], ["Stable", 1], "state and members");
  await member.consumer.disconnect();
  await admin.deleteGroups([groupId]);
  expectEqual((await listed()).includes(groupId), false, "the deleted group is listed");
}

async function deleteByAdmin() {
  const topic = "kafkajs-short-lived";
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: 1 }] });
  await send(topic, Array.from({ length: 10 }, (_, number) => ({ partition: 0, value: String(number) })));
  // kafkajs looks the leaders up in metadata it has only after asking for the topic's offsets.
  await admin.fetchTopicOffsets(topic);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "4" }] });
  const [offsets] = await admin.fetchTopicOffsets(topic);
  expectEqual([offsets.low, offsets.high], ["4", "10"], "first offset left and end");
  await admin.deleteTopics({ topics: [topic] });
  await waitUntil(async () => !(await admin.listTopics()).includes(topic), "the topic is gone");
}

async function readCross() {
  const total = (await admin.fetchTopicOffsets("cross")).reduce((sum, entry) => sum + Number(entry.high), 0);
  const member = await join("kafkajs-cross", "cross");
  await run(member);
  await waitUntil(() => member.records.length >= total, `${total} records of the topic cross`);
  for (const record of member.records) say(`record ${record.partition} ${record.key} ${record.value}`);
  await member.consumer.disconnect();
}

async function main() {
  await admin.connect();
  if (phase === "first") {
    await check("create, grow and describe topics", topicsByAdmin);
    for (const codec of ["None", "GZIP", "Snappy"]) {
      await check(`round trip ${codec.toLowerCase()}`, () => roundTrip(CompressionTypes[codec]));
    }
    await check("idempotent producer", idempotent);
    await check("seek by timestamp", seekByTimestamp);
    await check("group of two", groupOfTwo);
    await check("committed offsets survive the consumer", committedOffsets);
    await check("list, describe and delete groups", groupsByAdmin);
    await check("delete records and topics", deleteByAdmin);
    await check("write cross", () => send("cross", CROSS_KEYS.map((key) => ({ key, value: `kafkajs:${key}` }))));
  } else {
    await check("committed offsets survive the broker", committedOffsetIsKept);
    await check("read cross", readCross);
  }
  await admin.disconnect();
  say("done");
}

// How to get in, for the phase `connect`: as JSON in the environment.
function security() {
  if (phase !== "connect") return {};
  const { ca, certificate, key, mechanism, user, password, token } = JSON.parse(process.env.FLEUVE_SECURITY);
  const read = (path) => path && readFileSync(path, "utf8");
  const ssl = ca && { ca: [read(ca)], cert: read(certificate), key: read(key) };
  const sasl = mechanism && {
    mechanism: mechanism.toLowerCase(),
    username: user,
    password,
    oauthBearerProvider: async () => ({ value: token }),
  };
  return { ssl, sasl, retry: { retries: 0 } };
}

// Gets in and writes a record, or says why not.
async function connect() {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  try {
    await producer.connect();
    await producer.send({ topic: process.argv[4], messages: [{ value: "kafkajs" }] });
    say("in");
  } catch (error) {
    say(`out ${String(error).replace(/\s+/g, " ")}`);
  }
  await producer.disconnect();
}

(phase === "connect" ? connect() : main()).then(() => process.exit(0));
