//! The language of the golden scripts.
//!
//! A capitalised word at the beginning of a line is a client. It remembers who it is from the
//! replies it gets, as real clients do, speaks version 2 unless told otherwise, and uses the
//! transactional id `tx`. Options are `key=value`.
//!
//! ```text
//! A init [tv=0] [timeout=MS] [expect] [old] [times=N]
//!     expect: goes on as who it is; old: client of 2017; times: only the last is printed
//! A add t:0 t:1 | A verify t:0
//! A commit | A abort                             all of these: [id=I] [producer=N] [epoch=N] [old]
//! written [t:0 ..] | gone [..] | unavailable [..] | fenced [..] | coordinator-fenced [..]
//! late t:0                                       all earlier reports about t:0, once more
//! describe [tx]      list [states=a+b] [producers=1+2] [older=MS] [pattern=P]
//! wait 3s | wait 500ms       clock +3s | clock -3s       log          deadline     counters
//! settings max-timeout=MS expiration=MS version=0 wait=MS        fail not|unavailable|not-leader|too-large
//! ids none | ids some        hold | flush                stall | resume
//! reload                     crash                       unload
//! ```

use std::collections::BTreeMap;

use fleuve_coordinator::transaction::{
    AddPartitionsRequest, Decision, EndRequest, InitRequest, ListFilter, MarkerOutcome, Markers,
    Producer, Record, Response, Transaction, TransactionSettings, TransactionVersion,
    VerifyPartitionsRequest,
};
use fleuve_coordinator::{AppendError, Token};
use fleuve_protocol::Str;
use fleuve_types::{ProducerEpoch, ProducerId, TopicPartition};

use crate::driver::{Driver, WALL_AT_START_MS};

const DEFAULT_ID: &str = "tx";
const DEFAULT_TIMEOUT_MS: i32 = 60_000;

/// What a client remembers between its requests.
#[derive(Clone, Copy, Debug)]
struct Client {
    producer: Producer,
    version: TransactionVersion,
}

pub(crate) struct Script {
    driver: Driver,
    clients: BTreeMap<String, Client>,
    /// Who sent what, until it is answered and printed.
    requests: BTreeMap<Token, (String, String)>,
    printed_answers: usize,
    printed_markers: usize,
    printed_records: usize,
}

/// The words of a command after the first ones.
struct Options<'a> {
    words: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.words
            .iter()
            .find_map(|word| word.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.get(key).map(|value| value.parse().unwrap_or_else(|_| panic!("{key} is a number")))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn id(&self) -> Str {
        Str::copy_from(self.get("id").unwrap_or(DEFAULT_ID))
    }

    /// Words of the form `topic:partition`.
    fn partitions(&self) -> Vec<TopicPartition> {
        let parse = |word: &&str| {
            let (topic, partition) = word.split_once(':')?;
            Some(TopicPartition::new(topic, partition.parse().ok()?))
        };
        self.words.iter().filter_map(parse).collect()
    }
}

impl Script {
    pub(crate) fn new() -> Self {
        Self {
            // Waiting would hide what the id is busy with; scripts about it say so.
            driver: Driver::new(TransactionSettings {
                add_partitions_wait_ms: 0,
                ..TransactionSettings::default()
            }),
            clients: BTreeMap::new(),
            requests: BTreeMap::new(),
            printed_answers: 0,
            printed_markers: 0,
            printed_records: 0,
        }
    }

