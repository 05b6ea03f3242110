//! The commands, one file each.

pub(crate) mod acl;
pub(crate) mod any_group;
pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod consume;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod group;
pub(crate) mod log;
pub(crate) mod produce;
pub(crate) mod quota;
pub(crate) mod replicas;
pub(crate) mod serve;
pub(crate) mod share;
pub(crate) mod token;
pub(crate) mod topic;
pub(crate) mod transaction;
pub(crate) mod user;
