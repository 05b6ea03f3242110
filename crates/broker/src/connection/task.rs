//! The task of one connection.
//!
//! Each turn takes every whole frame that has arrived, hands it to the dispatcher, and then waits
//! for whichever comes first: the oldest outstanding answer, room to write, bytes to read, the
//! end of the broker or the idle limit. An answer that must wait (an acknowledgement that awaits
//! a flush, a long poll) is a future in a queue; requests behind it are handled meanwhile, and
//! their answers wait for its turn, because Kafka's clients match answers by order.
//!
//! Everything is bounded: once too many requests or bytes are outstanding, or the peer does not
//! take its answers, the task stops reading and the peer's own socket buffer fills up.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fleuve_os::{DiskError, PeerState, Piece, ReadableAt};
use fleuve_protocol::Pieces;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};

use super::budget::SMALL_BYTES_MAX;
use super::outlet::{Outlet, SENT_AT_ONCE_MAX, is_of_file};
use super::{Budget, FrameBuffer, FrameError, Share};
use crate::metrics::Receipt;
use crate::partition::may_block_in_place;

/// Slices handed to one vectored write; Linux takes up to 1024.
const WRITE_SLICES_MAX: usize = 64;
/// Read of a file at once, where the system cannot send from it.
const FILE_CHUNK_BYTES: usize = 256 << 10;
/// Bytes a second at which a request has to arrive once its time is up.
const RECEIVE_PACE_MIN: u64 = 1024;

/// A peer that sends so much at once is waited for until most of its request is there.
const BRISK_READ_BYTES: usize = 16 << 10;
/// The timer is not looked at more often than this.
const SOONEST: Duration = Duration::from_millis(100);

/// How often it is looked whether a peer that is not read from is still there.
const PEER_LOOK: Duration = Duration::from_secs(5);

/// Where the frames of a connection go.
pub(crate) trait Dispatch: Send {
    /// Handles one request frame, which was complete at `arrived`.
    fn dispatch(&mut self, frame: Pieces, arrived: Instant) -> Reply;

    /// Hears that an answer began to be sent at `turn` and is out of our hands at `sent`.
    fn answered(&mut self, receipt: &Receipt, turn: Instant, sent: Instant);

    /// Tells whether it is known who is at the other end.
    fn standing(&self) -> Standing {
        Standing::Known
    }

    /// The memory that all connections' requests share.
    fn budget(&self) -> Option<&Arc<Budget>> {
        None
    }

    /// Hears that the rest of an answer could not be read.
    fn disk_failed(&mut self, _error: &DiskError) {}

    /// Hears that bytes went in or out.
    fn active(&mut self, _now: Instant) {}

    /// Until when nothing may be read, because the client has used more than it may.
    fn muted_until(&self) -> Option<Instant> {
        None
    }
}

/// How far a connection has come in saying who it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not said; its frames are small.
    Unknown,
    /// It is known, or need not be.
    Known,
    /// It is not who it said; what it was told is the last thing it hears.
    Refused,
}

