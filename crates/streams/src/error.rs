//! What can go wrong: while a topology is built, and while it runs.

use std::sync::Arc;

use crate::serde::SerdeError;

/// A topology that cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Two nodes, stores or topics have the same name.
    #[error("the name `{0}` is used twice; give one of the two another name")]
    NameTaken(String),
    /// A name that no topic could have.
    #[error("`{0}` is not a valid name: 1 to 249 letters, digits, dots, underscores and hyphens")]
    InvalidName(String),
    /// A processor names a store that does not exist.
    #[error("there is no store `{0}`; add it to the topology first")]
    UnknownStore(String),
    /// Two parts of the program read the same topic as different types.
    #[error("topic `{0}` is read twice as different types; read it once and tee the stream")]
    ReadTwice(String),
    /// A pattern that is no regular expression.
    #[error("`{pattern}` is not a regular expression: {cause}")]
    InvalidPattern {
        /// What is wrong.
        pattern: String,
        /// Why.
        cause: String,
    },
    /// A pattern takes in a topic that another source reads.
    #[error("Pattern {0} will match a topic that has already been registered by another source.")]
    PatternMatchesTopic(String),
    /// A topic that a pattern takes in is read once more by its name.
    #[error("Topic {0} matches a Pattern already registered by another source.")]
    TopicMatchesPattern(String),
    /// Two patterns match the same topic.
    #[error(
        "Topic {topic} is already matched for another regex pattern {first} and hence cannot be matched to this regex pattern {second} any more."
    )]
    MatchedTwice {
        /// The topic.
        topic: String,
        /// The pattern that came first.
        first: String,
        /// The other one.
        second: String,
    },
    /// The same topics are to be read from different places.
    #[error("Can't configure different offset reset policies on the same input topic(s)")]
    OffsetResets,
    /// Stores and internal topics without names of the program's, which needs them.
    #[error("{}", unnamed(.changelogs, .stores, .repartitions))]
    Unnamed {
        /// Changelogs, without the application's id.
        changelogs: Vec<String>,
        /// Stores.
        stores: Vec<String>,
        /// Repartition topics, without the application's id.
        repartitions: Vec<String>,
    },
    /// A setting that contradicts another.
    #[error("{0}")]
    Invalid(String),
    /// A topology without any source.
    #[error("the topology reads nothing; begin with `stream`, `table` or `global_table`")]
    Empty,
}

/// What has no name, in Kafka Streams' words.
fn unnamed(changelogs: &[String], stores: &[String], repartitions: &[String]) -> String {
    let kinds = [
        ("changelog topic(s)", changelogs),
        ("state store(s)", stores),
        ("repartition topic(s)", repartitions),
    ];
    let lines = kinds
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("Following {kind} has not been named: {}", names.join(", ")));
    lines.collect::<Vec<_>>().join("\n")
}

/// A record that could not be processed, or a task that cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{node}: {cause} (topic {topic}, partition {partition}, offset {offset})")]
pub struct ProcessingError {
    /// The node that failed.
    pub node: String,
    /// The topic of the input record that was being processed.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What happened.
    pub cause: Cause,
}

/// Why processing failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Cause {
    /// Bytes that are not what the topology reads.
    #[error("cannot read the record: {0}")]
    Deserialize(Arc<SerdeError>),
    /// A value that its serde refuses.
    #[error("cannot write the record: {0}")]
    Serialize(Arc<SerdeError>),
    /// A fallible operator of the program returned an error.
    #[error("{0}")]
    User(Arc<dyn std::error::Error + Send + Sync>),
    /// A record without the key or timestamp that the operator needs.
    #[error("{0}")]
    Rejected(&'static str),
    /// The cluster refuses a record.
    #[error("cannot send the record: {0}")]
    Produce(Arc<fleuve_client::Error>),
    /// The state store failed.
    #[error("state store: {0}")]
    Store(Arc<crate::state::StoreError>),
}

impl Cause {
    /// The kind of failure in one word, for a dead-letter header.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Deserialize(_) => "Deserialize",
            Self::Serialize(_) => "Serialize",
            Self::User(_) => "User",
            Self::Rejected(_) => "Rejected",
            Self::Produce(_) => "Produce",
            Self::Store(_) => "Store",
        }
    }
}
