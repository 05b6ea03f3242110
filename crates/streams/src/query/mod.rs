//! Interactive queries: what stores hold, asked from outside of the topology.
//!
//! A [`Query`] names a store and says what it wants; [`crate::Streams::query`] asks a running application, and
//! [`crate::TestDriver::query`] a test. Stores belong to their tasks, and tasks to threads: a query is a closure that
//! travels to the thread of the task, which answers it between two records, or while it waits for the cluster. So no
//! store has a lock, and an answer is always of one moment.
//!
//! What is asked over HTTP has no types: [`face`] reads keys out of text and shows values as JSON.

mod error;
pub(crate) mod face;
mod forwarding;
mod position;
mod request;
mod routes;
mod shelf;

pub use error::QueryError;
pub use position::Position;
pub use request::{Answer, InStore, Query, in_store};
pub(crate) use request::{Target, partition_for};
pub use routes::JsonReply;
pub(crate) use routes::{Ask, Request, Rows};
pub(crate) use shelf::{Applied, Desk, Shelf, Shelved};
