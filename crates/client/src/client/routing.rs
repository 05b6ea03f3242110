//! Finds the right broker for a call, and tries again while that makes sense.

use std::collections::{HashMap, HashSet};

use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::{ErrorCode, Request};
use fleuve_types::TopicPartition;

use super::{Client, Lane, lock};
use crate::connection::Connection;
use crate::error::{Error, Result, check, check_said};
use crate::timing::{Backoff, Deadline};

/// What a leader said about one partition.
pub(crate) struct PartitionAnswer<V> {
    pub(crate) partition: TopicPartition,
    pub(crate) error_code: i16,
    pub(crate) value: V,
}

/// What has a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coordinated<'a> {
    /// A group of any kind.
    Group(&'a str),
    /// A transactional id.
    Transaction(&'a str),
}

impl<'a> Coordinated<'a> {
    /// Returns the key type and key of FindCoordinator.
    fn key(self) -> (i8, &'a str) {
        match self {
            Self::Group(name) => (0, name),
            Self::Transaction(name) => (1, name),
        }
    }
}

impl std::fmt::Display for Coordinated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group {name}"),
            Self::Transaction(name) => write!(f, "transactional id {name}"),
        }
    }
}

/// Decides after each failed attempt of a call whether there is another one.
///
/// A loop with this in it, and not a function that takes the attempt as a closure: futures of
/// borrowing async closures cannot be shown to be `Send` yet.
pub(crate) struct Retrying {
    operation: String,
    deadline: Deadline,
    backoff: Backoff,
}

impl Retrying {
    /// Waits before the next attempt if `error` advises one and `default.api.timeout.ms` allows
    /// it; otherwise the error is final.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        if !error.is_retriable() {
            return Err(error);
        }
        self.after_passing(error).await
    }

    /// Waits before the next attempt whatever `error` advises, because the caller knows that it
    /// passes.
    pub(crate) async fn after_passing(&mut self, error: Error) -> Result<()> {
        if self.deadline.is_over() {
            return Err(Error::Expired {
                operation: self.operation.clone(),
                after: self.deadline.elapsed(),
                last: error.to_string(),
            });
        }
        tracing::debug!(operation = self.operation, %error, "trying again");
        self.deadline.sleep(self.backoff.next_pause()).await;
        Ok(())
    }
}

impl Client {
    /// Begins a call that may take several attempts.
    pub(crate) fn retrying(&self, operation: &str) -> Retrying {
        Retrying {
            operation: operation.to_owned(),
            deadline: Deadline::after(self.inner.config.api_timeout),
            backoff: self.retry_backoff(),
        }
    }

    /// Sends a request that any broker can answer; brokers forward what is the controller's.
    ///
    /// `build` makes the request for the version that is spoken, `error_of` finds the error code
    /// that concerns the whole request.
    pub(crate) async fn call_any<R: Request>(
        &self,
        build: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        let mut retrying = self.retrying(R::KEY.name());
        loop {
            let attempt = async {
                let connection = self.any_connection().await?;
                let response = exchange(&connection, i16::MAX, &build).await?;
                check(error_of(&response), || format!("broker {}", connection.broker()))?;
                Ok(response)
            };
            match attempt.await {
                Ok(response) => return Ok(response),
                Err(error) => retrying.after(error).await?,
            }
        }
    }

    /// Sends a request to one broker.
    pub(crate) async fn call_broker<R: Request>(
        &self,
        id: i32,
        build: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        let mut retrying = self.retrying(R::KEY.name());
        loop {
            let attempt = async {
                let connection = self.connection(id, Lane::General).await?;
                let response = exchange(&connection, i16::MAX, &build).await?;
                check(error_of(&response), || format!("broker {id}"))?;
                Ok(response)
            };
            match attempt.await {
                Ok(response) => return Ok(response),
                Err(error) => retrying.after(error).await?,
            }
        }
    }

    /// Sends a request about `group` to its coordinator, in `version_max` at most.
    pub(crate) async fn call_coordinator<R: Request>(
        &self,
        group: &str,
        version_max: i16,
        build: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        self.call_coordinator_of(Coordinated::Group(group), version_max, build, error_of).await
    }