    /// Runs one command and returns what it prints.
    pub(crate) fn run(&mut self, command: &str) -> Vec<String> {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        let is_client = words[0].starts_with(|first: char| first.is_ascii_uppercase());
        let client = if is_client { words.remove(0) } else { "" };
        let verb = words.remove(0);
        let options = Options { words };
        let mut output = match verb {
            "init" => self.init(client, &options),
            "add" => self.add(client, &options),
            "verify" => self.verify(client, &options),
            "commit" => self.end(client, verb, Decision::Commit, &options),
            "abort" => self.end(client, verb, Decision::Abort, &options),
            "written" => self.report(MarkerOutcome::Written, &options),
            "gone" => self.report(MarkerOutcome::PartitionGone, &options),
            "unavailable" => self.report(MarkerOutcome::Unavailable, &options),
            "fenced" => self.report(MarkerOutcome::ProducerFenced, &options),
            "coordinator-fenced" => self.report(MarkerOutcome::CoordinatorFenced, &options),
            "late" => self.late(&options),
            "describe" => self.describe(&options),
            "list" => self.list(&options),
            "wait" => self.quietly(|driver| driver.wait(duration_ms(options.words[0]))),
            "clock" => self.quietly(|driver| driver.skew_ms += duration_ms(options.words[0])),
            "log" => self.log(),
            "deadline" => vec![format!("deadline {:?}", self.driver.shard.next_deadline())],
            "counters" => vec![format!("{:?}", self.driver.shard.counters())],
            "settings" => self.settings(&options),
            "fail" => {
                self.quietly(|driver| driver.failures.push_back(append_error(options.words[0])))
            }
            "ids" => self.quietly(|driver| driver.producer_ids.set_empty(options.has("none"))),
            "hold" => self.quietly(|driver| driver.hold()),
            "flush" => self.quietly(|driver| driver.flush()),
            "stall" => self.quietly(|driver| driver.stall()),
            "resume" => self.quietly(|driver| driver.resume()),
            "reload" => self.quietly(|driver| driver.reload()),
            "crash" => self.crash(),
            "unload" => self.quietly(|driver| driver.unload()),
            other => panic!("the language has no command {other}"),
        };
        output.extend(self.new_answers(verb == "wait"));
        output.extend(self.new_markers());
        output
    }

    fn quietly(&mut self, act: impl FnOnce(&mut Driver)) -> Vec<String> {
        act(&mut self.driver);
        Vec::new()
    }

    fn init(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let version = options.number("tv").and_then(TransactionVersion::from_level);
        let known = self.clients.get(name).copied();
        let version = version.or(known.map(|known| known.version));
        let client = Client {
            producer: known.map_or(nobody(), |known| known.producer),
            version: version.unwrap_or(TransactionVersion::V2),
        };
        self.clients.insert(name.to_owned(), client);
        let goes_on = options.has("expect") || options.get("producer").is_some();
        let request = InitRequest {
            transactional_id: options.id(),
            timeout_ms: options.number("timeout").unwrap_or(DEFAULT_TIMEOUT_MS),
            expected: goes_on.then(|| self.who(name, options).producer),
            knows_producer_fenced: !options.has("old"),
        };
        let times = options.number("times").unwrap_or(1);
        for _ in 1..times {
            self.driver
                .request(|shard, now, token| shard.handle_init_producer_id(now, token, &request));
        }
        if times > 1 {
            self.printed_answers = self.driver.answers.len();
            self.printed_records = self.driver.log.len();
        }
        let token = self
            .driver
            .request(|shard, now, token| shard.handle_init_producer_id(now, token, &request));
        self.sent(token, name, "init")
    }

    fn add(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let client = self.who(name, options);
        let request = AddPartitionsRequest {
            transactional_id: options.id(),
            producer: client.producer,
            partitions: options.partitions(),
            client_version: client.version,
            knows_producer_fenced: !options.has("old"),
        };
        let token = self
            .driver
            .request(|shard, now, token| shard.handle_add_partitions(now, token, &request));
        self.sent(token, name, "add")
    }

    fn verify(&mut self, name: &str, options: &Options<'_>) -> Vec<String> {
        let request = VerifyPartitionsRequest {
            transactional_id: options.id(),
            producer: self.who(name, options).producer,
            partitions: options.partitions(),
        };
        let token =
            self.driver.request(|shard, _, token| shard.handle_verify_partitions(token, &request));
        self.sent(token, name, "verify")
    }

    fn end(
        &mut self,
        name: &str,
        verb: &str,
        decision: Decision,
        options: &Options<'_>,
    ) -> Vec<String> {
        let client = self.who(name, options);
        let request = EndRequest {
            transactional_id: options.id(),
            producer: client.producer,
            decision,
            client_version: client.version,
            knows_producer_fenced: !options.has("old"),
        };
        let token = self
            .driver
            .request(|shard, now, token| shard.handle_end_transaction(now, token, &request));
        self.sent(token, name, verb)
    }

