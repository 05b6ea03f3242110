//! The running form of each operator: one file per family.

pub(crate) mod aggregate;
pub(crate) mod async_map;
pub(crate) mod batch;
pub(crate) mod foreign_join;
pub(crate) mod guarded;
pub(crate) mod process;
pub(crate) mod self_join;
pub(crate) mod session_aggregate;
pub(crate) mod sink;
pub(crate) mod sliding_aggregate;
pub(crate) mod source;
pub(crate) mod stateless;
pub(crate) mod stream_join;
pub(crate) mod stream_table_join;
pub(crate) mod suppress;
pub(crate) mod table;
pub(crate) mod table_aggregate;
pub(crate) mod table_join;
pub(crate) mod transform_values;
pub(crate) mod window_aggregate;
