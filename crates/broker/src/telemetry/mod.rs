//! Metrics that clients push (KIP-714): whom to ask for what, reading what comes, and showing it.
//!
//! - `subscriptions` knows the clients, tells each what is wanted of it, and judges its pushes;
//! - `otlp` reads the OpenTelemetry messages of a push;
//! - `store` keeps the latest values, within bounds, for the metrics page.

mod otlp;
mod store;
mod subscriptions;

pub(crate) use otlp::{OtlpError, Point, read};
pub(crate) use store::Store;
pub(crate) use subscriptions::{Client, Push, Refusal, Telemetry};