    fn report(&mut self, outcome: MarkerOutcome, options: &Options<'_>) -> Vec<String> {
        let places = options.partitions();
        let count = self.driver.outstanding.len();
        self.driver.report(outcome, |place| places.is_empty() || places.contains(place));
        match self.driver.outstanding.len() < count {
            true => Vec::new(),
            false => vec!["no such marker is outstanding".to_owned()],
        }
    }

    fn late(&mut self, options: &Options<'_>) -> Vec<String> {
        let places = options.partitions();
        for (marker, outcome) in self.driver.reported.clone() {
            if places.contains(&marker.partition) {
                self.driver.tell(&marker, outcome);
            }
        }
        Vec::new()
    }

    fn describe(&mut self, options: &Options<'_>) -> Vec<String> {
        let id = options.words.first().copied().unwrap_or(DEFAULT_ID);
        vec![match self.driver.shard.describe(id) {
            Err(error) => format!("describe -> {}", error.kafka_name()),
            Ok(found) => format!(
                "describe -> {} producer {} timeout {}ms started {} partitions {}",
                found.state.name(),
                producer(found.producer),
                found.timeout_ms,
                time(found.start_timestamp.0),
                places(&found.partitions),
            ),
        }]
    }

    fn list(&mut self, options: &Options<'_>) -> Vec<String> {
        let parts = |key| options.get(key).into_iter().flat_map(|text: &str| text.split('+'));
        let states: Vec<Str> = parts("states").map(Str::copy_from).collect();
        let producers: Vec<i64> =
            parts("producers").map(|id| id.parse().expect("a producer id")).collect();
        let older = options.number("older").unwrap_or(-1);
        let filter = match ListFilter::new(&states, &producers, older, options.get("pattern")) {
            Ok(filter) => filter,
            Err(error) => {
                let reason = error.to_string();
                return vec![format!("list -> {}", reason.lines().next().unwrap_or_default())];
            }
        };
        let mut lines = match self.driver.shard.list(self.driver.now(), &filter) {
            Err(error) => vec![format!("list -> {}", error.kafka_name())],
            Ok(found) => {
                let line = |listing: &fleuve_coordinator::transaction::Listing| {
                    let state = listing.state.name();
                    format!(
                        "  {} producer {} {state}",
                        listing.transactional_id, listing.producer_id
                    )
                };
                std::iter::once("list ->".to_owned()).chain(found.iter().map(line)).collect()
            }
        };
        lines.extend(filter.unknown_states().iter().map(|name| format!("  unknown state {name}")));
        lines
    }

    fn log(&mut self) -> Vec<String> {
        let new = &self.driver.log[self.printed_records..];
        self.printed_records = self.driver.log.len();
        new.iter().map(record).collect()
    }

    fn settings(&mut self, options: &Options<'_>) -> Vec<String> {
        let number = |key| options.number::<i64>(key);
        self.driver.set(|settings| {
            if let Some(ms) = options.number("max-timeout") {
                settings.max_timeout_ms = ms;
            }
            if let Some(ms) = number("expiration") {
                settings.id_expiration_ms = ms;
            }
            if let Some(ms) = number("wait") {
                settings.add_partitions_wait_ms = ms;
            }
            if let Some(level) = options.number("version") {
                settings.cluster_version =
                    TransactionVersion::from_level(level).expect("a feature level");
            }
        });
        Vec::new()
    }

    fn crash(&mut self) -> Vec<String> {
        self.driver.crash();
        self.printed_records = self.printed_records.min(self.driver.log.len());
        Vec::new()
    }

    fn who(&self, name: &str, options: &Options<'_>) -> Client {
        let mut client = self
            .clients
            .get(name)
            .copied()
            .unwrap_or(Client { producer: nobody(), version: TransactionVersion::V2 });
        if let Some(id) = options.number("producer") {
            client.producer.id = ProducerId(id);
        }
        if let Some(epoch) = options.number("epoch") {
            client.producer.epoch = ProducerEpoch(epoch);
        }
        client
    }

    fn sent(&mut self, token: Token, name: &str, verb: &str) -> Vec<String> {
        self.requests.insert(token, (name.to_owned(), verb.to_owned()));
        Vec::new()
    }

