//! The language of the golden scripts.
//!
//! A capitalised word at the beginning of a line is a client. It remembers its member id and
//! generation from the replies it gets, as real clients do, and belongs to group `g` unless told
//! otherwise. Options are `key=value`; member ids are printed as the client id, `#`, and a number.
//!
//! ```text
//! A join [v=9] [instance=I] [client=c] [session=MS] [rebalance=MS] [type=T] [reason=R] [anew]
//!        [protocols=range:t1+t2,sticky:t1] [owned=t:0+1] [member=M] [group=G]
//! A sync [A=x] [B=@t:0+1,u:2] [generation=N] [type=T] [protocol=P] [member=M] [instance=I]
//! A heartbeat | A leave [reason=R]        leave instance=I | leave member=M
//! A commit t:0=5 [metadata=TEXT] [metadata-length=N] [retention=MS] [id=N] [v=9] [generation=N]
//! commit t:0=5                            by nobody in particular
//! A commit t:0=5 producer=N               in the transaction of a producer
//! end producer=N commit|abort
//! fetch [t:0 t:1] [id=N] [member=M] [epoch=N] [stable]
//!                             delete-offsets t:0     delete-groups g h     delete-topic t id=N
//! list [states=a+b] [types=a] describe [g]           history [g]
//! wait 3s | wait 500ms        log                    deadline
//! config consumer-session=MS consumer-heartbeat=MS consumer-interval=MS [group=G]
//! settings max-size=2 delay=0 ...                    fail unavailable|not-leader|too-large
//! A beat [join|leave|away] [topics=t+u] [regex=R] [owns] [owns=t:0+1,u:2] [instance=I]
//!        [epoch=N] [rebalance=MS] [assignor=X] [member=M] [as=M] [v=1]
//! A thread [join|leave] [topology=T] [topology-epoch=N] [process=P] [owns] [owns=0:0+1] [copies=..]
//!        [endpoint=HOST:PORT] [epoch=N] [stop] [instance=I] [positions]
//! describe-streams [g]        streams-history [g]
//! topic t=3 u=2 -v                        describe-consumer [g]   consumer-history [g]
//! hold | flush                reload                 unload
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_coordinator::classic::{
    HeartbeatRequest, JoinRequest, LeaveRequest, Leaver, Protocol, SyncRequest,
};
use fleuve_coordinator::offsets::{
    CommitPartition, CommitRequest, CommitTopic, DeleteRequest, DeletedTopic, FetchRequest,
    FetchTopic, FetchedOffset, TopicOutcomes, TransactionalCommitRequest,
};
use fleuve_coordinator::transaction::Producer;
use fleuve_coordinator::{
    AppendError, GroupConfig, GroupError, GroupSettings, ListFilter, MigrationPolicy, Rebalance,
    Record, Response, Token,
};
use fleuve_protocol::messages::consumer_protocol_assignment::{self, ConsumerProtocolAssignment};
use fleuve_protocol::messages::consumer_protocol_subscription::{
    self, ConsumerProtocolSubscription,
};
use fleuve_protocol::{Message, Reader, Str, Writer};
use fleuve_types::{Offset, ProducerEpoch, ProducerId, Uuid};

use crate::consumer::{Consumer, print_record, print_reply};
use crate::driver::{Driver, Logged};
use crate::streams::{Thread, print_streams_record, print_streams_reply};

pub(crate) const DEFAULT_GROUP: &str = "g";

/// What a client remembers between its requests.
#[derive(Clone, Debug)]
struct Client {
    member_id: Str,
    generation: i32,
    instance_id: Option<Str>,
}

impl Client {
    fn new() -> Self {
        Self { member_id: Str::EMPTY, generation: -1, instance_id: None }
    }
}

pub(crate) struct Script {
    pub(crate) driver: Driver,
    clients: BTreeMap<String, Client>,
    pub(crate) consumers: BTreeMap<String, Consumer>,
    pub(crate) threads: BTreeMap<String, Thread>,
    /// Who sent what, until it is answered and printed.
    requests: BTreeMap<Token, (String, &'static str)>,
    printed_answers: usize,
    printed_records: usize,
}

/// The words of a command after the first ones.
pub(crate) struct Options<'a> {
    pub(crate) words: Vec<&'a str>,
}

