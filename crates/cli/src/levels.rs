//! The levels of the process's loggers, which a broker shows and changes while it runs.
//!
//! What is written is decided by directives as `RUST_LOG` has them, `TARGET=LEVEL` separated by
//! commas. Those of the start stay; what is set later stands behind them and wins.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use fleuve_broker::{LevelChange, LogLevel, LogLevels, ROOT_LOGGER};
use tracing_subscriber::EnvFilter;

/// Loggers worth knowing by name: the rooms of a broker, and those that Kafka has, too.
const LOGGERS: [&str; 9] = [
    "fleuve_broker",
    "fleuve_coordinator",
    "fleuve_http",
    "fleuve_metadata",
    "fleuve_protocol",
    "fleuve_security",
    "fleuve_storage",
    "kafka.authorizer.logger",
    "kafka.request.logger",
];

/// No operator sets more.
const CHANGES_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 200;

/// Puts a filter in force.
type Install = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The levels in force.
pub(crate) struct Levels {
    at_start: String,
    set: Mutex<BTreeMap<String, LogLevel>>,
    install: Install,
}

impl Levels {
    /// Begins with the directives of the start, which are in force already.
    pub(crate) fn new(at_start: &str, install: Install) -> Self {
        Self { at_start: at_start.to_owned(), set: Mutex::default(), install }
    }

    fn set(&self) -> BTreeMap<String, LogLevel> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Levels").field("at_start", &self.at_start).finish_non_exhaustive()
    }
}

impl LogLevels for Levels {
    fn all(&self) -> Vec<(String, LogLevel)> {
        let set = self.set();
        let directives = directives(&self.at_start, &set);
        let named = directives.iter().map(|(logger, _)| logger.as_str());
        let names: BTreeSet<&str> = LOGGERS.into_iter().chain([ROOT_LOGGER]).chain(named).collect();
        let row = |name: &str| (name.to_owned(), level_of(name, &directives));
        names.into_iter().map(row).collect()
    }

    fn knows(&self, logger: &str) -> bool {
        let set = self.set();
        let directives = directives(&self.at_start, &set);
        let mut known = LOGGERS
            .into_iter()
            .chain([ROOT_LOGGER])
            .chain(directives.iter().map(|(name, _)| name.as_str()));
        // A part of a known one: a module within a room.
        known
            .any(|name| logger == name || logger.strip_prefix(name).is_some_and(is_path_of_modules))
    }

    fn change(&self, changes: &[LevelChange]) -> Result<(), String> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = set.clone();
        for (logger, level) in changes {
            match level {
                Some(level) => next.insert(logger.clone(), *level),
                None => next.remove(logger),
            };
        }
        if next.len() > CHANGES_MAX {
            return Err(format!("at most {CHANGES_MAX} loggers can have levels of their own"));
        }
        let mut text = self.at_start.clone();
        for (logger, level) in &next {
            let level = level.to_string().to_lowercase();
            let separator = if text.is_empty() { "" } else { "," };
            text.push_str(&match logger.as_str() {
                ROOT_LOGGER => format!("{separator}{level}"),
                logger => format!("{separator}{logger}={level}"),
            });
        }
        let filter = EnvFilter::try_new(&text).map_err(|error| error.to_string())?;
        (self.install)(filter)?;
        *set = next;
        Ok(())
    }
}

fn is_path_of_modules(rest: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    rest.len() <= NAME_BYTES_MAX
        && rest.strip_prefix("::").is_some_and(|path| path.split("::").all(is_name))
}

/// Loggers with levels, later ones winning over earlier ones. What a directive says of spans and
/// fields is left out: it has no place among Kafka's levels.
fn directives(at_start: &str, set: &BTreeMap<String, LogLevel>) -> Vec<(String, LogLevel)> {
    let plain = at_start
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty() && !text.contains(['[', ']', '{', '}']));
    let read = plain.filter_map(|text| match (text.split_once('='), level(text)) {
        (Some((logger, text)), _) => Some((logger.trim().to_owned(), level(text.trim())?)),
        (None, Some(level)) => Some((ROOT_LOGGER.to_owned(), level)),
        (None, None) => Some((text.to_owned(), LogLevel::Trace)),
    });
    let set = set.iter().map(|(logger, level)| (logger.clone(), *level));
    read.chain(set).collect()
}

