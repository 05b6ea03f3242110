//! The topologies, each as in `bench/StreamsLoad.java`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleuve_streams::serde::TimeWindowedSerde;
use fleuve_streams::{JoinWindows, Json, Produced, SerdeOf, TimeWindows, Topology, Windowed};
use serde::{Deserialize, Serialize};

use crate::{Load, Outcome};

/// What the stateless row reads.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) user: String,
    pub(crate) item: String,
    pub(crate) quantity: i64,
    pub(crate) cents: i64,
    pub(crate) note: String,
}

/// What it writes.
#[derive(Clone, Serialize, Deserialize)]
struct Total {
    id: i64,
    user: String,
    item: String,
    cents: i64,
}

/// The topology of a row; each counts the records that went through.
pub(crate) fn topology(load: &Load<'_>, done: &Arc<AtomicU64>) -> Outcome<Topology> {
    let app = Topology::new(load.application);
    let done = done.clone();
    let add = move || done.fetch_add(1, Ordering::Relaxed);
    match load.row {
        "stateless" => app
            .stream::<String, Json<Order>>(load.input)
            .peek(move |_, _| {
                add();
            })
            .filter(|_, order| order.quantity * order.cents >= MINIMUM)
            .map_values(|Json(order)| {
                let cents = order.quantity * order.cents;
                Json(Total { id: order.id, user: order.user, item: order.item, cents })
            })
            .to(load.output),
        "words" => app
            .stream::<(), String>(load.input)
            .flat_map_values(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .group_by(|_, word| word.clone())
            .aggregate(
                "words",
                || 0_i64,
                move |_, _, count| {
                    add();
                    count + 1
                },
            )
            .to_stream()
            .to(load.output),
        "count" => app
            .stream::<String, String>(load.input)
            .group_by_key()
            .aggregate(
                "counts",
                || 0_i64,
                move |_, _, count| {
                    add();
                    count + 1
                },
            )
            .to_stream()
            .to(load.output),
        "windowed" => app
            .stream::<String, String>(load.input)
            .group_by_key()
            .windowed_by(TimeWindows::of_ms(WINDOW_MS, 0))
            .aggregate(
                "windows",
                || 0_i64,
                move |_, _, count| {
                    add();
                    count + 1
                },
            )
            .to_stream()
            .to_with(
                load.output,
                Produced::with(
                    SerdeOf::<Windowed<String>>::new(TimeWindowedSerde::new(
                        SerdeOf::<String>::usual(),
                        WINDOW_MS,
                    )),
                    SerdeOf::<Option<i64>>::usual(),
                ),
            ),
        "join" => {
            let events = app.stream::<String, String>(load.input).peek(move |_, _| {
                add();
            });
            let right = events.filter(|_, event| event.starts_with('r'));
            events
                .filter(|_, event| event.starts_with('l'))
                .join_within(&right, JoinWindows::of_ms(APART_MS, 0), |left, right| {
                    [&left[..SHOWN], &right[..SHOWN]].concat()
                })
                .to(load.output);
        }
        "restore" => app
            .stream::<String, String>(load.input)
            // Not in the reducer, which sees no first value of a key.
            .peek(move |_, _| {
                add();
            })
            .group_by_key()
            .reduce_with(
                fleuve_streams::Materialized::named("state").without_caching(),
                |_, newer| newer,
            )
            .to_stream()
            .to(load.output),
        row => return Err(format!("no row {row}").into()),
    }
    Ok(app)
}

/// Half of the orders are worth so much.
const MINIMUM: i64 = 25_000;
const WINDOW_MS: i64 = 60_000;
/// How far apart events may be that are joined.
const APART_MS: i64 = 300_000;
/// So much of an event stands in the result.
const SHOWN: usize = 9;
