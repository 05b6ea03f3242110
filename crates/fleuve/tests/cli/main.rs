//! Drives the built binary against a broker that it serves itself.

mod broker;
mod commands;
mod groups;
mod passwords;
mod records;
mod serving;
mod tools;
mod transactions;
mod verbs;