    fn new_answers(&mut self, with_time: bool) -> Vec<String> {
        let new = &self.driver.answers[self.printed_answers..];
        self.printed_answers = self.driver.answers.len();
        let mut lines = Vec::new();
        for (at_ms, token, response) in new {
            let (name, verb) = self.requests.remove(token).expect("somebody sent the request");
            let client = self.clients.get_mut(&name);
            if let (Some(client), Some(response)) = (client, response) {
                client.producer = match response {
                    Response::InitProducerId(Ok(producer)) => *producer,
                    Response::EndTransaction(Ok(Some(producer))) => *producer,
                    _ => client.producer,
                };
            }
            let time = if with_time { format!("{at_ms}ms ") } else { String::new() };
            let text = response.as_ref().map_or("NOT_COORDINATOR".to_owned(), answer);
            lines.push(format!("{time}{name} {verb} -> {text}"));
        }
        lines
    }

    fn new_markers(&mut self) -> Vec<String> {
        let new = &self.driver.asked[self.printed_markers..];
        self.printed_markers = self.driver.asked.len();
        let line = |Markers { key, version, partitions }: &Markers| {
            format!(
                "markers {:?} of {} producer {} coordinator {} v{} to {}",
                key.decision,
                key.transactional_id,
                producer(key.producer),
                key.coordinator_epoch,
                version.level(),
                places(partitions),
            )
        };
        new.iter().map(line).collect()
    }
}

fn nobody() -> Producer {
    Producer { id: ProducerId(-1), epoch: ProducerEpoch(-1) }
}

fn answer(response: &Response) -> String {
    let error = match response {
        Response::InitProducerId(Ok(who)) => return format!("producer {}", producer(*who)),
        Response::AddPartitions(Ok(())) => return "added".to_owned(),
        Response::VerifyPartitions(Ok(found)) => {
            let line = |(place, is_part): &(TopicPartition, bool)| {
                let word = if *is_part { "is part" } else { "is not" };
                format!("{}:{} {word}", place.topic, place.partition)
            };
            return found.iter().map(line).collect::<Vec<_>>().join(", ");
        }
        Response::EndTransaction(Ok(Some(who))) => {
            return format!("done, from now on producer {}", producer(*who));
        }
        Response::EndTransaction(Ok(None)) => return "done".to_owned(),
        Response::InitProducerId(Err(error))
        | Response::AddPartitions(Err(error))
        | Response::VerifyPartitions(Err(error))
        | Response::EndTransaction(Err(error)) => error,
    };
    error.kafka_name().to_owned()
}

fn record(record: &Record) -> String {
    let Some(transaction) = record.transaction() else {
        return format!("{}: tombstone", record.transactional_id);
    };
    let Transaction { previous_producer_id: previous, next_producer_id: next, .. } = transaction;
    let next = if next.0 == -1 { String::new() } else { format!(" next {next}") };
    format!(
        "{}: {} producer {} previous {previous}{next} v{} started {} partitions {}",
        record.transactional_id,
        transaction.state.name(),
        producer(transaction.producer),
        transaction.client_version.level(),
        time(transaction.start_timestamp.0),
        places(&transaction.partitions),
    )
}

/// Id and epoch of a producer, as in `7/0`.
fn producer(producer: Producer) -> String {
    format!("{}/{}", producer.id, producer.epoch)
}

fn places<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> String {
    let names = partitions.into_iter().map(|place| format!("{}:{}", place.topic, place.partition));
    format!("[{}]", names.collect::<Vec<_>>().join(" "))
}

fn time(wall_ms: i64) -> String {
    match wall_ms {
        -1 => "never".to_owned(),
        at_ms => format!("at {}ms", at_ms - WALL_AT_START_MS),
    }
}

fn append_error(name: &str) -> Option<AppendError> {
    Some(match name {
        "not" => return None,
        "unavailable" => AppendError::Unavailable,
        "not-leader" => AppendError::NotLeader,
        "too-large" => AppendError::TooLarge,
        other => panic!("appends do not fail like {other}"),
    })
}

/// A duration such as `3s`, `500ms`, `7d`, or `-3s`.
fn duration_ms(text: &str) -> i64 {
    let begin = text.find(|c: char| c.is_ascii_alphabetic()).expect("a duration has a unit");
    let number: i64 = text[..begin].parse().expect("a duration has a number");
    number
        * match &text[begin..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            other => panic!("{other} is no unit of time"),
        }
}
