//! Why a demo ended early.

use std::fmt;
use std::io;

use fleuve_streams::{StreamsError, TopologyError};

/// Why a demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cluster.
    #[error(transparent)]
    Client(#[from] fleuve_client::Error),
    /// The application.
    #[error(transparent)]
    Streams(#[from] StreamsError),
    /// The screen, or a socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else, in one line that says what to do.
    #[error("{0}")]
    Message(String),
}

impl DemoError {
    /// An error in one line.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::Message(message.to_string())
    }
}

impl From<TopologyError> for DemoError {
    fn from(error: TopologyError) -> Self {
        Self::Streams(error.into())
    }
}