impl<'a> Options<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.words
            .iter()
            .find_map(|word| word.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
    }

    pub(crate) fn text(&self, key: &str) -> Option<Str> {
        self.get(key).map(Str::copy_from)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key).map(|value| value.parse().unwrap_or_else(|_| panic!("{key} is a number")))
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    /// Words of the form `topic:partition` or `topic:partition=value`.
    fn partitions(&self) -> Vec<(Str, i32, Option<i64>)> {
        let parse = |word: &&str| {
            let (topic, rest) = word.split_once(':')?;
            let (partition, value) = match rest.split_once('=') {
                Some((partition, value)) => (partition, Some(value.parse().ok()?)),
                None => (rest, None),
            };
            Some((Str::copy_from(topic), partition.parse().ok()?, value))
        };
        self.words.iter().filter_map(parse).collect()
    }

    fn topic_id(&self) -> Uuid {
        self.number("id").map(topic_id).unwrap_or(Uuid::ZERO)
    }
}

impl Script {
    pub(crate) fn new() -> Self {
        let mut settings = GroupSettings::default();
        // Scripts show one thing at a time; that assignments wait for each other is one of them.
        settings.consumer.timing.assignment_interval_ms = 0;
        settings.streams.timing.assignment_interval_ms = 0;
        settings.streams.initial_rebalance_delay_ms = 0;
        Self {
            driver: Driver::new(settings),
            clients: BTreeMap::new(),
            consumers: BTreeMap::new(),
            threads: BTreeMap::new(),
            requests: BTreeMap::new(),
            printed_answers: 0,
            printed_records: 0,
        }
    }

    /// Runs one command and returns what it prints.
    pub(crate) fn run(&mut self, command: &str) -> Vec<String> {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        let is_client = words[0].starts_with(|first: char| first.is_ascii_uppercase());
        let client = if is_client { words.remove(0).to_owned() } else { String::new() };
        let verb = words.remove(0);
        let expanded: Vec<String> = words.iter().map(|word| member_id(word)).collect();
        let options = Options { words: expanded.iter().map(String::as_str).collect() };
        let mut output = match verb {
            "join" => self.join(&client, &options),
            "sync" => self.sync(&client, &options),
            "heartbeat" => self.heartbeat(&client, &options),
            "leave" => self.leave(&client, &options),
            "commit" => self.commit(&client, &options),
            "delete-offsets" => self.delete_offsets(&options),
            "delete-groups" => self.delete_groups(&options),
            "delete-topic" => self.delete_topic(&options),
            "fetch" => self.fetch(&options),
            "end" => self.end(&options),
            "beat" => self.beat(&client, &options),
            "topic" => self.topic(&options),
            "thread" => self.thread(&client, &options),
            "describe-streams" => self.describe_streams(&options),
            "streams-history" => self.streams_history(&options),
            "describe-consumer" => self.describe_consumer(&options),
            "consumer-history" => self.consumer_history(&options),
            "list" => self.list(&options),
            "describe" => self.describe(&options),
            "history" => self.history(&options),
            "wait" => self.wait(&options),
            "log" => self.log(),
            "deadline" => self.deadline(),
            "settings" => self.settings(&options),
            "config" => self.config(&options),
            "fail" => self.fail(&options),
            "hold" => self.hold(),
            "flush" => self.flush(),
            "reload" => self.reload(),
            "unload" => self.unload(),
            other => panic!("the language has no command {other}"),
        };
        output.extend(self.new_answers(verb == "wait"));
        output.iter().map(|line| short(line)).collect()
    }

    pub(crate) fn send(
        &mut self,
        client: &str,
        verb: &'static str,
        handle: impl FnOnce(&mut Driver) -> Token,
    ) -> Vec<String> {
        let token = handle(&mut self.driver);
        self.requests.insert(token, (client.to_owned(), verb));
        Vec::new()
    }