fn level(text: &str) -> Option<LogLevel> {
    match text.to_ascii_uppercase().as_str() {
        "OFF" => Some(LogLevel::Off),
        name => LogLevel::from_kafka_name(name),
    }
}

/// The level in force for a logger: that of the longest beginning of its name that has one.
fn level_of(logger: &str, directives: &[(String, LogLevel)]) -> LogLevel {
    let of = |name: &str| {
        let found = directives.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, level)| *level)
    };
    let beginnings = directives.iter().filter(|(name, _)| {
        name != ROOT_LOGGER && (logger != ROOT_LOGGER) && logger.starts_with(name.as_str())
    });
    let longest = beginnings.map(|(name, _)| name.as_str()).max_by_key(|name| name.len());
    // Where nothing at all is said, errors are written; where something is, nothing else.
    let otherwise = if directives.is_empty() { LogLevel::Error } else { LogLevel::Off };
    longest.and_then(of).or_else(|| of(ROOT_LOGGER)).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn levels(at_start: &str) -> (Levels, Arc<Mutex<Vec<String>>>) {
        let installed = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&installed);
        let install = Box::new(move |filter: EnvFilter| {
            log.lock().expect("not poisoned").push(filter.to_string());
            Ok(())
        });
        (Levels::new(at_start, install), installed)
    }

    fn of(levels: &Levels, logger: &str) -> LogLevel {
        let all = levels.all();
        all.into_iter().find(|(name, _)| name == logger).expect("it is listed").1
    }

    #[test]
    fn loggers_follow_the_longest_name_that_has_a_level() {
        let (levels_set, _) =
            levels("info,kafka.request.logger=debug,fleuve_storage=off,a[s]=trace");
        assert_eq!(of(&levels_set, "root"), LogLevel::Info);
        assert_eq!(of(&levels_set, "fleuve_broker"), LogLevel::Info);
        assert_eq!(of(&levels_set, "fleuve_storage"), LogLevel::Off);
        assert_eq!(of(&levels_set, "kafka.request.logger"), LogLevel::Debug);
        let told = |text| of(&levels(text).0, "fleuve_http");
        assert_eq!(
            [told(""), told("kafka.request.logger=debug")],
            [LogLevel::Error, LogLevel::Off]
        );
    }

    #[test]
    fn what_is_set_wins_until_it_is_taken_back() {
        let (levels, installed) = levels("info,fleuve_broker=warn");
        let set = |logger: &str, level| levels.change(&[(logger.to_owned(), level)]);
        set("fleuve_broker", Some(LogLevel::Debug)).expect("a filter");
        set("root", Some(LogLevel::Error)).expect("a filter");
        assert_eq!(of(&levels, "fleuve_broker"), LogLevel::Debug);
        assert_eq!(of(&levels, "fleuve_storage"), LogLevel::Error);
        set("fleuve_broker", None).expect("a filter");
        assert_eq!(of(&levels, "fleuve_broker"), LogLevel::Warn);
        let installed = installed.lock().expect("not poisoned");
        assert!(installed[0].contains("fleuve_broker=debug"), "{installed:?}");
        assert!(!installed[0].contains("fleuve_broker=warn"), "{installed:?}");
        assert!(installed[2].contains("fleuve_broker=warn"), "{installed:?}");
    }

    #[test]
    fn only_loggers_that_can_be_are_known() {
        let (levels, _) = levels("info,hyper=warn");
        for name in ["root", "fleuve_broker", "fleuve_broker::connection", "hyper", "hyper::proto"]
        {
            assert!(levels.knows(name), "{name}");
        }
        for name in
            ["", "kafka", "fleuve_brokers", "fleuve_broker::", "fleuve_broker::a=b,c", "::a"]
        {
            assert!(!levels.knows(name), "{name}");
        }
    }
}
