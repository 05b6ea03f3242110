//! Queries as they come in over HTTP, and their answers.
//!
//! ```text
//! /stores                                       what there is
//! /stores/NAME/key/KEY                          one key of a key-value store
//! /stores/NAME/range?from=KEY&to=KEY            its keys within bounds, both of them included
//! /stores/NAME/versions/KEY?from=MS&to=MS       what a key of a versioned store was; as_of=MS for one moment
//! /stores/NAME/windows/KEY?from=MS&to=MS        the windows or sessions of a key
//! /stores/NAME/windows?from=MS&to=MS            those of all keys
//! ```
//!
//! Further parameters: `limit` (rows), `reverse=true`, `partition`, `at_least=TOPIC:PARTITION:OFFSET,...`, and
//! `stale=true`, which lets a standby answer for a task: one that is here, or that of another instance where the owner does
//! not answer. Keys are percent-encoded. `routed=true` marks a request that another instance passed on: it is answered here or not at all.

use serde_json::{Value, json};

use super::face::Question;
use super::request::{Target, partition_for};
use super::{Position, QueryError};
use crate::runtime::{Globals, Task, TaskId};
use crate::topology::Plan;

/// An answer in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonReply {
    /// The HTTP status.
    pub status: u16,
    /// The document.
    pub json: Value,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Stores,
    Ask(Ask),
}

/// A question to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) store: String,
    pub(super) question: Question,
    pub(super) partition: Option<i32>,
    pub(super) bound: Position,
    pub(super) limit: usize,
    pub(super) reversed: bool,
    /// Whether a standby may answer.
    pub(crate) is_stale_enough: bool,
    /// Whether another instance passed it on.
    pub(crate) routed: bool,
}

/// What some of the tasks of a store have found.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Value>,
    pub(crate) position: Position,
    /// Whether there are more than were asked for.
    pub(crate) more: bool,
}

impl Request {
    /// Reads a path with its query; `None` if it is not about stores.
    pub(crate) fn parse(path: &str) -> Option<Result<Self, JsonReply>> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let rest = path.strip_prefix("/stores")?;
        if rest.is_empty() || rest == "/" {
            return Some(Ok(Self::Stores));
        }
        Some(Ask::parse(rest.strip_prefix('/')?, query).map(Self::Ask).map_err(JsonReply::wrong))
    }
}

impl Ask {
    fn parse(path: &str, query: &str) -> Result<Self, String> {
        let mut parts = path.split('/').map(decoded);
        let store = parts.next().unwrap_or(Ok(String::new()))?;
        let what = parts.next().transpose()?.unwrap_or_default();
        let key = parts.next().transpose()?;
        if parts.next().is_some() {
            return Err("a slash in a key is written %2F".to_owned());
        }
        let mut ask = Self {
            store,
            question: Question::Range { from: None, to: None },
            partition: None,
            bound: Position::default(),
            limit: LIMIT,
            reversed: false,
            is_stale_enough: false,
            routed: false,
        };
        let (mut from, mut to) = (None, None);
        let mut as_of = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "from" => from = Some(value),
                "to" => to = Some(value),
                "as_of" if what == "versions" => as_of = Some(value),
                "limit" => ask.limit = number(name, &value)?,
                "partition" => ask.partition = Some(number(name, &value)?),
                "reverse" => ask.reversed = value == "true",
                "stale" => ask.is_stale_enough = value == "true",
                "routed" => ask.routed = value == "true",
                "at_least" => ask.bound = bound(&value)?,
                _ => return Err(format!("there is no parameter {name}")),
            }
        }
        ask.question = match (what.as_str(), key) {
            ("key", Some(key)) => Question::Key(key),
            ("range", None) => Question::Range { from, to },
            ("versions", Some(key)) => {
                let (from, to) = (as_of.clone().or(from), as_of.or(to));
                Question::Versions {
                    key,
                    from_ms: from.map_or(Ok(i64::MIN), |from| number("from", &from))?,
                    to_ms: to.map_or(Ok(i64::MAX), |to| number("to", &to))?,
                }
            }
            ("windows", key) => Question::Windows {
                key,
                from_ms: from.map_or(Ok(i64::MIN), |from| number("from", &from))?,
                to_ms: to.map_or(Ok(i64::MAX), |to| number("to", &to))?,
            },
            _ => {
                return Err("ask for /stores/NAME/key/KEY, /stores/NAME/range, \
                            /stores/NAME/versions/KEY, /stores/NAME/windows or /stores/NAME/windows/KEY"
                    .to_owned());
            }
        };
        Ok(ask)
    }

    /// Finds out who is to be asked.
    pub(crate) fn target(
        &self,
        plan: &Plan,
        count_of: impl Fn(u32) -> i32,
    ) -> Result<Target, QueryError> {
        if plan.globals.contains_key(&self.store) {
            return Ok(Target::Global);
        }
        let subtopology = plan.home_of(&self.store)?;
        let count = count_of(subtopology);
        let key = match &self.question {
            Question::Key(key)
            | Question::Versions { key, .. }
            | Question::Windows { key: Some(key), .. } => Some(key),
            Question::Range { .. } | Question::Windows { key: None, .. } => None,
        };
        let partition = match (self.partition, key) {
            (Some(partition), _) => Some(partition),
            (None, Some(key)) => {
                let bytes = plan.face_of(&self.store)?.key_bytes_of_text(&self.store, key)?;
                Some(partition_for(bytes.as_deref(), count))
            }
            (None, None) => None,
        };
        let task = |partition| TaskId { subtopology, partition };
        match partition {
            Some(partition) if !(0..count).contains(&partition) => {
                Err(QueryError::UnknownPartition { store: self.store.clone(), partition, count })
            }
            Some(partition) => Ok(Target::Tasks(vec![task(partition)])),
            None => Ok(Target::Any((0..count).map(task).collect())),
        }
    }

    /// Asks a task.
    pub(crate) fn ask_task(&self, plan: &Plan, task: &mut Task) -> Result<Rows, QueryError> {
        let position = task.position();
        position.check(task.id(), &self.bound)?;
        let face = plan.face_of(&self.store)?;
        let missing = || QueryError::UnknownStore { store: self.store.clone(), known: Vec::new() };
        let store = task.store(&self.store).ok_or_else(missing)?.as_any();
        Ok(self.cut(face.ask(&self.store, store, &self.question)?, position))
    }

    /// Asks a global table.
    pub(crate) fn ask_global(&self, plan: &Plan, globals: &Globals) -> Result<Rows, QueryError> {
        let face = plan.face_of(&self.store)?;
        let missing = || QueryError::UnknownStore { store: self.store.clone(), known: Vec::new() };
        let rows = globals
            .with_any(&self.store, |store| face.ask(&self.store, store, &self.question))
            .ok_or_else(missing)??;
        Ok(self.cut(rows, Position::default()))
    }

    fn cut(&self, mut rows: Vec<Value>, position: Position) -> Rows {
        if self.reversed {
            rows.reverse();
        }
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        Rows { rows, position, more }
    }

    /// Adds what a further task has found.
    pub(crate) fn gather(&self, found: &mut Rows, more: Rows) {
        found.rows.extend(more.rows);
        found.more |= more.more || found.rows.len() > self.limit;
        found.rows.truncate(self.limit);
        found.position.merge(&more.position);
    }

    /// The answer in JSON.
    pub(crate) fn reply(&self, found: Rows) -> JsonReply {
        let position = found.position.to_json();
        let Question::Key(key) = &self.question else {
            let json = json!({ "rows": found.rows, "more": found.more, "position": position });
            return JsonReply { status: 200, json };
        };
        match found.rows.into_iter().next() {
            Some(mut row) => {
                row["position"] = position;
                JsonReply { status: 200, json: row }
            }
            None => JsonReply {
                status: 404,
                json: json!({
                    "error": "not_found",
                    "message": format!("store `{}` has no key {key}", self.store),
                    "position": position,
                }),
            },
        }
    }
}