    fn client(&self, name: &str, options: &Options<'_>) -> Client {
        let known = self.clients.get(name).cloned();
        let mut client =
            known.unwrap_or(Client { member_id: Str::EMPTY, generation: -1, instance_id: None });
        if let Some(consumer) = self.consumers.get(name) {
            client = Client {
                member_id: consumer.member_id.clone(),
                generation: consumer.epoch,
                instance_id: consumer.instance_id.clone(),
            };
        }
        if let Some(thread) = self.threads.get(name) {
            client.member_id = thread.member_id.clone();
            client.generation = thread.epoch;
        }
        if let Some(member_id) = options.text("member") {
            client.member_id = member_id;
        }
        if let Some(generation) = options.number("generation") {
            client.generation = generation;
        }
        if let Some(instance_id) = options.text("instance") {
            client.instance_id = Some(instance_id);
        }
        client
    }

    fn join(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let known = self.clients.entry(name.to_owned()).or_insert_with(Client::new);
        if let Some(instance_id) = options.text("instance") {
            known.instance_id = Some(instance_id);
        }
        if options.has("anew") {
            known.member_id = Str::EMPTY;
        }
        let client = self.client(name, options);
        let version: i16 = options.number("v").unwrap_or(9);
        let request = JoinRequest {
            group_id: group(options),
            member_id: client.member_id,
            group_instance_id: client.instance_id,
            client_id: options.text("client").unwrap_or(name.to_lowercase().into()),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: options.number("session").unwrap_or(10_000),
            rebalance_timeout_ms: options.number("rebalance").unwrap_or(30_000),
            protocol_type: options.text("type").unwrap_or("consumer".into()),
            protocols: protocols(
                options.get("protocols").unwrap_or("range:t"),
                options.get("owned").unwrap_or_default(),
            ),
            reason: options.text("reason"),
            requires_member_id: version >= 4,
            can_skip_assignment: version >= 9,
        };
        self.send(name, "join", |driver| {
            driver.request(|shard, now, token| shard.handle_join(now, token, &request))
        })
    }

    fn sync(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let client = self.client(name, options);
        let assignments = self
            .clients
            .iter()
            .filter_map(|(other, state)| {
                let share = options.get(other)?;
                Some((state.member_id.clone(), assignment(share)))
            })
            .collect();
        let request = SyncRequest {
            group_id: group(options),
            generation: client.generation,
            member_id: client.member_id,
            group_instance_id: client.instance_id,
            protocol_type: options.text("type"),
            protocol_name: options.text("protocol"),
            assignments,
        };
        self.send(name, "sync", |driver| {
            driver.request(|shard, now, token| shard.handle_sync(now, token, &request))
        })
    }

    fn heartbeat(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let client = self.client(name, options);
        let request = HeartbeatRequest {
            group_id: group(options),
            generation: client.generation,
            member_id: client.member_id,
            group_instance_id: client.instance_id,
        };
        self.send(name, "heartbeat", |driver| {
            driver.request(|shard, now, token| shard.handle_heartbeat(now, token, &request))
        })
    }

    fn leave(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let client = self.client(name, options);
        let request = LeaveRequest {
            group_id: group(options),
            members: vec![Leaver {
                member_id: client.member_id,
                group_instance_id: client.instance_id,
                reason: options.text("reason"),
            }],
        };
        self.send(name, "leave", |driver| {
            driver.request(|shard, now, token| shard.handle_leave(now, token, &request))
        })
    }

    fn commit(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let client = self.client(name, options);
        let metadata = match options.number::<usize>("metadata-length") {
            Some(length) => Some("x".repeat(length).into()),
            None => options.text("metadata"),
        };
        let mut topics: Vec<CommitTopic> = Vec::new();
        for (name, partition, offset) in options.partitions() {
            let partition = CommitPartition {
                partition,
                offset: offset.expect("a commit has an offset"),
                leader_epoch: options.number("epoch").unwrap_or(-1),
                metadata: metadata.clone(),
            };
            match topics.iter_mut().find(|topic| topic.name == name) {
                Some(topic) => topic.partitions.push(partition),
                None => topics.push(CommitTopic {
                    name,
                    topic_id: options.topic_id(),
                    partitions: vec![partition],
                }),
            }
        }
        let request = CommitRequest {
            group_id: group(options),
            generation: client.generation,
            member_id: client.member_id,
            group_instance_id: client.instance_id,
            retention_ms: options.number("retention"),
            knows_group_id_not_found: options.number("v").unwrap_or(9) >= 9,
            topics,
        };
        if let Some(id) = options.number("producer") {
            let producer = Producer { id: ProducerId(id), epoch: ProducerEpoch(0) };
            let request = TransactionalCommitRequest { producer, commit: request };
            return self.send(name, "commit", |driver| {
                driver.request(|shard, now, token| {
                    shard.handle_transactional_offset_commit(now, token, &request)
                })
            });
        }
        self.send(name, "commit", |driver| {
            driver.request(|shard, now, token| shard.handle_offset_commit(now, token, &request))
        })
    }

