//! What the group tells a stream thread, as events between two of its steps.

use fleuve_client::BoxFuture;
use fleuve_client::consumer::{RebalanceListener, StreamsStatus};
use fleuve_types::TopicPartition;
use tokio::sync::{mpsc, oneshot};

/// What the group tells.
pub(super) enum Event {
    Assigned(Vec<TopicPartition>),
    /// The group goes on when the thread has committed and answers.
    Revoked(Vec<TopicPartition>, oneshot::Sender<()>),
    Lost(Vec<TopicPartition>),
    /// What the broker has to say beside tasks.
    Told(Vec<StreamsStatus>),
}

/// Passes on what a consumer hears of its group.
pub(super) struct Listener(pub(super) mpsc::UnboundedSender<Event>);

impl RebalanceListener for Listener {
    fn assigned<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        // A closed channel is a thread that has ended.
        let _ = self.0.send(Event::Assigned(partitions.to_vec()));
        Box::pin(std::future::ready(()))
    }

    fn revoked<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let (done, committed) = oneshot::channel();
            if self.0.send(Event::Revoked(partitions.to_vec(), done)).is_ok() {
                let _ = committed.await;
            }
        })
    }

    fn lost<'a>(&'a self, partitions: &'a [TopicPartition]) -> BoxFuture<'a, ()> {
        let _ = self.0.send(Event::Lost(partitions.to_vec()));
        Box::pin(std::future::ready(()))
    }

    fn told(&self, statuses: &[StreamsStatus]) {
        let _ = self.0.send(Event::Told(statuses.to_vec()));
    }
}
