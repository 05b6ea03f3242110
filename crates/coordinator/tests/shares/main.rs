//! Share-partitions and the states that are kept of them, without a broker.

mod model;
mod states;