    fn end(&mut self, options: &Options<'_>) -> Vec<String> {
        let producer = ProducerId(options.number("producer").expect("a producer"));
        assert!(options.has("commit") != options.has("abort"), "an end is one of the two");
        self.driver.end_transaction(producer, options.has("commit"));
        Vec::new()
    }

    fn delete_offsets(&mut self, options: &Options<'_>) -> Vec<String> {
        let topics = options
            .partitions()
            .into_iter()
            .map(|(topic, partition, _)| (topic, vec![partition]))
            .collect();
        let request = DeleteRequest { group_id: group(options), topics };
        self.send("", "delete-offsets", |driver| {
            driver.request(|shard, _, token| shard.handle_offset_delete(token, &request))
        })
    }

    fn delete_groups(&mut self, options: &Options<'_>) -> Vec<String> {
        let groups: Vec<Str> = options.words.iter().map(|word| Str::copy_from(word)).collect();
        self.send("", "delete-groups", |driver| {
            driver.request(|shard, _, token| shard.handle_delete_groups(token, &groups))
        })
    }

    fn delete_topic(&mut self, options: &Options<'_>) -> Vec<String> {
        let name = Str::copy_from(options.words[0]);
        let deleted = [DeletedTopic { name, topic_id: options.topic_id() }];
        let step = self.driver.shard.handle_topics_deleted(&deleted);
        self.driver.carry_out(step);
        Vec::new()
    }

    fn fetch(&mut self, options: &Options<'_>) -> Vec<String> {
        let asked = options.partitions();
        let topics = asked.iter().map(|(name, partition, _)| FetchTopic {
            name: name.clone(),
            topic_id: options.topic_id(),
            partitions: vec![*partition],
        });
        let request = FetchRequest {
            group_id: group(options),
            member_id: options.text("member"),
            member_epoch: options.number("epoch").unwrap_or(-1),
            topics: (!asked.is_empty()).then(|| topics.collect()),
            require_stable: options.has("stable"),
        };
        let fetched = match self.driver.shard.fetch_offsets(&request) {
            Err(error) => return vec![format!("fetch -> {}", error.kafka_name())],
            Ok(fetched) => fetched,
        };
        let mut lines = vec![match fetched.after {
            Some(after) if self.driver.high_watermark.is_some_and(|mark| mark < after) => {
                format!("fetch -> not before offset {after} is durable")
            }
            _ => "fetch ->".to_owned(),
        }];
        for topic in fetched.topics {
            for (partition, offset) in topic.partitions {
                let found = match offset {
                    FetchedOffset::None => "none".to_owned(),
                    FetchedOffset::Unstable => "UNSTABLE_OFFSET_COMMIT".to_owned(),
                    FetchedOffset::Committed(committed) => {
                        let mut text = committed.offset.to_string();
                        if committed.leader_epoch != -1 {
                            text.push_str(&format!(" epoch {}", committed.leader_epoch));
                        }
                        if !committed.metadata.is_empty() {
                            text.push_str(&format!(" `{}`", committed.metadata));
                        }
                        text
                    }
                };
                lines.push(format!("  {}:{partition} {found}", topic.name));
            }
        }
        lines
    }

    fn list(&mut self, options: &Options<'_>) -> Vec<String> {
        let names = |key: &str| {
            let names = options.get(key).map(|value| value.split('+').map(Str::copy_from));
            names.map(Iterator::collect).unwrap_or_default()
        };
        let filter = ListFilter { states: names("states"), types: names("types") };
        match self.driver.shard.list_groups(&filter) {
            Err(error) => vec![format!("list -> {}", error.kafka_name())],
            Ok(groups) => {
                let line = |group: &fleuve_coordinator::Listing| {
                    let kind = &group.protocol_type;
                    format!(
                        "  {} {} {} `{kind}`",
                        group.group_id,
                        group.group_type,
                        group.state.name()
                    )
                };
                let mut lines = vec!["list ->".to_owned()];
                lines.extend(groups.iter().map(line));
                lines
            }
        }
    }

