//! `fleuve doctor`: what keeps clients and brokers from working, and what to do about it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fleuve_client::Admin;
use serde_json::json;
use tokio::net::{TcpStream, lookup_host};

use crate::args::{Common, Format};
use crate::context::{Context, DEFAULT_SERVER};
use crate::failure::Failure;
use crate::output::{line, print_value};
use crate::quantities::{bytes, now_ms};

/// Look for what keeps clients and brokers from working, and say what to do.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fleuve doctor\n  \
    fleuve doctor --bootstrap-server kafka:9092 --data-dir /var/lib/fleuve")]
pub(crate) struct Doctor {
    /// Where a broker on this machine keeps, or would keep, its data.
    #[arg(long, value_name = "DIR", default_value = "fleuve-data")]
    data_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, found: found.into(), remedy: None }
    }

    fn new(
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, verdict, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// A filesystem with less than this will soon stop a broker.
const DISK_FREE_MIN: u64 = 1 << 30;
/// A broker of a few hundred partitions needs this many descriptors.
const FILES_MIN: u64 = 10_000;
/// Flushes slower than this dominate the latency of acks=all.
const FLUSH_SLOW: Duration = Duration::from_millis(20);
const FLUSHES: usize = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// No release of this program is older.
const RELEASED_MS: i64 = 1_790_000_000_000;

pub(crate) async fn run(doctor: Doctor, common: &Common) -> Result<(), Failure> {
    let context = Context::new(common)?;
    let mut findings = vec![Finding::good("version", version())];
    findings.push(clock());
    findings.push(open_files());
    let directory = existing_parent(&doctor.data_dir);
    findings.push(disk_free(&directory));
    findings.push(flush_speed(&directory));
    findings.extend(cluster(&context, common).await);
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    show(&findings, common.output)?;
    if bad > 0 { Err(Failure::Said) } else { Ok(()) }
}

fn show(findings: &[Finding], format: Format) -> Result<(), Failure> {
    let word = |verdict| match verdict {
        Verdict::Good => "ok",
        Verdict::Doubtful => "warning",
        Verdict::Bad => "problem",
    };
    if format != Format::Table {
        let value = findings
            .iter()
            .map(|finding| {
                json!({
                    "check": finding.check, "verdict": word(finding.verdict),
                    "found": finding.found, "remedy": finding.remedy,
                })
            })
            .collect();
        return print_value(format, &value);
    }
    for finding in findings {
        line(format!("{:<8} {:<11} {}", word(finding.verdict), finding.check, finding.found))?;
        if let Some(remedy) = &finding.remedy {
            line(format!("{:<20} → {remedy}", ""))?;
        }
    }
    Ok(())
}

fn version() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = format!("{} {}", std::env::consts::OS, kernel.trim());
    format!("fleuve {} on {}", env!("CARGO_PKG_VERSION"), system.trim())
}

fn clock() -> Finding {
    let now = now_ms();
    let shown = crate::quantities::format_time(now);
    if now < RELEASED_MS {
        let remedy = "set the clock: timestamps, retention and TLS depend on it";
        return Finding::new("clock", Verdict::Bad, format!("{shown} cannot be right"), remedy);
    }
    Finding::good("clock", shown)
}

fn open_files() -> Finding {
    use rustix::process::{Resource, getrlimit};
    // `serve` raises its soft limit to the hard one, so the hard one counts.
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < FILES_MIN => Finding::new(
            "open files",
            Verdict::Doubtful,
            format!("at most {limit}"),
            format!(
                "each partition takes several: raise it with `ulimit -Hn {FILES_MIN}` or in the service's unit"
            ),
        ),
        Some(limit) => Finding::good("open files", format!("at most {limit}")),
        None => Finding::good("open files", "no limit"),
    }
}

fn disk_free(directory: &Path) -> Finding {
    let shown = directory.display();
    match rustix::fs::statvfs(directory) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{} free at {shown}", bytes(free as f64));
            if free < DISK_FREE_MIN {
                let remedy = "make room, lower retention.bytes, or move the data with --data-dir";
                return Finding::new("disk", Verdict::Bad, found, remedy);
            }
            Finding::good("disk", found)
        }
        Err(error) => Finding::new(
            "disk",
            Verdict::Doubtful,
            format!("{shown}: {error}"),
            "pass a directory that exists with --data-dir",
        ),
    }
}

