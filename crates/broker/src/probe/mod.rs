//! What a broker tells the HTTP door: metrics, readiness, and the pages of Burrow.
//!
//! Families that Kafka has because it replicates are there with the values of a node that holds
//! the only copy, so that dashboards and alerts work unchanged.

mod burrow;
mod groups;
mod partitions;
mod rebalances;
mod server;
mod transactions;
mod visitor;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_http::{Ask, Asked, Exposition, Kind, Probe};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeMetrics};

use crate::dispatch::APIS;
use crate::metrics::{write_requests, write_topics};
use crate::node::Node;
use visitor::Porter;

/// How often the ends of logs are noted for the judgement on consumers' lag.
pub(crate) const LAG_LOOK_SECONDS: u64 = 10;
/// Rates are measured over at least this long, however often somebody asks.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Looks at a broker when somebody asks.
#[derive(Debug)]
pub(crate) struct NodeProbe {
    node: Arc<Node>,
    runtime: RuntimeMetrics,
    busy: Mutex<Rate>,
    metadata: Mutex<Rate>,
    porter: Porter,
}

/// How fast a number grows, as of the last time it was looked at.
#[derive(Debug)]
struct Rate {
    since: Instant,
    then: f64,
    per_second: f64,
}

impl Rate {
    fn new(now: f64) -> Self {
        Self { since: Instant::now(), then: now, per_second: 0.0 }
    }

    /// Takes in the present number and returns by how much it grows per second.
    fn update(&mut self, now: f64) -> f64 {
        let passed = self.since.elapsed();
        // The first answer comes at once, so that a page asked for early is not wrong.
        if passed >= RATE_WINDOW || self.per_second == 0.0 {
            let seconds = passed.as_secs_f64().max(1e-3);
            self.per_second = (now - self.then) / seconds;
            if passed >= RATE_WINDOW {
                (self.since, self.then) = (Instant::now(), now);
            }
        }
        self.per_second
    }
}

impl NodeProbe {
    /// Looks at `node`; to be called on the runtime that serves its requests.
    pub(crate) async fn new(node: Arc<Node>) -> Result<Self, String> {
        let runtime = Handle::current().metrics();
        let busy = Mutex::new(Rate::new(busy_seconds(&runtime)));
        let metadata = Mutex::new(Rate::new(node.metadata.end_offset() as f64));
        let porter = Porter::new(&node).await?;
        Ok(Self { node, runtime, busy, metadata, porter })
    }

    /// The share of time in which our threads were idle.
    fn idle(&self) -> f64 {
        let busy = self.busy.lock().update(busy_seconds(&self.runtime));
        (1.0 - busy / self.runtime.num_workers().max(1) as f64).clamp(0.0, 1.0)
    }

    /// Metadata records written per second.
    fn metadata_rate(&self) -> f64 {
        self.metadata.lock().update(self.node.metadata.end_offset() as f64)
    }
}

/// Processor time that the runtime's threads have spent on tasks.
fn busy_seconds(runtime: &RuntimeMetrics) -> f64 {
    (0..runtime.num_workers()).map(|it| runtime.worker_total_busy_duration(it).as_secs_f64()).sum()
}

fn write_budget(page: &mut Exposition, node: &Node) {
    let budget = &node.request_budget;
    page.family("fleuve_request_bytes", Kind::Gauge, "Bytes of large requests in work.")
        .sample(&[], budget.used() as f64);
    page.family(
        "fleuve_request_bytes_waits_total",
        Kind::Counter,
        "Times that a connection waited for room for a large request.",
    )
    .sample(&[], budget.waits.get() as f64);
    page.family(
        "fleuve_requests_of_too_many_partitions_total",
        Kind::Counter,
        "Requests refused because they would create too many partitions.",
    )
    .sample(&[], node.oversized_requests.get() as f64);
    page.family(
        "fleuve_decompressions_refused_total",
        Kind::Counter,
        "Batches refused because they decompress to too much.",
    )
    .sample(&[], node.bombs.get() as f64);
    page.family(
        "fleuve_log_read_failures_total",
        Kind::Counter,
        "Answers that ended early because a log could not be read.",
    )
    .sample(&[], node.read_failures.get() as f64);
}

impl Probe for NodeProbe {
    fn write_metrics(&self, page: &mut Exposition) {
        let node = &self.node;
        let topics = node.topics.all();
        let counters: Vec<_> = topics
            .iter()
            .map(|topic| (Arc::from(topic.name.as_str()), Arc::clone(&topic.counters)))
            .collect();
        write_topics(page, &node.counters, &counters);
        write_requests(page, APIS, &node.request_counters);
        partitions::write(page, node, &topics);
        groups::write(page, node);
        transactions::write(page, node);
        server::write(page, self);
        node.compaction.write(page, &*node.clock);
        node.telemetry.write(page, node.clock.wall_ms());
        node.quotas.write(page);
        node.gate.write(page);
        node.endings.write(page);
        write_budget(page, node);
    }

    fn readiness(&self) -> Result<(), String> {
        if self.node.is_stopping() {
            return Err("the broker is stopping".to_owned());
        }
        let topics = self.node.topics.all();
        let failed = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find(|partition| partition.has_failed());
        match failed {
            Some(partition) => Err(format!("the log of {} has failed", partition.name())),
            None => Ok(()),
        }
    }

    fn refuses_metrics<'a>(&'a self, ask: &'a Ask) -> Asked<'a> {
        Box::pin(self.porter.refuses_metrics(&self.node, ask))
    }

    fn page<'a>(&'a self, ask: &'a Ask) -> Asked<'a> {
        Box::pin(async move {
            let visitor = match self.porter.receive(&self.node, ask).await {
                Ok(visitor) => visitor,
                // Whether there is such a page is nobody's business who is not known.
                Err(refusal) => return Some(refusal),
            };
            let (node, path) = (&self.node, ask.path.as_str());
            rebalances::page(node, &visitor, path)
                .or_else(|| burrow::page(node, &visitor, &ask.host, path))
        })
    }
}