    fn describe(&mut self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_GROUP);
        let group = match self.driver.shard.describe_group(id) {
            Err(error) => return vec![format!("describe -> {}", error.kafka_name())],
            Ok(group) => group,
        };
        let mut lines = vec![format!(
            "describe -> {} generation {} type `{}` protocol `{}` leader {}",
            group.state,
            group.generation,
            group.protocol_type,
            group.protocol_name.as_deref().unwrap_or_default(),
            group.leader.as_deref().unwrap_or("none"),
        )];
        for member in group.members {
            let instance = member.group_instance_id.map(|id| format!(" instance {id}"));
            lines.push(format!(
                "  {}{} at {} subscription {} bytes assignment `{}`",
                member.member_id,
                instance.unwrap_or_default(),
                member.client_host,
                member.metadata.len(),
                print_assignment(&member.assignment),
            ));
        }
        lines
    }

    fn history(&mut self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_GROUP);
        let group = match self.driver.shard.describe_group(id) {
            Err(error) => return vec![format!("history -> {}", error.kafka_name())],
            Ok(group) => group,
        };
        let mut lines = vec!["history ->".to_owned()];
        lines.extend(self.print_history(&group.rebalances).map(|line| {
            // What ends in a classic group is a generation.
            line.replacen(" after epoch ", " after generation ", 1)
        }));
        lines
    }

    pub(crate) fn print_history<'a>(
        &self,
        rebalances: &'a [Rebalance],
    ) -> impl Iterator<Item = String> + use<'a> {
        let start = self.driver.now().wall.0 - self.driver.now_ms;
        rebalances.iter().map(move |rebalance| {
            let member = rebalance.member.as_ref().map(|id| format!(", by {id}"));
            let reason = rebalance.client_reason.as_ref().map(|reason| format!(", `{reason}`"));
            format!(
                "  at {}ms after epoch {}: {}{}{}",
                rebalance.at.0 - start,
                rebalance.generation,
                rebalance.cause,
                member.unwrap_or_default(),
                reason.unwrap_or_default(),
            )
        })
    }

    fn wait(&mut self, options: &Options<'_>) -> Vec<String> {
        let units = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let duration = options.words[0];
        let digits = duration.trim_end_matches(|last: char| last.is_ascii_alphabetic());
        let unit = &duration[digits.len()..];
        let factor = units.iter().find(|(name, _)| *name == unit).expect("a unit of time").1;
        self.driver.wait(digits.parse::<i64>().expect("a number of units") * factor);
        Vec::new()
    }

    fn log(&mut self) -> Vec<String> {
        let new = &self.driver.log[self.printed_records..];
        self.printed_records = self.driver.log.len();
        let start = self.driver.now().wall.0 - self.driver.now_ms;
        let line = |logged: &Logged| {
            let (record, producer) = match logged {
                Logged::Record { record, producer } => (record, producer),
                Logged::Marker { producer, committed } => {
                    let end = if *committed { "commit" } else { "abort" };
                    return format!("  {end} of producer {producer}");
                }
            };
            let in_transaction = producer.map(|id| format!(" by producer {id}"));
            let text = match &**record {
                Record::Group { group, value: None } => format!("  group {group} is gone"),
                Record::Group { group, value: Some(value) } => {
                    let members = value.members.iter().map(|member| {
                        format!("{}=`{}`", member.member_id, print_assignment(&member.assignment))
                    });
                    format!(
                        "  group {group} generation {} type `{}` protocol {} leader {} since {}ms [{}]",
                        value.generation,
                        value.protocol_type,
                        value.protocol.as_deref().unwrap_or("none"),
                        value.leader.as_deref().unwrap_or("none"),
                        value.current_state_timestamp - start,
                        members.collect::<Vec<_>>().join(" "),
                    )
                }
                Record::Consumer { group, record } => print_record(group, record),
                Record::Streams { group, record } => print_streams_record(group, record),
                // The scripts' language has no words for share groups.
                Record::Share { group, record } => format!("  share group {group}: {record:?}"),
                Record::Offset { key, value } => {
                    let offset = match value {
                        None => "is gone".to_owned(),
                        Some(value) if value.expire_timestamp == -1 => value.offset.to_string(),
                        Some(value) => {
                            format!("{} until {}ms", value.offset, value.expire_timestamp - start)
                        }
                    };
                    format!("  offset {} {}:{} {offset}", key.group, key.topic, key.partition)
                }
            };
            text + &in_transaction.unwrap_or_default()
        };
        new.iter().map(line).collect()
    }

    fn deadline(&mut self) -> Vec<String> {
        let next = self.driver.shard.next_deadline().map(|next| next - self.driver.now_ms);
        vec![next.map_or("  no deadline".to_owned(), |in_ms| format!("  next in {in_ms}ms"))]
    }

    fn settings(&mut self, options: &Options<'_>) -> Vec<String> {
        self.driver.set(|settings| {
            if let Some(size) = options.number("max-size") {
                settings.max_size = size;
            }
            if let Some(timeout) = options.number("consumer-session") {
                settings.consumer.timing.session_timeout_ms = timeout;
            }
            if let Some(interval) = options.number("consumer-interval") {
                settings.consumer.timing.assignment_interval_ms = interval;
            }
            if let Some(interval) = options.number("streams-interval") {
                settings.streams.timing.assignment_interval_ms = interval;
            }
            if let Some(delay) = options.number("streams-delay") {
                settings.streams.initial_rebalance_delay_ms = delay;
            }
            if let Some(size) = options.number("streams-max-size") {
                settings.streams.max_size = size;
            }
            if let Some(policy) = options.get("migration") {
                settings.consumer.migration =
                    MigrationPolicy::from_name(policy).expect("a policy has a name");
            }
            if let Some(size) = options.number("consumer-max-size") {
                settings.consumer.max_size = size;
            }
            if let Some(delay) = options.number("delay") {
                settings.initial_rebalance_delay_ms = delay;
            }
            if let Some(retention) = options.number("retention") {
                settings.offsets_retention_ms = retention;
            }
            if let Some(bytes) = options.number("metadata-max") {
                settings.offset_metadata_max_bytes = bytes;
            }
        });
        Vec::new()
    }

    /// Sets configs of one group; those that are not named are taken away.
    fn config(&mut self, options: &Options<'_>) -> Vec<String> {
        let mut config = GroupConfig::default();
        config.consumer.session_timeout_ms = options.number("consumer-session");
        config.consumer.heartbeat_interval_ms = options.number("consumer-heartbeat");
        config.consumer.assignment_interval_ms = options.number("consumer-interval");
        config.streams.timing.session_timeout_ms = options.number("streams-session");
        config.streams.standby_replicas = options.number("copies");
        let group = options.text("group").unwrap_or_else(|| DEFAULT_GROUP.into());
        self.driver.configure(group, config);
        Vec::new()
    }

    fn fail(&mut self, options: &Options<'_>) -> Vec<String> {
        self.driver.failures.push_back(match options.words[0] {
            "unavailable" => AppendError::Unavailable,
            "not-leader" => AppendError::NotLeader,
            "too-large" => AppendError::TooLarge,
            "producer-fenced" => AppendError::ProducerFenced,
            "not-in-transaction" => AppendError::NotInTransaction,
            other => panic!("appends do not fail with {other}"),
        });
        Vec::new()
    }

    fn hold(&mut self) -> Vec<String> {
        self.driver.high_watermark = Some(Offset(self.driver.log.len() as i64));
        Vec::new()
    }

    fn flush(&mut self) -> Vec<String> {
        self.driver.flush();
        Vec::new()
    }

    fn reload(&mut self) -> Vec<String> {
        self.driver.reload();
        Vec::new()
    }

    fn unload(&mut self) -> Vec<String> {
        let now = self.driver.now();
        let step = self.driver.shard.handle_unload(now);
        self.driver.carry_out(step);
        Vec::new()
    }

    /// Prints answers that have arrived, and lets the clients learn from them.
    fn new_answers(&mut self, with_time: bool) -> Vec<String> {
        let answers = self.driver.answers[self.printed_answers..].to_vec();
        self.printed_answers = self.driver.answers.len();
        answers
            .into_iter()
            .map(|(at_ms, token, response)| {
                let (name, verb) = self.requests.remove(&token).expect("someone asked");
                self.teach(&name, &response);
                let at = if with_time { format!("{at_ms}ms ") } else { String::new() };
                let name = if name.is_empty() { name } else { format!("{name} ") };
                format!("{at}{name}{verb} -> {}", outcome(&response))
            })
            .collect()
    }

    fn teach(&mut self, name: &str, response: &Response) {
        if let Response::StreamsHeartbeat(Ok(reply)) = response {
            self.teach_thread(name, reply);
            return;
        }
        if let Response::ConsumerHeartbeat(Ok(reply)) = response {
            self.teach_consumer(name, reply);
        }
        let Some(client) = self.clients.get_mut(name) else { return };
        match response {
            Response::Join(Ok(joined)) => {
                client.member_id = joined.member_id.clone();
                client.generation = joined.generation;
            }
            Response::Join(Err(refusal)) if refusal.error == GroupError::MemberIdRequired => {
                client.member_id = refusal.member_id.clone();
            }
            _ => {}
        }
    }
}

