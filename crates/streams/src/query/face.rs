//! Stores as they look without types: keys in text, values in JSON.

use std::any::Any;
use std::ops::Bound;

use bytes::Bytes;
use serde_json::{Value, json};

use super::QueryError;
use super::request::VERSIONED;
use crate::record::{Data, Headers, Window};
use crate::serde::SerdeOf;
use crate::state::{KvStore, SessionStore, Version, WindowStore};

/// What is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// The value of a key.
    Key(String),
    /// The keys between two, either of which may be missing.
    Range { from: Option<String>, to: Option<String> },
    /// What a key was within a span of time, in a store that keeps versions.
    Versions { key: String, from_ms: i64, to_ms: i64 },
    /// The windows or sessions of a key, or of all keys, within a span of time.
    Windows { key: Option<String>, from_ms: i64, to_ms: i64 },
}

/// Reads keys and shows values of one store.
pub(crate) trait Face: Send + Sync {
    /// `keyValue`, `window` or `session`.
    fn kind(&self) -> &'static str;

    /// The bytes of a key of the store's type, which decide its partition.
    fn key_bytes(&self, store: &str, key: &dyn Any) -> Result<Option<Bytes>, QueryError>;

    /// The bytes of a key in text.
    fn key_bytes_of_text(&self, store: &str, key: &str) -> Result<Option<Bytes>, QueryError>;

    /// Answers a question: one row for everything that was found.
    fn ask(
        &self,
        name: &str,
        store: &mut dyn Any,
        question: &Question,
    ) -> Result<Vec<Value>, QueryError>;
}

/// What kind of store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    KeyValue,
    Window,
    Session,
}

/// The face of a store with keys `K` and values `V`.
pub(crate) struct TypedFace<K, V> {
    pub(crate) shape: Shape,
    pub(crate) key: SerdeOf<K>,
    pub(crate) value: SerdeOf<V>,
}

impl<K: Data, V: Data> TypedFace<K, V> {
    fn parse(&self, store: &str, key: &str) -> Result<K, QueryError> {
        self.key
            .parse(store, key)
            .map_err(|error| QueryError::Key { store: store.to_owned(), cause: error.to_string() })
    }

    fn bytes(&self, store: &str, key: &K) -> Result<Option<Bytes>, QueryError> {
        self.key
            .to_bytes(store, &mut Headers::default(), key)
            .map_err(|error| QueryError::Key { store: store.to_owned(), cause: error.to_string() })
    }

    fn other(&self, name: &str, question: &Question) -> QueryError {
        let wanted = match question {
            Question::Key(_) | Question::Range { .. } => "key-value store",
            Question::Versions { .. } => VERSIONED,
            Question::Windows { .. } => "window or session store",
        };
        QueryError::OtherTypes {
            store: name.to_owned(),
            wanted: format!("{wanted}, it is a {} store", self.kind()),
        }
    }

    fn in_window(&self, key: &K, window: Window, value: &V) -> Value {
        let window = json!({ "start": window.start, "end": window.end });
        json!({ "key": self.key.show(key), "window": window, "value": self.value.show(value) })
    }

    fn bound(&self, name: &str, key: &Option<String>) -> Result<Bound<K>, QueryError> {
        match key {
            Some(key) => Ok(Bound::Included(self.parse(name, key)?)),
            None => Ok(Bound::Unbounded),
        }
    }
}

