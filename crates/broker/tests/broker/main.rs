//! Tests of a whole broker over its sockets, each with a broker and a directory of its own.

mod admin;
mod burrow;
mod clocks;
mod consumer_groups;
mod controller_listener;
mod directories;
mod durability;
mod dynamic_settings;
mod every_version;
mod groups;
mod http_door;
mod idempotence_and_sessions;
mod leader_epochs;
mod lifecycle;
mod limits;
mod loggers;
mod produce_and_fetch;
mod quotas;
mod share_groups;
mod share_states;
mod slow_disk;
mod streams_groups;
mod support;
mod topics;
mod transactions;
mod vulnerabilities;
