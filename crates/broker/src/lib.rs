//! Broker.
#![expect(dead_code, reason = "under construction")]
mod connection;
