//! Connections: from bytes on a socket to requests, and from replies back to bytes.
//!
//! One task serves one connection from its first byte to its last. It cuts frames, hands each to
//! the dispatcher on the spot, without a queue between network and request threads, and writes
//! the answers in the order of the requests.

mod frames;
mod listener;
mod task;

pub(crate) use frames::{FrameBuffer, FrameError};
pub(crate) use listener::{ConnectionGate, GateLimits, Listener, SocketOptions};
pub(crate) use task::{Answer, CloseReason, Dispatch, Limits, Reply, serve};
