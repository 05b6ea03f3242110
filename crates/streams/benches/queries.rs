//! How long queries take while records are processed: `cargo bench -p fleuve-streams --bench queries`.
//!
//! An application counts keys on a broker in this process. Prints how long queries by key took, and how fast records were
//! processed without queries and with them; nothing is asserted.

#![expect(clippy::print_stdout, reason = "the times are the result")]

use std::time::{Duration, Instant};

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::{Admin, Producer, ProducerConfig, Record};
use fleuve_streams::{Guarantee, Settings, Streams, Topology, in_store};

const RECORDS: u64 = 200_000;
const KEYS: u64 = 10_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
            run(guarantee).await;
        }
    });
}

async fn run(guarantee: Guarantee) {
    let broker = Embedded::start().await.expect("a broker");
    let topics = [NewTopic::new("in"), NewTopic::new("out")];
    Admin::new(broker.client()).create_topics(&topics, false).await.expect("topics");
    let app = Topology::new("counting");
    app.stream::<String, String>("in").group_by_key().count("counts").to_stream().to("out");
    let settings = Settings {
        guarantee,
        commit_interval: Some(Duration::from_millis(100)),
        ..Settings::default()
    };
    let app = Streams::start(&app, broker.client(), settings).await.expect("an application");

    let mut times = Vec::new();
    let alone = load(&broker, &app, RECORDS, None).await;
    let asked = load(&broker, &app, 2 * RECORDS, Some(&mut times)).await;
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{guarantee:?}: {} queries by key: {:.2} ms at the median, {:.2} ms at 99 %, {:.2} ms at most; \
         {alone:.0} records/s without queries, {asked:.0} with them",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    app.close().await.expect("a clean end");
    broker.shutdown().await;
}

/// Sends records, waits until all are counted, and returns how many that were per second.
async fn load(
    broker: &Embedded,
    app: &Streams,
    until: u64,
    mut times: Option<&mut Vec<Duration>>,
) -> f64 {
    let producer = Producer::new(broker.client(), ProducerConfig::default()).expect("a producer");
    for number in 0..RECORDS {
        let key = format!("k{}", number % KEYS);
        drop(producer.send(Record::new("in").key(&key).value("x")).await.expect("a place"));
    }
    let begun = Instant::now();
    producer.close().await.expect("all delivered");
    let mut number = 0;
    loop {
        let metrics = app.metrics();
        if metrics.threads.iter().map(|thread| thread.processed).sum::<u64>() >= until {
            return RECORDS as f64 / begun.elapsed().as_secs_f64();
        }
        match &mut times {
            Some(times) => {
                number += 7;
                let asked = Instant::now();
                let query = in_store("counts").key::<String, i64>(format!("k{}", number % KEYS));
                if app.query(query).await.is_ok() {
                    times.push(asked.elapsed());
                }
            }
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