/// What became of a request.
pub(crate) enum Reply {
    /// The answer is here.
    Now(Answer),
    /// The answer comes later. The request has already taken effect as far as order matters.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// The answer comes later, and no later request of this connection may be handled before.
    Barrier(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// How a request ends.
#[derive(Debug)]
pub(crate) enum Answer {
    /// These pieces make up the response frame, its length included.
    Frame(Vec<Piece>, Option<Receipt>),
    /// The client expects no answer.
    Silence,
    /// The connection must end without an answer.
    Close(CloseReason),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the peer closed it")]
    Peer,
    #[error("the peer closed it in the middle of a frame")]
    PeerWithinFrame,
    #[error("the socket failed: {0}")]
    Socket(io::Error),
    #[error("the rest of an answer cannot be read: {0}")]
    Disk(#[from] DiskError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("a request without acknowledgement failed: {0}")]
    Unacknowledged(String),
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    #[error("it did not authenticate first")]
    Unauthenticated,
    #[error("authentication failed")]
    Refused,
    #[error("its session was over, and it did not authenticate again")]
    SessionOver,
    #[error("it was idle")]
    Idle,
    #[error("it took too long to say who it is")]
    AuthenticationLate,
    #[error("it took too long to send a request")]
    SendsSlowly,
    #[error("it took too long to take its answers")]
    TakesSlowly,
    #[error("the broker is shutting down")]
    Shutdown,
}

impl CloseReason {
    /// What [`Self::name`] returns.
    pub(crate) const NAMES: [&str; 17] = [
        "peer",
        "socket",
        "disk",
        "frame_too_large",
        "frame_negative",
        "malformed",
        "unsupported",
        "unacknowledged",
        "handshake",
        "unauthenticated",
        "authentication_failed",
        "session_over",
        "idle",
        "authentication_late",
        "sends_slowly",
        "takes_slowly",
        "shutdown",
    ];

    /// Names the reason for those who count.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Peer | Self::PeerWithinFrame => "peer",
            Self::Socket(_) => "socket",
            Self::Disk(_) => "disk",
            Self::Frame(FrameError::TooLarge { .. }) => "frame_too_large",
            Self::Frame(FrameError::Negative(_)) => "frame_negative",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Unacknowledged(_) => "unacknowledged",
            Self::Handshake(_) => "handshake",
            Self::Unauthenticated => "unauthenticated",
            Self::Refused => "authentication_failed",
            Self::SessionOver => "session_over",
            Self::Idle => "idle",
            Self::AuthenticationLate => "authentication_late",
            Self::SendsSlowly => "sends_slowly",
            Self::TakesSlowly => "takes_slowly",
            Self::Shutdown => "shutdown",
        }
    }

    /// Reports whether the peer did something that an operator may want to know of.
    pub(crate) fn is_peers_fault(&self) -> bool {
        matches!(
            self,
            Self::Frame(_) | Self::Malformed(_) | Self::Unsupported(_) | Self::Unauthenticated
        )
    }
}

/// What one connection may hold and how long it may stay silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Largest request frame.
    pub(crate) request_bytes_max: usize,
    /// Largest request frame before the peer is known.
    pub(crate) unauthenticated_bytes_max: usize,
    /// Requests that may await their answers.
    pub(crate) outstanding_max: usize,
    /// Request bytes that may await their answers.
    pub(crate) outstanding_bytes_max: usize,
    /// Answer bytes that may wait for the peer to take them.
    pub(crate) unwritten_bytes_max: usize,
    /// Silence after which the connection is closed; `None` for no limit.
    pub(crate) idle_max: Option<Duration>,
    /// How long it may take until it is known who the peer is.
    pub(crate) authentication_max: Option<Duration>,
    /// How long a request may take to arrive, besides what its bytes take at the least pace.
    pub(crate) receive_max: Option<Duration>,
    /// How long answers may wait without the peer taking a byte.
    pub(crate) send_max: Option<Duration>,
    /// How long outstanding answers may take once the broker shuts down.
    pub(crate) drain_max: Duration,
}

/// How long somebody who was refused may take to read so.
const LINGER: Duration = Duration::from_millis(200);