impl<K: Data, V: Data> Face for TypedFace<K, V> {
    fn kind(&self) -> &'static str {
        match self.shape {
            Shape::KeyValue => "keyValue",
            Shape::Window => "window",
            Shape::Session => "session",
        }
    }

    fn key_bytes(&self, store: &str, key: &dyn Any) -> Result<Option<Bytes>, QueryError> {
        match key.downcast_ref::<K>() {
            Some(key) => self.bytes(store, key),
            None => Err(QueryError::OtherTypes {
                store: store.to_owned(),
                wanted: "store with keys of the type it is asked for".to_owned(),
            }),
        }
    }

    fn key_bytes_of_text(&self, store: &str, key: &str) -> Result<Option<Bytes>, QueryError> {
        self.bytes(store, &self.parse(store, key)?)
    }

    fn ask(
        &self,
        name: &str,
        store: &mut dyn Any,
        question: &Question,
    ) -> Result<Vec<Value>, QueryError> {
        match question {
            Question::Key(key) => {
                let store = opened::<KvStore<K, V>>(store, || self.other(name, question))?;
                let key = self.parse(name, key)?;
                let found = store.get(&key)?;
                Ok(found
                    .map(|found| {
                        json!({
                            "key": self.key.show(&key),
                            "value": self.value.show(&found.value),
                            "timestamp": found.timestamp,
                        })
                    })
                    .into_iter()
                    .collect())
            }
            Question::Range { from, to } => {
                let store = opened::<KvStore<K, V>>(store, || self.other(name, question))?;
                let (from, to) = (self.bound(name, from)?, self.bound(name, to)?);
                let found = store.between(from.as_ref(), to.as_ref())?;
                let row = |(key, found): (K, crate::state::Stamped<V>)| {
                    json!({
                        "key": self.key.show(&key),
                        "value": self.value.show(&found.value),
                        "timestamp": found.timestamp,
                    })
                };
                Ok(found.into_iter().map(row).collect())
            }
            Question::Versions { key, from_ms, to_ms } => {
                let store = opened::<KvStore<K, V>>(store, || self.other(name, question))?;
                if !store.keeps_versions() {
                    return Err(self.other(name, question));
                }
                let key = self.parse(name, key)?;
                let row = |version: Version<V>| {
                    json!({
                        "key": self.key.show(&key),
                        "value": self.value.show(&version.value),
                        "validFrom": version.valid_from,
                        "validTo": version.valid_to,
                    })
                };
                Ok(store.versions(&key, *from_ms, *to_ms)?.into_iter().map(row).collect())
            }
            Question::Windows { key, from_ms, to_ms } => {
                let key = key.as_deref().map(|key| self.parse(name, key)).transpose()?;
                self.ask_windows(name, store, question, (key, *from_ms, *to_ms))
            }
        }
    }
}

impl<K: Data, V: Data> TypedFace<K, V> {
    fn ask_windows(
        &self,
        name: &str,
        store: &mut dyn Any,
        question: &Question,
        (key, from_ms, to_ms): (Option<K>, i64, i64),
    ) -> Result<Vec<Value>, QueryError> {
        if self.shape == Shape::Session {
            let store = opened::<SessionStore<K, V>>(store, || self.other(name, question))?;
            let Some(key) = key else {
                let found = store.find_ended(from_ms, i64::MAX)?.into_iter();
                let within = found.filter(|(session, _)| session.window.start <= to_ms);
                return Ok(within
                    .map(|(session, value)| self.in_window(&session.key, session.window, &value))
                    .collect());
            };
            let found = store.find(&key, from_ms, to_ms)?.into_iter();
            return Ok(found.map(|(window, value)| self.in_window(&key, window, &value)).collect());
        }
        let store = opened::<WindowStore<K, V>>(store, || self.other(name, question))?;
        let Some(key) = key else {
            let found = store.fetch_all(from_ms, to_ms)?.into_iter();
            return Ok(found
                .map(|(found, stamped)| self.in_window(&found.key, found.window, &stamped.value))
                .collect());
        };
        let found = store.fetch(&key, from_ms, to_ms)?.into_iter();
        Ok(found
            .map(|(start, stamped)| self.in_window(&key, store.window(start), &stamped.value))
            .collect())
    }
}

fn opened<S: 'static>(
    store: &mut dyn Any,
    other: impl Fn() -> QueryError,
) -> Result<&mut S, QueryError> {
    store.downcast_mut().ok_or_else(other)
}
