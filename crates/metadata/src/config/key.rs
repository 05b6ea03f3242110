//! What is known about one configuration key: its type, default, range, and whether we serve it.
//!
//! Names, types, defaults, ranges and update modes are Kafka 4.3's. Keys are declared as constants
//! in `keys/`, one line each, through the small builder at the end of this file.

use std::fmt;

/// The type a value of a key has, as `DescribeConfigs` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// `true` or `false`, in any case.
    Boolean,
    /// Free text, surrounding white space removed.
    Text,
    /// A 16-bit integer.
    Short,
    /// A 32-bit integer.
    Int,
    /// A 64-bit integer.
    Long,
    /// A double-precision number.
    Double,
    /// Texts separated by commas.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

impl ValueType {
    /// Returns the number by which `DescribeConfigs` responses name this type.
    pub const fn wire_id(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::Text => "string",
            Self::Short => "short",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::List => "list",
            Self::Class => "class",
            Self::Password => "password",
        })
    }
}

/// The values of a key's type that are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Every value of the type.
    Any,
    /// Whole numbers from this one on.
    AtLeast(i64),
    /// Whole numbers between these two, both included.
    Between(i64, i64),
    /// Fractions between these two, both included.
    Fraction(f64, f64),
    /// A gzip level: 1 to 9, or -1 for the codec's own default.
    GzipLevel,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// Text of at least one character.
    NotEmpty,
    /// A list without repetition; when words are given, only of these.
    Distinct {
        /// The allowed words; none means any.
        of: &'static [&'static str],
        /// Whether the list may be empty.
        may_be_empty: bool,
    },
    /// `partition:broker` pairs, or the single item `*`.
    ThrottledReplicas,
    /// `latest`, `earliest` or `by_duration:` with an ISO 8601 duration.
    OffsetReset,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::Between(least, most) => write!(f, "between {least} and {most}"),
            Self::Fraction(least, most) => write!(f, "between {least} and {most}"),
            Self::GzipLevel => f.write_str("between 1 and 9, or -1"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::OneOfAnyCase(words) => write!(f, "one of {} (in any case)", words.join(", ")),
            Self::NotEmpty => f.write_str("not empty"),
            Self::Distinct { of: [], may_be_empty: true } => f.write_str("no repeated items"),
            Self::Distinct { of: [], may_be_empty: false } => {
                f.write_str("at least one item, none repeated")
            }
            Self::Distinct { of, may_be_empty: true } => {
                write!(f, "any of {}, none repeated", of.join(", "))
            }
            Self::Distinct { of, may_be_empty: false } => {
                write!(f, "at least one of {}, none repeated", of.join(", "))
            }
            Self::ThrottledReplicas => f.write_str("`partition:broker` pairs, or `*`"),
            Self::OffsetReset => {
                f.write_str("latest, earliest, or by_duration: and an ISO 8601 duration")
            }
        }
    }
}

/// How a broker key may be changed while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only by a restart with another file.
    ReadOnly,
    /// For each broker on its own.
    PerBroker,
    /// For each broker or as a default of the whole cluster.
    ClusterWide,
}

impl fmt::Display for UpdateMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::PerBroker => "per-broker",
            Self::ClusterWide => "cluster-wide",
        })
    }
}

/// What Fleuve does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The key does what Kafka says.
    Served,
    /// The key is Kafka's, but nothing here reads it yet; leaving it out harms nobody.
    NotYet,
    /// The key is Kafka's, nothing here reads it yet, and starting regardless would break a promise
    /// the operator relies on (protection, remote data, policies).
    NotYetAndDangerous,
    /// The key has no counterpart here and never will; the text says why.
    NoEffect(&'static str),
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name, as written in files and on the wire.
    pub name: &'static str,
    /// The type of its values.
    pub value_type: ValueType,
    /// The value that holds when nobody sets one; `None` where Kafka has null.
    pub default: Option<&'static str>,
    /// The allowed values.
    pub rule: Rule,
    /// How it may be changed at run time; meaningful for broker keys only.
    pub update: UpdateMode,
    /// What Fleuve does with it.
    pub status: Status,
    /// Whether Kafka hides it from operators unless it is set.
    pub internal: bool,
    /// Why our default differs from Kafka's, where it does.
    pub departure: Option<&'static str>,
    /// Broker keys that supply the default of a topic or group key, in order of precedence, each
    /// with the factor that turns its unit into this key's.
    pub broker_synonyms: &'static [(&'static str, i64)],
    /// One sentence, for keys we serve and a few that we will; otherwise empty.
    pub doc: &'static str,
}

impl Key {
    /// Reports whether values of this key must never be shown.
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.value_type, ValueType::Password)
    }

    /// Reports whether the key is Fleuve's own rather than Kafka's.
    pub fn is_own(&self) -> bool {
        self.name.starts_with("fleuve.")
    }

    /// Returns the unit that the name promises, if it promises one.
    pub fn unit(&self) -> Option<&'static str> {
        let numeric = matches!(
            self.value_type,
            ValueType::Short | ValueType::Int | ValueType::Long | ValueType::Double
        );
        let words = ["ms", "millis", "secs", "seconds", "minutes", "hours", "bytes"];
        let unit = self.name.rsplit('.').find_map(|word| words.iter().find(|unit| **unit == word));
        match (numeric, unit.copied()) {
            (true, Some("ms" | "millis")) => Some("ms"),
            (true, Some("secs" | "seconds")) => Some("s"),
            (true, Some("minutes")) => Some("min"),
            (true, Some("hours")) => Some("h"),
            (true, unit) => unit,
            (false, _) => None,
        }
    }
}

/// Begins the declaration of a key; the methods of the same names finish it.
pub(super) const fn key(
    name: &'static str,
    value_type: ValueType,
    default: Option<&'static str>,
    rule: Rule,
) -> Key {
    Key {
        name,
        value_type,
        default,
        rule,
        update: UpdateMode::ReadOnly,
        status: Status::NotYet,
        internal: false,
        departure: None,
        broker_synonyms: &[],
        doc: "",
    }
}

impl Key {
    pub(super) const fn per_broker(mut self) -> Self {
        self.update = UpdateMode::PerBroker;
        self
    }

    pub(super) const fn cluster_wide(mut self) -> Self {
        self.update = UpdateMode::ClusterWide;
        self
    }

    pub(super) const fn served(mut self, doc: &'static str) -> Self {
        self.status = Status::Served;
        self.doc = doc;
        self
    }

    pub(super) const fn described(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    pub(super) const fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    pub(super) const fn dangerous(mut self) -> Self {
        self.status = Status::NotYetAndDangerous;
        self
    }

    pub(super) const fn no_effect(mut self, reason: &'static str) -> Self {
        self.status = Status::NoEffect(reason);
        self
    }

    pub(super) const fn departs(mut self, reason: &'static str) -> Self {
        self.departure = Some(reason);
        self
    }

    pub(super) const fn broker_keys(mut self, synonyms: &'static [(&'static str, i64)]) -> Self {
        self.broker_synonyms = synonyms;
        self
    }
}