/// Serves one connection until it ends.
pub(crate) async fn serve<S, D>(
    stream: S,
    dispatch: D,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> CloseReason
where
    S: Outlet,
    D: Dispatch,
{
    let now = Instant::now();
    let share = dispatch.budget().map(Share::new);
    let mut connection = Connection {
        stream,
        share,
        opened: now,
        frame_began: None,
        is_charged: false,
        last_taken: now,
        dispatch,
        limits,
        frames: FrameBuffer::new(limits.request_bytes_max),
        outstanding: VecDeque::new(),
        outstanding_bytes: 0,
        barrier: false,
        unwritten: VecDeque::new(),
        unwritten_bytes: 0,
        receipts: VecDeque::new(),
        passed_bytes: 0,
        last_read: now,
        is_brisk: false,
        readable_at: ReadableAt::default(),
        last_active: now,
        unflushed: false,
        draining: false,
        refused: false,
        muted_until: None,
        peer_look: None,
        peer_finished: None,
    };
    let Err(reason) = connection.run(shutdown).await;
    if let CloseReason::Disk(error) = &reason {
        connection.dispatch.disk_failed(error);
    }
    if matches!(reason, CloseReason::Refused) {
        connection.linger().await;
    }
    reason
}

struct Connection<S, D> {
    /// When it is next looked whether the peer is there, while it is not read from.
    peer_look: Option<Instant>,
    /// Since when it has been known that the peer sends nothing more.
    peer_finished: Option<Instant>,
    stream: S,
    /// Its part of the memory for requests.
    share: Option<Share>,
    opened: Instant,
    /// Since when a request has been arriving.
    frame_began: Option<Instant>,
    /// Whether the request that is arriving has room in the budget.
    is_charged: bool,
    /// When the peer last took bytes, or had none to take.
    last_taken: Instant,
    dispatch: D,
    limits: Limits,
    frames: FrameBuffer,
    outstanding: VecDeque<Outstanding>,
    outstanding_bytes: usize,
    barrier: bool,
    unwritten: VecDeque<Piece>,
    unwritten_bytes: usize,
    /// Answers not yet written to their end.
    receipts: VecDeque<Unsent>,
    /// Bytes that were ever written.
    passed_bytes: u64,
    last_read: Instant,
    /// Whether that brought much.
    is_brisk: bool,
    /// From how many bytes on the stream is read.
    readable_at: ReadableAt,
    last_active: Instant,
    /// Whether the stream may hold back written bytes.
    unflushed: bool,
    draining: bool,
    /// Whether it drains because the peer is not who it said.
    refused: bool,
    /// Until when nothing is read.
    muted_until: Option<Instant>,
}

/// An answer on its way out.
struct Unsent {
    /// How many bytes have passed when its last one has.
    end: u64,
    turn: Instant,
    receipt: Receipt,
}

struct Outstanding {
    answer: Awaited,
    request_bytes: usize,
}

enum Awaited {
    Here(Answer),
    Coming(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

enum Event {
    Progress,
    Timer,
    Shutdown,
}

/// The type of a loop that only ends with a reason.
enum Never {}

impl<S, D> Connection<S, D>
where
    S: Outlet,
    D: Dispatch,
{
    async fn run(&mut self, mut shutdown: watch::Receiver<bool>) -> Result<Never, CloseReason> {
        let mut timer = pin!(sleep_until(self.deadline().into()));
        let mut stop = pin!(async move {
            // The sender going away means the broker is gone.
            let _ = shutdown.wait_for(|stop| *stop).await;
        });
        loop {
            self.take_frames()?;
            self.watch_frame();
            if self.is_drained() {
                return Err(if self.refused {
                    CloseReason::Refused
                } else {
                    CloseReason::Shutdown
                });
            }
            let event =
                poll_fn(|context| self.poll_event(context, timer.as_mut(), stop.as_mut())).await?;
            match event {
                Event::Progress => {
                    // Gives the other connections of this thread their turn under steady load.
                    tokio::task::coop::consume_budget().await;
                }
                Event::Shutdown => {
                    self.draining = true;
                    timer.as_mut().reset(tokio::time::Instant::now() + self.limits.drain_max);
                }
                Event::Timer if self.draining => return Err(CloseReason::Shutdown),
                Event::Timer if self.is_brisk => {
                    // What has come and was not worth waking for counts before anybody is called slow.
                    self.is_brisk = false;
                    self.expect(0)?;
                    timer.as_mut().reset(tokio::time::Instant::now() + SOONEST);
                }
                Event::Timer => {
                    // The timer is not moved at every byte; it looks again when it fires.
                    let now = tokio::time::Instant::now();
                    self.look_for_peer(now.into_std())?;
                    if let Some(reason) = self.overdue(now.into_std()) {
                        return Err(reason);
                    }
                    let deadline = tokio::time::Instant::from_std(self.deadline());
                    timer.as_mut().reset(deadline.max(now + SOONEST));
                }
            }
        }
    }

    /// Leaves time between the last answer and the end of the connection, unless the peer ends it. Clients that find
    /// both at once may take the one for the other (kafka-python drops what came just before an end), and what
    /// somebody sends behind our end would make the system take the answer back.
    async fn linger(&mut self) {
        let mut ignored = [0; 256];
        let peer_ends =
            async { while self.stream.read(&mut ignored).await.is_ok_and(|count| count > 0) {} };
        // Who sends on and on is not waited for.
        let _ = tokio::time::timeout(LINGER, peer_ends).await;
    }

    /// Hands every whole frame to the dispatcher, as far as the limits allow.
    fn take_frames(&mut self) -> Result<(), CloseReason> {
        self.look_whether_muted();
        while self.may_take_more() {
            self.frames.set_limit(match self.dispatch.standing() {
                Standing::Known => self.limits.request_bytes_max,
                Standing::Unknown | Standing::Refused => self.limits.unauthenticated_bytes_max,
            });
            let Some(frame) = self.frames.next_frame()? else { break };
            (self.frame_began, self.is_charged) = (None, false);
            let request_bytes = frame.len();
            let reply = self.dispatch.dispatch(frame.into(), self.last_read);
            self.look_whether_muted();
            if self.dispatch.standing() == Standing::Refused {
                // What it is told now is the last thing.
                (self.draining, self.refused) = (true, true);
            }
            let answer = match reply {
                Reply::Now(answer) if self.outstanding.is_empty() => {
                    self.finish(answer, None)?;
                    continue;
                }
                Reply::Now(answer) => Awaited::Here(answer),
                Reply::Later(answer) => Awaited::Coming(answer),
                Reply::Barrier(answer) => {
                    self.barrier = true;
                    Awaited::Coming(answer)
                }
            };
            self.outstanding_bytes += request_bytes;
            self.outstanding.push_back(Outstanding { answer, request_bytes });
        }
        Ok(())
    }

    /// Notes whether a request is arriving, and charges its memory.
    fn watch_frame(&mut self) {
        if self.frames.is_empty() || !self.may_take_more() {
            self.frame_began = None;
        } else if self.frame_began.is_none() {
            self.frame_began = Some(self.last_read);
        }
        if let Some(share) = &mut self.share {
            let arriving = self.frames.arriving().filter(|_| self.is_charged).unwrap_or(0);
            let outstanding = self.outstanding_bytes.saturating_sub(SMALL_BYTES_MAX);
            share.hold(arriving + outstanding);
        }
    }

    /// Waits for room before it reads on into a large request.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(share) = &mut self.share else { return Poll::Ready(()) };
        let arriving = self.frames.arriving().filter(|size| *size > SMALL_BYTES_MAX);
        if let (Some(size), false) = (arriving, self.is_charged) {
            std::task::ready!(share.poll_room(context));
            share.hold(size + self.outstanding_bytes.saturating_sub(SMALL_BYTES_MAX));
            self.is_charged = true;
        }
        Poll::Ready(())
    }

    fn look_whether_muted(&mut self) {
        self.muted_until = self.dispatch.muted_until();
        if let Some(until) = self.muted_until {
            // Who is silenced is not idle.
            self.last_active = self.last_active.max(until);
        }
    }

    /// Reports whether everything is said that was to be said before the end.
    fn is_drained(&self) -> bool {
        self.draining && self.outstanding.is_empty() && self.unwritten.is_empty() && !self.unflushed
    }

    fn may_take_more(&self) -> bool {
        !self.draining
            && !self.barrier
            && self.muted_until.is_none()
            && self.outstanding.len() < self.limits.outstanding_max
            && self.outstanding_bytes < self.limits.outstanding_bytes_max
            && self.unwritten_bytes < self.limits.unwritten_bytes_max
    }

    fn poll_event(
        &mut self,
        context: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Result<Event, CloseReason>> {
        let mut progress = false;
        let could_take_more = self.may_take_more();
        self.poll_answers(context)?;
        self.look_whether_muted();
        self.watch_frame();
        self.poll_write(context)?;
        if self.draining || self.may_take_more() {
            (self.peer_look, self.peer_finished) = (None, None);
        } else if self.peer_look.is_none() {
            self.peer_look = Some(Instant::now() + PEER_LOOK);
        }
        if !self.draining {
            let deadline = self.deadline();
            let next = self.muted_until.map_or(deadline, |until| until.min(deadline));
            if timer.deadline() > next.into() {
                timer.as_mut().reset(next.into());
            }
        }
        if self.may_take_more() {
            // Frames may have been left lying when a limit was reached.
            progress |= !could_take_more && !self.frames.is_empty();
            if self.poll_room(context).is_pending() {
                // Waiting for us is not slow.
                self.last_read = Instant::now();
                self.frame_began = None;
            } else if self.poll_read(context)?.is_ready() {
                progress = true;
            }
        }
        if progress {
            return Poll::Ready(Ok(Event::Progress));
        }
        if !self.draining && stop.poll(context).is_ready() {
            return Poll::Ready(Ok(Event::Shutdown));
        }
        if self.is_drained() {
            return Poll::Ready(Ok(Event::Progress));
        }
        if timer.poll(context).is_ready() {
            return Poll::Ready(Ok(Event::Timer));
        }
        Poll::Pending
    }

    /// Moves answers that have come from the head of the queue to the bytes to write.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        while let Some(oldest) = self.outstanding.front_mut() {
            let mut turn = Some(Instant::now());
            if let Awaited::Coming(answer) = &mut oldest.answer {
                match answer.as_mut().poll(context) {
                    Poll::Ready(answer) => oldest.answer = Awaited::Here(answer),
                    Poll::Pending => return Ok(()),
                }
                // It became ready just now, and has waited for none before it.
                turn = None;
            }
            let oldest = self.outstanding.pop_front().expect("the head was just looked at");
            self.outstanding_bytes -= oldest.request_bytes;
            if let Awaited::Here(answer) = oldest.answer {
                self.finish(answer, turn)?;
            }
        }
        // A barrier is always the last in the queue.
        self.barrier = false;
        Ok(())
    }

    /// Puts an answer in line to be written; its turn came when it was ready if not at `turn`.
    fn finish(&mut self, answer: Answer, turn: Option<Instant>) -> Result<(), CloseReason> {
        match answer {
            Answer::Frame(pieces, receipt) => {
                for piece in pieces {
                    if !piece.is_empty() {
                        if self.unwritten.is_empty() {
                            self.last_taken = Instant::now();
                        }
                        self.unwritten_bytes += piece.len();
                        self.unwritten.push_back(piece);
                    }
                }
                if let Some(receipt) = receipt {
                    let end = self.passed_bytes + self.unwritten_bytes as u64;
                    let turn = turn.unwrap_or(receipt.ready);
                    self.receipts.push_back(Unsent { end, turn, receipt });
                }
                Ok(())
            }
            Answer::Silence => Ok(()),
            Answer::Close(reason) => Err(reason),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        while let Some(head) = self.unwritten.front_mut() {
            let polled = match head {
                Piece::Memory(_) => self.poll_write_memory(context),
                Piece::File(range) => {
                    let stream = &self.stream;
                    // Whether the file is in memory is asked only when it can be sent.
                    let sent = match stream.poll_file_ready(context) {
                        Some(Poll::Pending) => return Ok(()),
                        Some(Poll::Ready(Err(error))) => return Err(CloseReason::Socket(error)),
                        Some(Poll::Ready(Ok(()))) => {
                            let is_quick = range.is_cached(SENT_AT_ONCE_MAX);
                            let mut send = || stream.poll_send_file(context, range);
                            if is_quick { send() } else { in_place(send) }
                        }
                        None => None,
                    };
                    match sent {
                        Some(Poll::Ready(Err(error))) if is_of_file(&error) => {
                            return Err(DiskError::new("send from", range.path(), error).into());
                        }
                        Some(polled) => polled,
                        None => {
                            let is_quick = range.is_cached(FILE_CHUNK_BYTES);
                            let read = || range.read(FILE_CHUNK_BYTES);
                            let chunk = if is_quick { read()? } else { in_place(read)? };
                            range.advance(chunk.len());
                            if range.is_empty() {
                                self.unwritten.pop_front();
                            }
                            self.unwritten.push_front(Piece::Memory(chunk));
                            continue;
                        }
                    }
                }
            };
            match polled {
                Poll::Ready(Ok(0)) => return Err(CloseReason::Peer),
                Poll::Ready(Ok(written)) => self.written(written),
                Poll::Ready(Err(error)) => return Err(CloseReason::Socket(error)),
                Poll::Pending => return Ok(()),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            // A TLS stream keeps bytes back until it is flushed, perhaps more than once; a plain
            // socket does nothing here.
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(CloseReason::Socket(error)),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn poll_write_memory(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.unwritten) {
            let Piece::Memory(bytes) = piece else { break };
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let stream = Pin::new(&mut self.stream);
        match self.unwritten.get(count) {
            Some(Piece::File(_)) => stream.poll_write_before_file(context, &slices[..count]),
            _ => stream.poll_write_vectored(context, &slices[..count]),
        }
    }

    fn written(&mut self, mut bytes: usize) {
        self.last_active = Instant::now();
        self.last_taken = self.last_active;
        self.dispatch.active(self.last_active);
        self.unwritten_bytes -= bytes;
        self.passed_bytes += bytes as u64;
        while let Some(unsent) = self.receipts.pop_front_if(|it| it.end <= self.passed_bytes) {
            self.dispatch.answered(&unsent.receipt, unsent.turn, self.last_active);
        }
        while bytes > 0 {
            let head = self.unwritten.front_mut().expect("only queued bytes are written");
            if bytes < head.len() {
                head.advance(bytes);
                return;
            }
            bytes -= head.len();
            self.unwritten.pop_front();
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, CloseReason> {
        let read = pin!(self.stream.read_buf(&mut self.frames.space())).poll(context);
        if let Poll::Ready(Ok(count)) = read {
            self.is_brisk = count >= BRISK_READ_BYTES;
        }
        match read {
            Poll::Ready(Ok(0)) if self.frames.is_empty() => Err(CloseReason::Peer),
            Poll::Ready(Ok(0)) => Err(CloseReason::PeerWithinFrame),
            Poll::Ready(Ok(_)) => {
                self.last_read = Instant::now();
                self.last_active = self.last_read;
                self.dispatch.active(self.last_read);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(CloseReason::Socket(error)),
            Poll::Pending => {
                self.expect(if self.is_brisk { self.frames.missing() } else { 0 })?;
                Ok(Poll::Pending)
            }
        }
    }

    /// Waits for `missing` bytes at once.
    fn expect(&mut self, missing: usize) -> Result<(), CloseReason> {
        self.stream.expect(&mut self.readable_at, missing).map_err(CloseReason::Socket)
    }

    fn deadline(&self) -> Instant {
        /// Stands for "never" without overflowing an instant.
        const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 3600);
        // Who waits for an answer of ours is not idle.
        let idle_max = self.limits.idle_max.filter(|_| self.outstanding.is_empty());
        let mut deadline = self.last_active + idle_max.unwrap_or(FAR_AWAY);
        if let (Some(most), Standing::Unknown) =
            (self.limits.authentication_max, self.dispatch.standing())
        {
            deadline = deadline.min(self.opened + most);
        }
        if let (Some(most), Some(began)) = (self.limits.receive_max, self.frame_began) {
            let pace = Duration::from_secs(self.frames.len() as u64 / RECEIVE_PACE_MIN);
            deadline = deadline.min(began + most + pace);
        }
        if let (Some(most), false) = (self.limits.send_max, self.unwritten.is_empty()) {
            deadline = deadline.min(self.last_taken + most);
        }
        if let Some(look) = self.peer_look {
            deadline = deadline.min(look);
        }
        deadline
    }

    /// Ends the connection if the peer is gone while it is not read from, as for a quota or because
    /// of what it has asked for already: nobody would notice until then, and whoever comes and
    /// goes could fill up the broker's descriptors. What a peer has sent before its end is still
    /// handled, unless that takes longer than a request may.
    fn look_for_peer(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.peer_look.is_none_or(|look| look > now) {
            return Ok(());
        }
        self.peer_look = Some(now + PEER_LOOK);
        match self.stream.peer_state() {
            PeerState::Open => Ok(()),
            PeerState::Gone => Err(CloseReason::Peer),
            PeerState::Finished => {
                let since = *self.peer_finished.get_or_insert(now);
                let is_late = self.limits.receive_max.is_some_and(|most| since + most <= now);
                if is_late { Err(CloseReason::Peer) } else { Ok(()) }
            }
        }
    }

    /// Says why the connection must end, if its time is up.
    fn overdue(&self, now: Instant) -> Option<CloseReason> {
        if self.deadline() > now {
            return None;
        }
        let has_passed =
            |since: Instant, most: Option<Duration>| most.is_some_and(|most| since + most <= now);
        if self.dispatch.standing() == Standing::Unknown
            && has_passed(self.opened, self.limits.authentication_max)
        {
            return Some(CloseReason::AuthenticationLate);
        }
        if !self.unwritten.is_empty() && has_passed(self.last_taken, self.limits.send_max) {
            return Some(CloseReason::TakesSlowly);
        }
        if self.frame_began.is_some_and(|began| has_passed(began, self.limits.receive_max)) {
            return Some(CloseReason::SendsSlowly);
        }
        let is_idle = has_passed(self.last_active, self.limits.idle_max);
        (is_idle && self.outstanding.is_empty()).then_some(CloseReason::Idle)
    }
}

/// Does work that may wait for a disk, without keeping the thread's other tasks waiting.
fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if may_block_in_place() { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
