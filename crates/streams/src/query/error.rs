//! Why a query has no answer.

use std::sync::Arc;

use crate::state::StoreError;

/// Why a query has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The topology has no such store.
    #[error("there is no store `{store}`; there are: {}", .known.join(", "))]
    UnknownStore {
        /// What was asked for.
        store: String,
        /// The stores of the topology.
        known: Vec<String>,
    },
    /// The store's topology has no such partition.
    #[error("store `{store}` has {count} partitions, and no {partition}")]
    UnknownPartition {
        /// The store.
        store: String,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        count: i32,
    },
    /// The store is of another kind or of other types.
    #[error("store `{store}` is no {wanted}")]
    OtherTypes {
        /// The store.
        store: String,
        /// What it was asked as.
        wanted: String,
    },
    /// The key cannot be written or read.
    #[error("the key for store `{store}`: {cause}")]
    Key {
        /// The store.
        store: String,
        /// Why.
        cause: String,
    },
    /// Another instance has the task.
    #[error("task {task} of store `{store}` is not here, but {}", at(.owner))]
    NotHere {
        /// The store.
        store: String,
        /// The task that holds what was asked for.
        task: String,
        /// `application.server` of the instance that has it, if it is known.
        owner: Option<String>,
    },
    /// The task is on its way to this instance.
    #[error("task {task} of store `{store}` is being restored here; ask again")]
    Rebalancing {
        /// The store.
        store: String,
        /// The task.
        task: String,
    },
    /// The store has not come as far as the query wants.
    #[error(
        "task {task} has not come to offset {wanted} of {topic}: it is at {}",
        found.map_or_else(|| "no offset".to_owned(), |found| found.to_string())
    )]
    Behind {
        /// The task.
        task: String,
        /// The topic.
        topic: String,
        /// The offset that the query wants to be processed.
        wanted: i64,
        /// The offset that was processed last, if any was.
        found: Option<i64>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The application has ended.
    #[error("the application has ended")]
    Ended,
}

fn at(owner: &Option<String>) -> String {
    match owner {
        Some(owner) => format!("at {owner}"),
        None => "at another instance, which names no application.server".to_owned(),
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
