//! What the spans of a client at work tell, and what of a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use super::*;

type Fields = BTreeMap<&'static str, String>;

/// Writes down every span of this crate.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<(&'static str, Fields)>>>);

struct Pen<'a>(&'a mut Fields);

impl Visit for Pen<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Notebook {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("fleuve_client")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        span.record(&mut Pen(&mut fields));
        let mut spans = self.0.lock().expect("no panic");
        spans.push((span.metadata().name(), fields));
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().expect("no panic");
        values.record(&mut Pen(&mut spans[span.into_u64() as usize - 1].1));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Notebook {
    fn of(&self, name: &str) -> Vec<Fields> {
        let spans = self.0.lock().expect("no panic");
        spans.iter().filter(|(found, _)| *found == name).map(|(_, fields)| fields.clone()).collect()
    }
}

/// As long as there is but one subscriber, tracing asks the thread that comes to a span first whether anybody wants it, and
/// remembers the answer for all threads; the other tests' threads would answer no. With two it asks the subscribers.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Notebook::default()));

async fn observed(protocol: GroupProtocol, chooser: Chooser) -> Notebook {
    LazyLock::force(&SECOND);
    let notebook = Notebook::default();
    let _guard = tracing::subscriber::set_default(notebook.clone());
    run(protocol, chooser).await.check("observed");
    notebook
}

#[tokio::test(start_paused = true)]
async fn spans_follow_what_a_client_does() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let notebook = observed(protocol, Box::new(|_| Fault::None)).await;
        assert_eq!(notebook.of("connect")[0]["host"], "\"broker\"");
        let batches = notebook.of("produce_batch");
        let records: i32 =
            batches.iter().map(|b| b["records"].parse::<i32>().expect("a number")).sum();
        assert_eq!(records, RECORDS);
        assert!(
            batches.iter().all(|batch| batch["attempts"] == "1" && !batch.contains_key("error"))
        );
        let polls = notebook.of("poll");
        let given: i32 =
            polls.iter().filter_map(|poll| poll.get("records")?.parse::<i32>().ok()).sum();
        assert_eq!(given, RECORDS);
        let rebalances = notebook.of("rebalance");
        assert!(
            rebalances.iter().any(|rebalance| rebalance.get("assigned").is_some_and(|n| n == "2"))
        );
        assert!(notebook.of("commit").iter().any(|commit| commit["partitions"] == "2"));
        let requests = notebook.of("request");
        for key in kinds().filter(|(of, _)| *of == protocol).map(|(_, key)| key) {
            let name = format!("{:?}", key.name());
            assert!(requests.iter().any(|request| request["api"] == name), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_stands_in_the_span_of_the_request_and_of_the_batch() {
    let lost = observed(GroupProtocol::Classic, first(ApiKey::Produce, 1, Fault::LostBefore)).await;
    let requests = lost.of("request");
    let failed = requests.iter().filter(|request| request.contains_key("error"));
    assert!(failed.clone().any(|request| request["api"] == "\"Produce\""));
    let batches = lost.of("produce_batch");
    assert!(batches.iter().any(|batch| batch["attempts"] == "2" && !batch.contains_key("error")));
    let code = ErrorCode::InvalidRecord;
    let refused =
        observed(GroupProtocol::Classic, first(ApiKey::Produce, 1, Fault::Refused(code))).await;
    let batches = refused.of("produce_batch");
    assert!(batches.iter().any(|batch| {
        batch.get("error").is_some_and(|error| {
            error.contains("INVALID_RECORD") || error.contains("InvalidRecord")
        })
    }));
}