    /// Sends a request about a group or a transactional id to its coordinator, in `version_max` at
    /// most.
    pub(crate) async fn call_coordinator_of<R: Request>(
        &self,
        subject: Coordinated<'_>,
        version_max: i16,
        build: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        let mut retrying = self.retrying(R::KEY.name());
        loop {
            let attempt = async {
                let coordinator = self.coordinator_of(subject).await?;
                let connection = self.connection(coordinator, Lane::Offsets).await?;
                let response = exchange(&connection, version_max, &build).await?;
                check(error_of(&response), || subject.to_string())?;
                Ok(response)
            };
            match attempt.await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    self.forget_coordinator_of(subject, &error);
                    retrying.after(error).await?;
                }
            }
        }
    }

    /// Returns a connection to any broker, and tries again while that makes sense.
    pub(crate) async fn any_connection_in_time(&self) -> Result<Connection> {
        let mut retrying = self.retrying("connecting");
        loop {
            match self.any_connection().await {
                Ok(connection) => return Ok(connection),
                Err(error) => retrying.after(error).await?,
            }
        }
    }

    /// Returns a connection to a broker, and tries again while that makes sense.
    pub(crate) async fn connection_in_time(&self, id: i32, lane: Lane) -> Result<Connection> {
        let mut retrying = self.retrying("connecting");
        loop {
            match self.connection(id, lane).await {
                Ok(connection) => return Ok(connection),
                Err(error) => retrying.after(error).await?,
            }
        }
    }

    /// Returns a connection to the coordinator of `subject`, and tries again while that makes
    /// sense.
    pub(crate) async fn coordinator_connection(
        &self,
        subject: Coordinated<'_>,
    ) -> Result<Connection> {
        let mut retrying = self.retrying("FindCoordinator");
        loop {
            let attempt = async {
                let coordinator = self.coordinator_of(subject).await?;
                self.connection(coordinator, Lane::Offsets).await
            };
            match attempt.await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    self.forget_coordinator_of(subject, &error);
                    retrying.after(error).await?;
                }
            }
        }
    }

    /// Returns the broker that coordinates `group`, asking once if it is not known.
    pub(crate) async fn coordinator(&self, group: &str) -> Result<i32> {
        self.coordinator_of(Coordinated::Group(group)).await
    }

    /// Returns the broker that coordinates a group or a transactional id, asking once if it is not
    /// known.
    pub(crate) async fn coordinator_of(&self, coordinated: Coordinated<'_>) -> Result<i32> {
        let (key_type, name) = coordinated.key();
        if let Some(&id) = lock(&self.inner.coordinators).get(&(key_type, name.to_owned())) {
            return Ok(id);
        }
        let connection = self.any_connection().await?;
        let version = connection.version_of::<FindCoordinatorRequest>(i16::MAX)?;
        let mut request = FindCoordinatorRequest { key_type, ..Default::default() };
        // Version 4 asks for several groups at once.
        if version >= 4 {
            request.coordinator_keys = vec![name.to_owned().into()];
        } else {
            request.key = name.to_owned().into();
        }
        let response = connection.submit(&request, version)?.wait().await?;
        let subject = || format!("coordinator of {coordinated}");
        let (id, host, port) = match response.coordinators.first() {
            Some(found) => {
                check_said(found.error_code, found.error_message.as_deref(), subject)?;
                (found.node_id, &found.host, found.port)
            }
            None => {
                check_said(response.error_code, response.error_message.as_deref(), subject)?;
                (response.node_id, &response.host, response.port)
            }
        };
        let port = u16::try_from(port)
            .map_err(|_| Error::broker(subject(), ErrorCode::CoordinatorNotAvailable))?;
        self.learn_address(id, host, port);
        lock(&self.inner.coordinators).insert((key_type, name.to_owned()), id);
        Ok(id)
    }

    /// Forgets where `group` is coordinated if `error` says that it may have moved.
    pub(crate) fn forget_coordinator_after(&self, group: &str, error: &Error) {
        self.forget_coordinator_of(Coordinated::Group(group), error);
    }

    /// Forgets where `coordinated` is coordinated if `error` says that it may have moved.
    pub(crate) fn forget_coordinator_of(&self, coordinated: Coordinated<'_>, error: &Error) {
        let moved = match error {
            Error::Disconnected { .. } | Error::Timeout { .. } => true,
            Error::Broker { code, .. } => is_coordinator_error(*code),
            _ => false,
        };
        if moved {
            let (key_type, name) = coordinated.key();
            lock(&self.inner.coordinators).remove(&(key_type, name.to_owned()));
        }
    }

    /// Sends a request about partitions to the leader of each, and gathers the answers.
    ///
    /// `build` makes the request of one leader, `read` takes its answer apart. Partitions with
    /// retriable errors are asked for again after a metadata refresh, up to
    /// `default.api.timeout.ms`; what then remains is reported per partition, as is everything that
    /// concerns some of them only, a topic that does not exist included.
    pub(crate) async fn call_leaders<R: Request, V>(
        &self,
        partitions: &[TopicPartition],
        build: impl Fn(&[TopicPartition], i16) -> R,
        read: impl Fn(R::Response) -> Vec<PartitionAnswer<V>>,
    ) -> Result<HashMap<TopicPartition, Result<V>>> {
        let deadline = Deadline::after(self.inner.config.api_timeout);
        let mut backoff = self.retry_backoff();
        let mut results: HashMap<TopicPartition, Result<V>> = HashMap::new();
        let mut open: Vec<TopicPartition> = partitions.to_vec();
        loop {
            let Leaders { by_leader, leaderless, hopeless } = self.by_leader(&open).await;
            results.extend(hopeless.into_iter().map(|(partition, error)| (partition, Err(error))));
            open = leaderless;
            for (leader, theirs) in by_leader {
                let attempt = async {
                    let connection = self.connection(leader, Lane::General).await?;
                    exchange(&connection, i16::MAX, |version| build(&theirs, version)).await
                };
                match attempt.await {
                    Ok(response) => {
                        let mut unanswered: HashSet<_> = theirs.into_iter().collect();
                        for answer in read(response) {
                            let partition = answer.partition;
                            if !unanswered.remove(&partition) {
                                // Nobody asked for it.
                                continue;
                            }
                            match check(answer.error_code, || partition.to_string()) {
                                Err(error) if error.is_retriable() => {
                                    results.insert(partition.clone(), Err(error));
                                    open.push(partition);
                                }
                                Err(error) => drop(results.insert(partition, Err(error))),
                                Ok(()) => drop(results.insert(partition, Ok(answer.value))),
                            }
                        }
                        for partition in unanswered {
                            let error = Error::unanswered(partition.to_string());
                            results.insert(partition, Err(error));
                        }
                    }
                    Err(error) if error.is_retriable() => {
                        for partition in theirs {
                            results.insert(partition.clone(), Err(error.clone()));
                            open.push(partition);
                        }
                    }
                    Err(error) => {
                        let theirs = theirs.into_iter();
                        results.extend(theirs.map(|partition| (partition, Err(error.clone()))));
                    }
                }
            }
            if open.is_empty() || deadline.is_over() {
                break;
            }
            deadline.sleep(backoff.next_pause()).await;
            self.refresh(&topics_of(&open), false).await.ok();
        }
        for partition in open {
            results.entry(partition.clone()).or_insert_with(|| {
                Err(Error::broker(partition.to_string(), ErrorCode::LeaderNotAvailable))
            });
        }
        Ok(results)
    }

    /// Sorts partitions by leader.
    async fn by_leader(&self, partitions: &[TopicPartition]) -> Leaders {
        let mut missing = HashMap::new();
        for name in topics_of(partitions) {
            if let Err(error) = self.topic(&name, false).await {
                missing.insert(name, error);
            }
        }
        let cluster = self.cluster();
        let mut leaders = Leaders::default();
        for partition in partitions {
            if let Some(error) = missing.get(&partition.topic) {
                leaders.hopeless.push((partition.clone(), error.clone()));
                continue;
            }
            let count = cluster.topic(&partition.topic).map_or(0, |topic| topic.partitions.len());
            if usize::try_from(partition.partition).is_ok_and(|index| index >= count)
                || partition.partition < 0
            {
                let error = Error::NoSuchPartition {
                    topic: partition.topic.to_string(),
                    partition: partition.partition,
                    count,
                };
                leaders.hopeless.push((partition.clone(), error));
                continue;
            }
            match cluster.leader(&partition.topic, partition.partition) {
                Some((leader, _)) => {
                    leaders.by_leader.entry(leader).or_default().push(partition.clone());
                }
                None => leaders.leaderless.push(partition.clone()),
            }
        }
        leaders
    }
}

/// Partitions by who leads them.
#[derive(Default)]
struct Leaders {
    by_leader: HashMap<i32, Vec<TopicPartition>>,
    /// Nobody does, which may pass.
    leaderless: Vec<TopicPartition>,
    /// They do not exist, or nobody could say.
    hopeless: Vec<(TopicPartition, Error)>,
}

async fn exchange<R: Request>(
    connection: &Connection,
    version_max: i16,
    build: impl Fn(i16) -> R,
) -> Result<R::Response> {
    let version = connection.version_of::<R>(version_max)?;
    let request = build(version);
    let response = connection.submit(&request, version)?;
    response.wait().await
}

/// Reports whether a code says that the coordinator is elsewhere or not ready.
pub(crate) fn is_coordinator_error(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
    )
}

fn topics_of(partitions: &[TopicPartition]) -> Vec<std::sync::Arc<str>> {
    let mut names: Vec<_> = partitions.iter().map(|partition| partition.topic.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}
