//! The task of a connection: writes queued requests, hands out answers.
//!
//! Both directions run in one task as two futures, so that a broker which stops reading until we
//! have read its answers cannot block us.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use fleuve_protocol::Pieces;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::Shared;
use crate::error::{Error, Result};
use crate::transport::{FrameReceiver, FrameSender, Link};

/// A request on its way to the broker.
pub(super) struct Outgoing {
    pub(super) correlation_id: i32,
    pub(super) segments: Vec<Bytes>,
    /// Who waits for the answer; nobody does with acks=0.
    pub(super) reply: Option<oneshot::Sender<Result<Pieces>>>,
}

/// Where requests come from.
pub(super) struct Queues {
    pub(super) requests: mpsc::UnboundedReceiver<Outgoing>,
    /// Those of an authentication come first.
    pub(super) auth: mpsc::UnboundedReceiver<Outgoing>,
    /// While true, the others wait.
    pub(super) held: watch::Receiver<bool>,
}

/// Requests that were written, or are being written, by correlation id.
type Waiting = Mutex<HashMap<i32, oneshot::Sender<Result<Pieces>>>>;

/// How many queued requests are written at once.
const WRITE_TOGETHER: usize = 32;

pub(super) async fn run(
    link: Link,
    mut queues: Queues,
    shared: Weak<Shared>,
    broker: String,
    close_asked: Arc<Notify>,
) {
    let Link { sender, receiver } = link;
    let waiting = Waiting::default();
    let reason = tokio::select! {
        // Answers first: an answer that has arrived counts even if the connection is closing.
        biased;
        error = read(receiver, &waiting) => error,
        error = write(sender, &mut queues, &waiting) => error,
        () = close_asked.notified() => io::Error::other("the client closed the connection"),
    };
    if let Some(shared) = shared.upgrade() {
        shared.closed.store(true, Ordering::Release);
    }
    let Queues { requests: mut queue, auth: mut auth_queue, .. } = queues;
    queue.close();
    auth_queue.close();
    let fail = |reply: oneshot::Sender<_>, maybe_sent| {
        // A waiter that has gone away needs no answer.
        let _ = reply.send(Err(Error::disconnected(&broker, &reason, maybe_sent)));
    };
    while let Ok(outgoing) = auth_queue.try_recv().or_else(|_| queue.try_recv()) {
        if let Some(reply) = outgoing.reply {
            fail(reply, false);
        }
    }
    let waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (_, reply) in waiting {
        fail(reply, true);
    }
    tracing::debug!(broker, %reason, "connection ended");
}

async fn write(
    mut sender: Box<dyn FrameSender>,
    queues: &mut Queues,
    waiting: &Waiting,
) -> io::Error {
    let mut batch = Vec::with_capacity(WRITE_TOGETHER);
    let mut segments = Vec::new();
    loop {
        let Queues { requests, auth, held } = queues;
        let hold = *held.borrow_and_update();
        let gone = tokio::select! {
            biased;
            outgoing = auth.recv() => {
                batch.extend(outgoing);
                batch.is_empty()
            }
            count = requests.recv_many(&mut batch, WRITE_TOGETHER), if !hold => count == 0,
            changed = held.changed() => changed.is_err(),
        };
        if gone {
            return io::Error::other("the client dropped the connection");
        }
        {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            for outgoing in batch.drain(..) {
                segments.extend(outgoing.segments);
                if let Some(reply) = outgoing.reply {
                    waiting.insert(outgoing.correlation_id, reply);
                }
            }
        }
        if let Err(error) = sender.send(&mut segments).await {
            return error;
        }
    }
}

async fn read(mut receiver: Box<dyn FrameReceiver>, waiting: &Waiting) -> io::Error {
    loop {
        let frame = match receiver.receive().await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        // Every response header begins with the correlation id.
        let Some(id) = frame.first_chunk::<4>().map(i32::from_be_bytes) else {
            return invalid("a response without a correlation id");
        };
        let reply = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        match reply {
            // A waiter that has gone away needs no answer.
            Some(reply) => drop(reply.send(Ok(frame))),
            None => return invalid(&format!("a response to request {id}, which was not sent")),
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the broker sent {text}"))
}