/// Measures what an acknowledged write costs: append and flush.
fn flush_speed(directory: &Path) -> Finding {
    let path = directory.join(format!(".fleuve-doctor-{}", std::process::id()));
    let measured = measure_flushes(&path);
    // Whatever became of the measurement, the file goes.
    let _ = std::fs::remove_file(&path);
    match measured {
        Ok(median) if median > FLUSH_SLOW => Finding::new(
            "flush",
            Verdict::Doubtful,
            format!("{:.1} ms for a flush", median.as_secs_f64() * 1e3),
            "acks=all waits for flushes: use a faster disk, or set fleuve.flush.before.ack=false \
             to trust the page cache as Kafka does",
        ),
        Ok(median) => {
            Finding::good("flush", format!("{:.2} ms for a flush", median.as_secs_f64() * 1e3))
        }
        Err(error) => Finding::new(
            "flush",
            Verdict::Bad,
            format!("cannot write to {}: {error}", directory.display()),
            "make the directory writable, or pass another one with --data-dir",
        ),
    }
}

fn measure_flushes(path: &Path) -> std::io::Result<Duration> {
    let mut file = std::fs::File::create_new(path)?;
    let mut times = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[FLUSHES / 2])
}

async fn cluster(context: &Context, common: &Common) -> Vec<Finding> {
    let mut findings = Vec::new();
    let client = match context.client().await {
        Ok(client) => client,
        Err(failure) => {
            findings.push(broker_problem(failure, common).await);
            return findings;
        }
    };
    let admin = Admin::new(client);
    let described = match admin.describe_cluster().await {
        Ok(described) => described,
        Err(error) => {
            let remedy = "is something else than a Kafka broker listening there?";
            findings.push(Finding::new("broker", Verdict::Bad, error.to_string(), remedy));
            return findings;
        }
    };
    let count = described.brokers.len();
    let found = format!("cluster {} with {count} brokers", described.id);
    findings.push(Finding::good("broker", found));
    for broker in &described.brokers {
        findings.push(advertised(&broker.host, broker.port, broker.id).await);
    }
    match admin.broker_versions().await {
        Ok(versions) => {
            for broker in versions {
                let features: Vec<_> =
                    broker.features.iter().map(|(name, level)| format!("{name}={level}")).collect();
                let found = format!(
                    "broker {} takes {} kinds of requests {}",
                    broker.id,
                    broker.apis.len(),
                    features.join(" ")
                );
                findings.push(Finding::good("versions", found.trim_end()));
            }
        }
        Err(error) => findings.push(Finding::new(
            "versions",
            Verdict::Doubtful,
            error.to_string(),
            "the advertised address must be reachable from here, see above",
        )),
    }
    findings
}

/// Says why the bootstrap address does not answer.
async fn broker_problem(failure: Failure, common: &Common) -> Finding {
    let server = common.bootstrap_server.as_deref().unwrap_or(DEFAULT_SERVER);
    let accepts = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await;
    match accepts {
        Ok(Ok(_)) => Finding::new(
            "broker",
            Verdict::Bad,
            format!("{server} accepts connections and then: {failure}"),
            "is it a Kafka listener, and does it want TLS or SASL?",
        ),
        _ => {
            // The text has the remedy after its last colon already.
            Finding {
                check: "broker",
                verdict: Verdict::Bad,
                found: failure.to_string(),
                remedy: None,
            }
        }
    }
}

/// Checks that clients here can reach what a broker tells them to use.
async fn advertised(host: &str, port: i32, id: i32) -> Finding {
    const CHECK: &str = "advertised";
    let address = format!("{host}:{port}");
    let port = u16::try_from(port).unwrap_or_default();
    let remedy = "set advertised.listeners of the broker to an address that clients can reach";
    if let Err(error) = lookup_host((host, port)).await {
        let found = format!("broker {id} says {address}, which does not resolve: {error}");
        return Finding::new(CHECK, Verdict::Bad, found, remedy);
    }
    let connecting = TcpStream::connect((host, port));
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(_)) => Finding::good(CHECK, format!("broker {id} at {address} can be reached")),
        Ok(Err(error)) => {
            let found = format!("broker {id} says {address}, which cannot be reached: {error}");
            Finding::new(CHECK, Verdict::Bad, found, remedy)
        }
        Err(_) => {
            let found = format!("broker {id} says {address}, which does not answer");
            Finding::new(CHECK, Verdict::Bad, found, remedy)
        }
    }
}

/// The directory itself, or the nearest one above it that exists.
fn existing_parent(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute
        .ancestors()
        .find(|path| path.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_owned)
}
