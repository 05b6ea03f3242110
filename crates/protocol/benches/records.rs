//! Rates of what a broker or client does with every batch.
//!
//! `cargo bench -p fleuve-protocol --bench records` prints the fastest of many short samples, which
//! says what the code can do even while the machine does other things.

#![expect(clippy::print_stdout, reason = "the rates are the result")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_protocol::records::{
    Batch, BatchBuilder, BatchOptions, Batches, Codec, Compression, Decompressor, NewRecord,
    RecordIter, validate_records,
};
use fleuve_types::TimestampMs;

const MEASURED: Duration = Duration::from_millis(500);
/// Long enough for the clock, short enough to fall between two interruptions.
const SAMPLE_MIN: Duration = Duration::from_micros(200);
const BATCH_SIZE: usize = 1 << 20;
const RECORD_SIZE: usize = 100;

fn main() {
    let values = values();
    let plain = batch(Compression::None, &values);
    let records = plain.header.count as usize;
    let size = plain.bytes.len();
    println!("1 batch, {size} bytes, {records} records of {RECORD_SIZE} bytes\n");

    rate("header parse", 1, "batches", || {
        black_box(Batches::new(black_box(plain.bytes.clone())).count());
    });
    rate("header parse + CRC", size, "bytes", || {
        for batch in Batches::new(black_box(plain.bytes.clone())) {
            batch.and_then(|batch| batch.verify_crc()).expect("the batch is ours");
        }
    });
    let payload = plain.payload();
    rate("validate_records", records, "records", || {
        black_box(validate_records(&plain.header, black_box(&payload))).expect("ours");
    });
    let varied = batch(Compression::None, &varied_values());
    let varied_payload = varied.payload();
    rate("validate_records, varied sizes", varied.header.count as usize, "records", || {
        black_box(validate_records(&varied.header, black_box(&varied_payload))).expect("ours");
    });
    rate("RecordIter", records, "records", || {
        for record in RecordIter::new(&plain.header, black_box(&payload)) {
            black_box(record).expect("ours");
        }
    });
    for codec in Compression::ALL {
        let options = BatchOptions { codec: Codec::new(codec), ..BatchOptions::default() };
        let mut builder = BatchBuilder::with_capacity(options, 2 * BATCH_SIZE);
        rate(&format!("BatchBuilder, {codec}"), records, "records", || {
            fill(&mut builder, &values);
            black_box(builder.finish());
        });
    }
    for codec in Compression::ALL {
        let compressed = batch(codec, &values);
        let mut decompressor = Decompressor::new(2 * BATCH_SIZE);
        let name = format!("decompress + iterate, {codec}");
        rate(&name, records, "records", || {
            let payload = compressed.records(&mut decompressor).expect("ours");
            for record in RecordIter::new(&compressed.header, &payload) {
                black_box(record).expect("ours");
            }
        });
    }
}

/// Runs `work`, which handles `amount` units, and prints the rate of the fastest sample.
fn rate(name: &str, amount: usize, unit: &str, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    let start = Instant::now();
    let mut runs = 1_u32;
    while start.elapsed() < MEASURED {
        let sample = Instant::now();
        for _ in 0..runs {
            work();
        }
        let elapsed = sample.elapsed();
        if elapsed < SAMPLE_MIN {
            runs *= 2;
        } else {
            best = best.min(elapsed.as_secs_f64() / f64::from(runs));
        }
    }
    println!("{name:<30} {:>10.1} M{unit}/s  {:>10.2} µs", amount as f64 / best / 1e6, best * 1e6);
}

fn batch(codec: Compression, values: &[Bytes]) -> Batch {
    let options = BatchOptions { codec: Codec::new(codec), ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    fill(&mut builder, values);
    Batch::parse(builder.finish()).expect("ours")
}

fn fill(builder: &mut BatchBuilder, values: &[Bytes]) {
    for (index, value) in values.iter().enumerate() {
        builder
            .append(&NewRecord {
                timestamp: TimestampMs(1_700_000_000_000 + index as i64 / 50),
                value: Some(value),
                ..NewRecord::default()
            })
            .expect("a mebibyte fits");
    }
}

/// The same values, each cut to a length of its own.
fn varied_values() -> Vec<Bytes> {
    let mut values = values();
    for (index, value) in values.iter_mut().enumerate() {
        value.truncate(RECORD_SIZE - index * 7919 % 16);
    }
    values
}

/// Text-like values, as many as make one batch of about a mebibyte.
fn values() -> Vec<Bytes> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    (0..BATCH_SIZE / (RECORD_SIZE + 11))
        .map(|index| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let mut value =
                format!("{{\"id\":{index},\"user\":\"{seed:016x}\",\"action\":\"view\",");
            while value.len() < RECORD_SIZE {
                value.push_str("\"page\":\"/products/");
                value.push_str(&(seed % 1000).to_string());
                value.push('"');
            }
            value.truncate(RECORD_SIZE);
            Bytes::from(value)
        })
        .collect()
}
