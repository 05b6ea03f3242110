//! Stream processing: Kafka Streams' concepts, names and byte formats in a typed Rust API.
//!
//! - [`Topology`] and its handles ([`KStream`], [`KTable`], ...) describe a program; [`TestDriver`] runs it in memory,
//!   with the same tasks that run in production, deterministically.
//! - [`record`] is what flows, [`serde`] turns it into bytes and back.
//! - [`topology`] is the graph under Kafka Streams' names, cut into subtopologies.
//! - [`runtime`] runs one subtopology for one partition number, as a plain machine; [`state`] is what it remembers.
//!
//! Where the semantics are not obvious they are Kafka Streams': records are processed depth-first one at a time, in order
//! of event time per task; stream time is kept per operator; tables follow their topic's order. What is different by
//! choice is said where it is.

pub mod error;
pub mod record;
pub mod serde;

mod dsl;
mod operator;
pub mod state;
pub mod topology;

mod driver;
pub mod runtime;

pub mod metrics;
mod query;

mod app;

pub use app::{
    Guarantee, InstanceMetadata, KeyMetadata, Restoration, RestoreListener, Settings,
    StandbyListener, StandbySuspension, StandbyUpdate, Streams, StreamsError, StreamsGroupProtocol,
    export_state, import_state,
};
pub use driver::{
    Expected, Input, LocalRun, LocalRunError, TestData, TestDriver, TestRecord, TestRecords,
    TestSetup,
};
pub use dsl::processor;
pub use dsl::{
    AsyncOrder, Batch, Branches, CogroupedKStream, Consumed, ErrorPolicy, GlobalKTable,
    JoinWindows, Joined, KGroupedStream, KGroupedTable, KStream, KTable, Materialized,
    Partitioning, Produced, Repartitioned, SessionWindowedCogroupedKStream, SessionWindowedKStream,
    SessionWindows, SlidingWindows, StreamJoined, StreamTask, SuppressBuffer, Suppressed,
    TimeWindowedCogroupedKStream, TimeWindowedKStream, TimeWindows, Topology, Transform,
    UnlimitedWindows, Windowing,
};
pub use error::{ProcessingError, TopologyError};
pub use query::{Answer, InStore, JsonReply, Position, Query, QueryError, in_store};
pub use record::{Headers, Record, Window, Windowed};
pub use runtime::{Clock, Counter, Distribution, DistributionSummary, Schedule};
pub use serde::{Json, Presence, Serde, SerdeError, SerdeOf, StreamType};
pub use state::StoreType;
pub use topology::TopologyOptimization;
