//! The one HTTP door: the server and the metrics page, and sites of applications.
//!
//! A service hands in a [`Probe`], which says what there is to count and whether the service is
//! ready; this room knows sockets, paths and the Prometheus text format, and nothing of Kafka.
//! Counters stay plain atomics in the room that counts and become text only when somebody asks,
//! so that a metric costs the hot path one addition.
//!
//! Whether connections are encrypted, how many there may be and how long they may be silent say
//! the [`Rules`] that a service gives.

mod asking;
mod door;
mod exposition;
mod process;
mod server;
mod site;
mod visitor;

pub use asking::get;
pub use door::Rules;
pub use exposition::{Exposition, Kind};
pub use process::ProcessUsage;
pub use server::{Asked, Page, Probe, Server};
pub use site::{Answer, Asset, Events, Reply, Site, SiteEvent, SiteServer};
pub use visitor::{Ask, Credentials};
