//! Connections: from bytes on a socket to requests, and from replies back to bytes.
//!
//! One task serves one connection from its first byte to its last. It cuts frames, hands each to
//! the dispatcher on the spot, without a queue between network and request threads, and writes
//! the answers in the order of the requests.

mod budget;
mod frames;
mod gate;
mod in_process;
mod listener;
mod outlet;
mod task;

pub use in_process::InProcessConnection;

pub(crate) use budget::{Budget, Share};
pub(crate) use frames::{FrameBuffer, FrameError};
pub(crate) use gate::{Activity, Admission, ConnectionGate, GateLimits};
pub(crate) use in_process::{in_process, serve_in_process};
pub(crate) use listener::{Listener, SocketOptions};
pub(crate) use task::{Answer, CloseReason, Dispatch, Limits, Reply, Standing, serve};
