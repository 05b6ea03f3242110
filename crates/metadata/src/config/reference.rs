//! The reference page of all keys, written from the tables.

use std::fmt::Write;

use super::key::{Key, Status};
use super::keys::{
    BROKER_KEYS, CLIENT_METRICS_KEYS, GROUP_KEYS, REMOVED_BROKER_KEYS, REMOVED_TOPIC_KEYS,
    TOPIC_KEYS,
};

/// Writes `docs/configuration.md`.
pub fn reference_markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let served = |key: &&Key| key.status == Status::Served;
    section(
        &mut page,
        "Broker keys that are served",
        "",
        broker_table(BROKER_KEYS.iter().filter(served)),
    );
    section(
        &mut page,
        "Topic keys",
        "Set when a topic is created, or later with `fleuve config`. Where a topic sets nothing, \
         the broker keys named last supply the value, the first of them that is set.",
        inherited_table(TOPIC_KEYS),
    );
    section(
        &mut page,
        "Group keys",
        "Set on one group, by `fleuve config alter --group NAME`, and in force from its next heartbeat \
         on. Where a group sets nothing, the broker key named last holds, within whose bounds a \
         group's own value must stay.",
        inherited_table(GROUP_KEYS),
    );
    section(
        &mut page,
        "Client metrics keys",
        "Set on a subscription to metrics of clients (KIP-714), by `kafka-client-metrics.sh` or \
         `fleuve config alter --client-metrics NAME`.",
        inherited_table(CLIENT_METRICS_KEYS),
    );
    section(
        &mut page,
        "Broker keys that are known and not served yet",
        "A value other than the default is answered with a warning: at start, and in the log when \
         it is set while the broker runs. It is an error for the keys marked *refused*, because an \
         operator who sets them relies on what they promise.",
        unserved_table(),
    );
    section(
        &mut page,
        "Broker keys without effect",
        "They steer parts that Fleuve does not have. Another value than the default is answered \
         with a warning: at start, and in the log when it is set while the broker runs.",
        moot_table(),
    );
    section(
        &mut page,
        "Keys of earlier releases",
        "They are errors, each with what to do instead. A name that ends with a dot stands for all \
         names that begin so.",
        removed_table(),
    );
    page
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `cargo xtask reference` from crates/metadata/src/config/keys; do not edit. -->

Fleuve reads Kafka's `server.properties`. Names, types, ranges and defaults are those of Kafka 4.3,
except where a default says why it differs. Values come, from the strongest, from dynamic configs of
the broker, dynamic defaults of the cluster, `--set KEY=VALUE` and other flags, the file, and the
default. All mistakes of a file are reported at once, with their lines; an unknown key is an error
that names the nearest known one.

Keys can be changed while the broker runs when *change* says `per-broker` or `cluster-wide`.
";

fn section(page: &mut String, title: &str, introduction: &str, table: String) {
    write!(page, "\n## {title}\n\n").expect(INFALLIBLE);
    if !introduction.is_empty() {
        write!(page, "{introduction}\n\n").expect(INFALLIBLE);
    }
    page.push_str(&table);
}

const INFALLIBLE: &str = "writing to a string cannot fail";

fn broker_table<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let mut table =
        String::from("| Key | Type | Default | Allowed | Change | Meaning |\n|-|-|-|-|-|-|\n");
    for key in keys {
        let departure = key.departure.map(|reason| format!(" {reason}")).unwrap_or_default();
        writeln!(
            table,
            "| `{}` | {} | {} | {} | {} | {}{departure} |",
            key.name,
            kind(key),
            default(key),
            key.rule,
            key.update,
            key.doc,
        )
        .expect(INFALLIBLE);
    }
    table
}

/// Keys of resources that get from the broker what they do not set themselves.
fn inherited_table(keys: &[Key]) -> String {
    let mut table =
        String::from("| Key | Type | Default | Allowed | Meaning | Broker keys |\n|-|-|-|-|-|-|\n");
    for key in keys.iter().filter(|key| !key.internal) {
        let synonyms: Vec<String> =
            key.broker_synonyms.iter().map(|(name, _)| format!("`{name}`")).collect();
        let status = match key.status {
            Status::Served => String::new(),
            Status::NoEffect(reason) => format!(" *Without effect: {reason}.*"),
            Status::NotYet | Status::NotYetAndDangerous => " *Not served yet.*".to_owned(),
        };
        writeln!(
            table,
            "| `{}` | {} | {} | {} | {}{status} | {} |",
            key.name,
            kind(key),
            default(key),
            key.rule,
            key.doc,
            synonyms.join(", "),
        )
        .expect(INFALLIBLE);
    }
    table
}

fn unserved_table() -> String {
    let mut table = String::from("| Key | Type | Default | Change | |\n|-|-|-|-|-|\n");
    for key in BROKER_KEYS.iter().filter(|key| !key.internal) {
        let refused = match key.status {
            Status::NotYet => "",
            Status::NotYetAndDangerous => "*refused*",
            Status::Served | Status::NoEffect(_) => continue,
        };
        let (kind, default) = (kind(key), default(key));
        writeln!(table, "| `{}` | {kind} | {default} | {} | {refused} |", key.name, key.update)
            .expect(INFALLIBLE);
    }
    table
}

fn moot_table() -> String {
    let mut table = String::from("| Key | Default | Why |\n|-|-|-|\n");
    for key in BROKER_KEYS.iter().filter(|key| !key.internal) {
        if let Status::NoEffect(reason) = key.status {
            writeln!(table, "| `{}` | {} | {reason} |", key.name, default(key)).expect(INFALLIBLE);
        }
    }
    table
}

fn removed_table() -> String {
    let mut table = String::from("| Key | Instead |\n|-|-|\n");
    for removed in REMOVED_BROKER_KEYS.iter().chain(REMOVED_TOPIC_KEYS) {
        writeln!(table, "| `{}` | {} |", removed.name, removed.remedy).expect(INFALLIBLE);
    }
    table
}

fn kind(key: &Key) -> String {
    match key.unit() {
        Some(unit) => format!("{}, {unit}", key.value_type),
        None => key.value_type.to_string(),
    }
}

fn default(key: &Key) -> String {
    match key.default {
        None => "null".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpdateMode;

    #[test]
    fn every_key_an_operator_may_meet_is_on_the_page() {
        let page = reference_markdown();
        for key in BROKER_KEYS.iter().chain(TOPIC_KEYS).filter(|key| !key.internal) {
            assert!(page.contains(&format!("| `{}` |", key.name)), "{}", key.name);
        }
    }

    #[test]
    fn the_page_in_docs_is_the_one_the_tables_give() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, reference_markdown()).expect("writable");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == reference_markdown(), "run UPDATE_GOLDEN=1 cargo test -p fleuve-metadata");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_table_has_columns() {
        let mut columns = 0;
        for line in reference_markdown().lines() {
            if line.starts_with("|-") {
                columns = line.matches('|').count();
            } else if line.starts_with("| `") {
                assert_eq!(line.matches('|').count(), columns, "{line}");
            }
        }
        assert_ne!(columns, 0);
    }

    #[test]
    fn read_only_is_the_rule_and_the_page_says_what_is_not() {
        let dynamic = BROKER_KEYS.iter().filter(|key| key.update != UpdateMode::ReadOnly).count();
        assert_eq!(dynamic, 102, "as many as Kafka 4.3.1 has");
    }
}