impl JsonReply {
    pub(crate) fn wrong(message: String) -> Self {
        Self { status: 400, json: json!({ "error": "bad_request", "message": message }) }
    }
}

impl From<QueryError> for JsonReply {
    fn from(error: QueryError) -> Self {
        let (status, name) = match &error {
            QueryError::UnknownStore { .. } => (404, "unknown_store"),
            QueryError::UnknownPartition { .. } => (404, "unknown_partition"),
            QueryError::OtherTypes { .. } => (400, "other_types"),
            QueryError::Key { .. } => (400, "bad_key"),
            QueryError::NotHere { .. } => (421, "not_here"),
            QueryError::Rebalancing { .. } => (503, "rebalancing"),
            QueryError::Behind { .. } => (503, "behind"),
            QueryError::Store(_) => (500, "store_failed"),
            QueryError::Ended => (503, "ended"),
        };
        let mut json = json!({ "error": name, "message": error.to_string() });
        match error {
            QueryError::UnknownStore { known, .. } => json["stores"] = known.into(),
            QueryError::NotHere { owner, task, .. } => {
                json["task"] = task.into();
                json["owner"] = owner.into();
            }
            _ => {}
        }
        Self { status, json }
    }
}

impl Position {
    pub(crate) fn to_json(&self) -> Value {
        let mut topics = serde_json::Map::new();
        for (topic, partition, offset) in self.iter() {
            topics.entry(topic).or_insert_with(|| json!({}))[partition.to_string()] = offset.into();
        }
        topics.into()
    }
}

fn bound(text: &str) -> Result<Position, String> {
    let mut position = Position::default();
    for part in text.split(',') {
        let mut words = part.split(':');
        let (Some(topic), Some(partition), Some(offset), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(
                "at_least is TOPIC:PARTITION:OFFSET, several of them with commas".to_owned()
            );
        };
        let partition = number("at_least", partition)?;
        position.reach(&topic.into(), partition, number("at_least", offset)?);
    }
    Ok(position)
}

fn number<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{name} is no number that fits: {text}"))
}

/// Text without its percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => {
                return Err(
                    "a percent sign stands for two hexadecimal digits, or for %25".to_owned()
                );
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "the path is not UTF-8".to_owned())
}

/// Rows of an answer, unless another number is asked for.
const LIMIT: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_question_is_told() {
        for (path, said) in [
            ("/stores/a", "ask for /stores/NAME/key/KEY"),
            ("/stores/a/key/b/c", "%2F"),
            ("/stores/a/key/%f", "two hexadecimal digits"),
            ("/stores/a/key/%ff", "UTF-8"),
            ("/stores/a/range?limit=-1", "limit is no number"),
            ("/stores/a/range?form=b", "no parameter form"),
            ("/stores/a/key/b?at_least=in:1", "TOPIC:PARTITION:OFFSET"),
        ] {
            let Some(Err(reply)) = Request::parse(path) else {
                panic!("{path} is understood");
            };
            let message = reply.json["message"].as_str().unwrap_or_default();
            assert!(reply.status == 400 && message.contains(said), "{path}: {message}");
        }
        assert!(Request::parse("/metrics").is_none());
    }
}
