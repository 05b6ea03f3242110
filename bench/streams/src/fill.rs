//! Writes what the rows read, the same in every run.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_client::{Client, Producer, ProducerConfig, Record};

use crate::Outcome;
use crate::rows::Order;

pub(crate) async fn fill(client: Client, kind: &str, topic: &str, count: u64) -> Outcome {
    let producer = Producer::new(
        client,
        ProducerConfig { batch_size: 64 << 10, ..ProducerConfig::default() },
    )?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH)? - AGE;
    let began_ms = began.as_millis() as i64;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut outstanding = VecDeque::new();
    let (mut key, mut value) = (String::new(), Vec::new());
    for number in 0..count {
        key.clear();
        value.clear();
        match kind {
            "orders" => {
                write!(key, "user-{}", random.below(10_000))?;
                let order = Order {
                    id: number as i64,
                    user: key.clone(),
                    item: format!("item-{}", random.below(1_000)),
                    quantity: 1 + random.below(10) as i64,
                    cents: 1 + random.below(10_000) as i64,
                    note: "to be delivered to the back door, and please ring twice".to_owned(),
                };
                serde_json::to_writer(&mut value, &order)?;
            }
            "lines" => {
                write!(key, "{number}")?;
                for word in 0..WORDS {
                    let space = if word == 0 { "" } else { " " };
                    // A few words are frequent, most are rare.
                    let frequent = 1 << random.below(17).max(1);
                    let rank = random.below(frequent);
                    std::io::Write::write_fmt(&mut value, format_args!("{space}word{rank}"))?;
                }
            }
            "events" | "wide" => {
                let keys = if kind == "wide" { KEYS_WIDE } else { KEYS };
                write!(key, "key-{:06}", random.below(keys))?;
                value.extend_from_slice(b"some event or other");
            }
            "pairs" => {
                // Left events in turn with right ones, of the same id up to a minute later: of none, one or several.
                let (own, is_left) = (number / 2, number % 2 == 0);
                let back = if is_left { 0 } else { random.below(own.min(PAIRS_APART) + 1) };
                write!(key, "id-{:08}", own - back)?;
                let side = if is_left { 'l' } else { 'r' };
                std::io::Write::write_fmt(&mut value, format_args!("{side}{number:08}"))?;
                value.resize(PAIR_BYTES, b'x');
            }
            "state" => {
                write!(key, "key-{number:08}")?;
                while value.len() < STATE_BYTES {
                    value.extend_from_slice(
                        &random.next().to_le_bytes().map(|byte| b'a' + byte % 16),
                    );
                }
            }
            _ => return Err(format!("nothing is known of {kind}").into()),
        }
        // A millisecond between events: as many windows as minutes.
        let record = Record::new(topic).key(&key).value(&value).timestamp(began_ms + number as i64);
        if outstanding.len() == OUTSTANDING_MAX
            && let Some(delivery) = outstanding.pop_front()
        {
            let delivery: fleuve_client::producer::Delivery = delivery;
            delivery.await?;
        }
        outstanding.push_back(producer.send(record).await?);
    }
    for delivery in outstanding {
        delivery.await?;
    }
    Ok(producer.close().await?)
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

const OUTSTANDING_MAX: usize = 100_000;
const WORDS: usize = 10;
/// As many as fit into a cache of ten MiB.
const KEYS: u64 = 50_000;
const KEYS_WIDE: u64 = 1_000_000;
const STATE_BYTES: usize = 1024;
const PAIR_BYTES: usize = 100;
/// Half as many as there are milliseconds in a minute.
const PAIRS_APART: u64 = 30_000;
/// Events lie so far back that they end before now, and no topic's retention has them deleted.
const AGE: Duration = Duration::from_secs(2 * 3600);
