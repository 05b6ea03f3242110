//! The cluster image, the controller's decisions, and the table of configuration keys.

pub mod config;
