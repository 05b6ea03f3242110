//! Connections from within the process: frames are handed over, not sent.
//!
//! The same dispatcher answers as for sockets, in the order of the requests. There is no byte
//! stream between: a frame arrives in the segments that its encoder made, and its answer leaves in
//! those of the handler.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use fleuve_os::Piece;
use fleuve_protocol::Pieces;
use fleuve_protocol::frame::LENGTH_BYTES;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::task::{Answer, CloseReason, Dispatch, Limits, Reply};

/// Frames that may wait on either side before the giver has to wait, too.
const FRAMES_WAITING_MAX: usize = 64;

/// A client's end of a connection within the process; dropping it ends the connection.
#[derive(Debug)]
pub struct InProcessConnection {
    /// Takes whole request frames, each with its length in front.
    pub requests: mpsc::Sender<Vec<Bytes>>,
    /// Gives whole response frames, each with its length in front, until the broker ends it.
    pub responses: mpsc::Receiver<Vec<Bytes>>,
}

/// The broker's end.
pub(crate) struct InProcessPeer {
    requests: mpsc::Receiver<Vec<Bytes>>,
    responses: mpsc::Sender<Vec<Bytes>>,
}

/// Makes the two ends of a connection.
pub(crate) fn in_process() -> (InProcessConnection, InProcessPeer) {
    let (requests, theirs) = mpsc::channel(FRAMES_WAITING_MAX);
    let (ours, responses) = mpsc::channel(FRAMES_WAITING_MAX);
    let peer = InProcessPeer { requests: theirs, responses: ours };
    (InProcessConnection { requests, responses }, peer)
}

/// Serves one connection until it ends.
pub(crate) async fn serve_in_process(
    mut peer: InProcessPeer,
    mut dispatch: impl Dispatch,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> CloseReason {
    let mut outstanding: VecDeque<Reply> = VecDeque::new();
    let mut stop = pin!(async move {
        // The sender going away means the broker is gone.
        let _ = shutdown.wait_for(|stop| *stop).await;
    });
    loop {
        let barrier = matches!(outstanding.back(), Some(Reply::Barrier(_)));
        let muted_until = dispatch.muted_until();
        let may_take_more =
            !barrier && muted_until.is_none() && outstanding.len() < limits.outstanding_max;
        let end_of_silence = tokio::time::Instant::from(muted_until.unwrap_or_else(Instant::now));
        tokio::select! {
            answer = poll_fn(|context| poll_oldest(&mut outstanding, context)) => match answer {
                Answer::Frame(pieces, receipt) => {
                    let turn = Instant::now();
                    let segments: Result<Vec<Bytes>, _> =
                        pieces.into_iter().map(Piece::into_bytes).collect();
                    let segments = match segments {
                        Ok(segments) => segments,
                        Err(error) => return CloseReason::Disk(error),
                    };
                    if peer.responses.send(segments).await.is_err() {
                        return CloseReason::Peer;
                    }
                    if let Some(receipt) = receipt {
                        dispatch.answered(&receipt, turn, Instant::now());
                    }
                }
                Answer::Silence => {}
                Answer::Close(reason) => return reason,
            },
            request = peer.requests.recv(), if may_take_more => match request {
                Some(segments) => {
                    outstanding.push_back(dispatch.dispatch(without_length(segments), Instant::now()));
                }
                None => return CloseReason::Peer,
            },
            () = sleep_until(end_of_silence), if muted_until.is_some() => {}
            () = &mut stop => return CloseReason::Shutdown,
        }
    }
}

/// Yields the oldest answer once it is here; never while there is none.
fn poll_oldest(outstanding: &mut VecDeque<Reply>, context: &mut Context<'_>) -> Poll<Answer> {
    match outstanding.front_mut() {
        None => Poll::Pending,
        Some(Reply::Now(_)) => match outstanding.pop_front() {
            Some(Reply::Now(answer)) => Poll::Ready(answer),
            _ => Poll::Pending,
        },
        Some(Reply::Later(answer) | Reply::Barrier(answer)) => {
            let answer = std::task::ready!(answer.as_mut().poll(context));
            outstanding.pop_front();
            Poll::Ready(answer)
        }
    }
}

/// Takes the length off a frame, whose segments stay where they are.
fn without_length(segments: Vec<Bytes>) -> Pieces {
    let mut frame = Pieces::from(segments);
    frame.skip(LENGTH_BYTES);
    frame
}