fn outcome(response: &Response) -> String {
    match response {
        Response::Join(Ok(joined)) => {
            let members: Vec<&str> =
                joined.members.iter().map(|member| member.member_id.as_str()).collect();
            format!(
                "generation {} as {}, protocol {}, leader {}{}{}",
                joined.generation,
                joined.member_id,
                joined.protocol_name.as_deref().unwrap_or("none"),
                joined.leader,
                if joined.skip_assignment { ", skips assignment" } else { "" },
                if members.is_empty() {
                    String::new()
                } else {
                    format!(", members [{}]", members.join(" "))
                },
            )
        }
        Response::Join(Err(refusal)) if refusal.member_id.is_empty() => name(Err(refusal.error)),
        Response::Join(Err(refusal)) => {
            format!("{} as {}", refusal.error.kafka_name(), refusal.member_id)
        }
        Response::Sync(Ok(synced)) => {
            let assignment = print_assignment(&synced.assignment);
            let protocol = synced.protocol_name.as_deref().unwrap_or("none");
            format!("`{assignment}` by {protocol}")
        }
        Response::Sync(Err(error)) => name(Err(*error)),
        Response::ConsumerHeartbeat(Ok(reply)) => print_reply(reply),
        Response::ConsumerHeartbeat(Err(error)) => name(Err(*error)),
        Response::StreamsHeartbeat(Ok(reply)) => print_streams_reply(reply),
        Response::StreamsHeartbeat(Err(error)) => name(Err(*error)),
        Response::Heartbeat(outcome) => name(*outcome),
        Response::Leave(Err(error)) => name(Err(*error)),
        Response::Leave(Ok(leavers)) => {
            leavers.iter().map(|leaver| name(leaver.outcome)).collect::<Vec<_>>().join(", ")
        }
        Response::OffsetCommit(outcomes) | Response::OffsetDelete(outcomes) => match outcomes {
            Err(error) => name(Err(*error)),
            Ok(topics) => topics.iter().map(topic_outcomes).collect::<Vec<_>>().join(", "),
        },
        Response::ShareHeartbeat(_) | Response::ShareAlter(_) | Response::ShareOffsetsDelete(_) => {
            unreachable!("no script asks for {response:?}")
        }
        Response::DeleteGroups(outcomes) => {
            let each = |(group, outcome): &(Str, _)| format!("{group} {}", name(*outcome));
            outcomes.iter().map(each).collect::<Vec<_>>().join(", ")
        }
    }
}

