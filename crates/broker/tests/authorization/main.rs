//! Every API without each right that it needs: it is answered with Kafka's error, and no more is
//! told than that.
//!
//! The table is in `rows.rs`; `tests/foreign/authorization.py` runs the same table against Apache
//! Kafka and compares.

mod matrix;
mod rows;
mod tokens;
mod vulnerabilities;
mod wire;

use std::collections::BTreeSet;

use fleuve_broker::{Broker, Components};
use fleuve_metadata::config::{Override, Sources, load};

use matrix::{DENIALS, Outcome};
use rows::{FREE, Names, Seen, rows};

/// Starts a broker with an authorizer, whose users' passwords are their names.
async fn start(more: &[(&str, &str)]) -> (tempfile::TempDir, Broker) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let users = "x required user_admin=\"admin\" user_ada=\"ada\" user_bob=\"bob\";";
    let keys = [
        ("listeners", "SASL_PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", directory.path().to_str().expect("a UTF-8 path")),
        ("fleuve.metrics.listen", ""),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.sasl_plaintext.plain.sasl.jaas.config", users),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:admin"),
        ("offsets.topic.num.partitions", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("share.coordinator.state.topic.num.partitions", "1"),
        ("delegation.token.secret.key", "secret"),
        ("connection.failed.authentication.delay.ms", "1"),
    ];
    let overrides: Vec<Override> = keys
        .iter()
        .chain(more)
        .map(|(key, value)| Override {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            flag: "--set".to_owned(),
        })
        .collect();
    let settings = load(Sources { overrides: &overrides, ..Sources::default() });
    let settings = settings.expect("valid settings").0;
    let broker = Broker::start(settings, Components::default()).await.expect("the broker starts");
    (directory, broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_without_each_right() {
    let (_directory, broker) = start(&[]).await;
    let address = broker.listeners()[0].address.to_string();
    let mut outcomes = Vec::new();
    matrix::run(&address, |outcome| outcomes.push(outcome)).await;
    let wrong: Vec<String> = outcomes.iter().filter_map(judge).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(outcomes.len() > 150, "{} outcomes", outcomes.len());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_that_is_served_has_a_row() {
    let (_directory, broker) = start(&[]).await;
    let served = matrix::served(&broker.listeners()[0].address.to_string()).await;
    let covered: BTreeSet<i16> =
        rows().iter().map(|row| row.key.code()).chain(FREE.iter().map(|key| key.code())).collect();
    assert_eq!(served, covered);
    broker.shutdown().await;
}

/// What is refused must fit into the version that was asked in, or nothing is heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_version_of_every_api_is_answered_without_each_right() {
    let (_directory, broker) = start(&[]).await;
    let address = broker.listeners()[0].address.to_string();
    let silent = matrix::run_older(&address).await;
    // These end the connection on purpose: their answers have no room for an error.
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    broker.shutdown().await;
}

/// Says what is wrong with an outcome.
fn judge(outcome: &Outcome) -> Option<String> {
    let Outcome { title, missing, answer, of_nothing } = outcome;
    let denials = DENIALS.map(|code| code.code());
    let Some(answer) = answer else { return Some(format!("{title}: no answer")) };
    let Some((_, seen)) = missing else {
        let is_denied = answer.codes.iter().any(|code| denials.contains(code));
        return is_denied.then(|| format!("{title}: {answer:?}"));
    };
    match seen {
        Seen::Code(expected) if answer.codes != [expected.code()] => {
            Some(format!("{title}: {:?} instead of {expected:?}: {}", answer.codes, answer.text))
        }
        Seen::Nothing if !answer.codes.is_empty() || answer.text.contains(Names::MARK) => {
            Some(format!("{title}: it shows {answer:?}"))
        }
        Seen::Open => None,
        _ => {
            // What exists and what does not look the same.
            let told = of_nothing.as_ref().map(|answer| answer.text.replace("ghost", "secret"));
            (told.as_deref() != Some(answer.text.as_str()))
                .then(|| format!("{title}: existence shows:\n  {}\n  {told:?}", answer.text))
        }
    }
}
