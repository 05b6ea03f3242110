//! The cluster image, the controller's decisions, and the table of configuration keys.
//!
//! Metadata is a log. [`controller::Controller`] decides and returns [`record::Record`]s; a driver
//! appends them; only applying them changes the [`image::Image`] that everybody reads. [`config`]
//! stands beside: keys, their rules and the typed settings made from them.
//!
//! [`checkpoint`] writes the image as the file that replaces the log before it.
//!
//! This room knows no sockets, files or tasks, and none of Kafka's error codes.

pub mod checkpoint;
pub mod config;
pub mod controller;
pub mod image;
pub mod record;