fn topic_outcomes(topic: &TopicOutcomes) -> String {
    let each =
        |(partition, outcome): &(i32, _)| format!("{}:{partition} {}", topic.name, name(*outcome));
    topic.partitions.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn name(outcome: Result<(), GroupError>) -> String {
    outcome.map_or_else(GroupError::kafka_name, |()| "ok").to_owned()
}

pub(crate) fn group(options: &Options<'_>) -> Str {
    options.text("group").unwrap_or(DEFAULT_GROUP.into())
}

/// Parses `range:t1+t2,sticky:t1`, of a member that has `t1:0+1`.
fn protocols(text: &str, owned: &str) -> Vec<Protocol> {
    let parse = |text: &str| {
        let (name, topics) = text.split_once(':').unwrap_or((text, ""));
        let metadata = match topics {
            "garbage" => Bytes::from_static(b"garbage"),
            topics => subscription_of_owner(topics, owned),
        };
        Protocol { name: Str::copy_from(name), metadata }
    };
    text.split(',').filter(|protocol| !protocol.is_empty()).map(parse).collect()
}

/// Parses `t1:0+1,t2:0`.
fn each_topic(text: &str) -> impl Iterator<Item = (Str, Vec<i32>)> {
    text.split(',').filter(|topic| !topic.is_empty()).map(|topic| {
        let (name, partitions) = topic.split_once(':').expect("a topic has partitions");
        let number = |text: &str| text.parse().expect("a partition is a number");
        (Str::copy_from(name), partitions.split('+').map(number).collect())
    })
}

/// What a leader gives: any text, or after `@` partitions, `user-data` among them.
pub(crate) fn assignment(text: &str) -> Bytes {
    let Some(partitions) = text.strip_prefix('@') else {
        return Bytes::copy_from_slice(text.as_bytes());
    };
    let (user_data, partitions) = match partitions.strip_prefix("user-data,") {
        Some(rest) => (Some(Bytes::from_static(b"x")), rest),
        None => (None, partitions),
    };
    let each = each_topic(partitions).map(|(topic, partitions)| {
        consumer_protocol_assignment::TopicPartition { topic, partitions }
    });
    let assignment = ConsumerProtocolAssignment { assigned_partitions: each.collect(), user_data };
    let mut writer = Writer::new();
    writer.write_i16(1);
    assignment.encode(&mut writer, 1).expect("an assignment fits its format");
    writer.into_bytes()
}

/// Shows an assignment, which may be any text.
fn print_assignment(bytes: &Bytes) -> String {
    let mut reader = Reader::new(bytes.clone());
    let version = reader.read_i16("version").ok().filter(|version| (0..=3).contains(version));
    match version.map(|version| ConsumerProtocolAssignment::decode(&mut reader, version)) {
        Some(Ok(assignment)) => {
            let each = assignment.assigned_partitions.iter().map(|topic| {
                let partitions: Vec<String> =
                    topic.partitions.iter().map(ToString::to_string).collect();
                format!("{}:{}", topic.topic, partitions.join("+"))
            });
            format!("@{}", each.collect::<Vec<_>>().join(","))
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A consumer's subscription to the topics of `t1+t2`.
pub(crate) fn subscription(topics: &str) -> Bytes {
    subscription_of_owner(topics, "")
}

/// A consumer's subscription, with the partitions that it has.
pub(crate) fn subscription_of_owner(topics: &str, owned: &str) -> Bytes {
    let topics = topics.split('+').filter(|topic| !topic.is_empty()).map(Str::copy_from);
    let owned = each_topic(owned).map(|(topic, partitions)| {
        consumer_protocol_subscription::TopicPartition { topic, partitions }
    });
    let subscription = ConsumerProtocolSubscription {
        topics: topics.collect(),
        owned_partitions: owned.collect(),
        ..ConsumerProtocolSubscription::default()
    };
    let mut writer = Writer::new();
    writer.write_i16(1);
    subscription.encode(&mut writer, 1).expect("a subscription fits its format");
    writer.into_bytes()
}

fn topic_id(number: u8) -> Uuid {
    Uuid([number; 16])
}

const UUID_BEGINNING: &str = "-00000000-0000-4000-8000-";
const UUID_REST: usize = 12;

/// Turns member ids into their short form.
fn short(line: &str) -> String {
    let mut parts = line.split(UUID_BEGINNING);
    let mut output = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_at(UUID_REST);
        let number = u64::from_str_radix(number, 16).expect("member ids end in a number");
        output.push_str(&format!("#{number}{rest}"));
    }
    output
}

/// Turns the short form of a member id, wherever it stands in a word, into the long one.
fn member_id(word: &str) -> String {
    match word.split_once('#') {
        Some((prefix, number)) => {
            let number: u64 = number.parse().expect("a member id ends in a number");
            format!("{prefix}{UUID_BEGINNING}{number:012x}")
        }
        None => word.to_owned(),
    }
}
