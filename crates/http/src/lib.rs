//! The one HTTP door: server and metrics exposition.
