//! The graph of a program: nodes, stores and internal topics, under Kafka Streams' names.
//!
//! The DSL adds nodes as it is called; `Graph` numbers them with one global counter, exactly as Kafka Streams does,
//! because those numbers end up in the names of topics that outlive a release. [`Plan`] is the finished graph, cut into
//! subtopologies: the sets of nodes connected by edges or by shared stores.

mod describe;
mod flow;
mod graph;
mod json;
mod matching;
mod optimize;
mod plan;

pub(crate) use describe::java_hash_order;
pub(crate) use graph::{
    ChangelogKind, Copartition, GlobalSpec, Graph, Kind, Node, NodeBuilder, NodeId, SharedGraph,
    SideOutput, SinkTopic, StoreSpec,
};
pub(crate) use matching::TopicPattern;
pub use optimize::TopologyOptimization;
pub(crate) use optimize::{Effect, RepartitionNodes, StreamJoinNodes};
pub use plan::{InternalTopic, Plan, Subtopology, TopicCleanup};
