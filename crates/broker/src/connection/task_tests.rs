//! Tests of the connection task over an in-memory stream, with a dispatcher that obeys the frames.

use bytes::Bytes;
use fleuve_os::{Disk, FileRange, OpenMode, OsDisk};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

impl Outlet for DuplexStream {}

/// Takes the first byte of a frame as an order and echoes the rest.
struct Obedient {
    parked: VecDeque<oneshot::Receiver<()>>,
    seen: Arc<AtomicUsize>,
    answered: Answered,
    standing: Standing,
}

impl Obedient {
    /// For a peer that is known, and frames that ask for no wait.
    fn unparked() -> Self {
        Self {
            parked: VecDeque::new(),
            seen: Arc::default(),
            answered: Answered::default(),
            standing: Standing::Known,
        }
    }
}

/// The first bytes of the answers that were sent, in their order.
type Answered = Arc<parking_lot::Mutex<Vec<i32>>>;

fn answer(body: &[u8]) -> Answer {
    let now = Instant::now();
    let receipt = Receipt {
        api: 0,
        version: 0,
        correlation_id: i32::from(body.first().copied().unwrap_or_default()),
        arrived: now,
        begun: now,
        throttled: Duration::ZERO,
        handled: now,
        ready: now,
        request_bytes: 0,
        response_bytes: body.len(),
    };
    let length = Bytes::copy_from_slice(&(body.len() as i32).to_be_bytes());
    Answer::Frame(vec![length.into(), Bytes::copy_from_slice(body).into()], Some(receipt))
}

impl Dispatch for Obedient {
    fn dispatch(&mut self, frame: Pieces, _: Instant) -> Reply {
        let frame = frame.into_bytes();
        self.seen.fetch_add(1, Ordering::SeqCst);
        let body = frame.slice(1..);
        match frame[0] {
            b'n' => Reply::Now(answer(&body)),
            b'l' | b'b' => {
                let parked = self.parked.pop_front().expect("the test parked one");
                let future = Box::pin(async move {
                    parked.await.expect("the test completes it");
                    answer(&body)
                });
                if frame[0] == b'l' { Reply::Later(future) } else { Reply::Barrier(future) }
            }
            b's' => Reply::Now(Answer::Silence),
            b'k' => {
                self.standing = Standing::Known;
                Reply::Now(answer(&body))
            }
            b'r' => {
                self.standing = Standing::Refused;
                let parked = self.parked.pop_front().expect("the test parked one");
                Reply::Barrier(Box::pin(async move {
                    parked.await.expect("the test completes it");
                    answer(&body)
                }))
            }
            _ => Reply::Now(Answer::Close(CloseReason::Malformed("an unknown order".to_owned()))),
        }
    }

    fn answered(&mut self, receipt: &Receipt, turn: Instant, sent: Instant) {
        assert!(receipt.ready <= turn && turn <= sent);
        self.answered.lock().push(receipt.correlation_id);
    }

    fn standing(&self) -> Standing {
        self.standing
    }
}

struct Harness {
    peer: DuplexStream,
    release: VecDeque<oneshot::Sender<()>>,
    seen: Arc<AtomicUsize>,
    answered: Answered,
    stop: watch::Sender<bool>,
    task: JoinHandle<CloseReason>,
}

const LIMITS: Limits = Limits {
    request_bytes_max: 1000,
    unauthenticated_bytes_max: 100,
    outstanding_max: 4,
    outstanding_bytes_max: 10_000,
    unwritten_bytes_max: 10_000,
    idle_max: Some(Duration::from_secs(600)),
    authentication_max: None,
    receive_max: None,
    send_max: None,
    drain_max: Duration::from_secs(2),
};

fn start(parked: usize, limits: Limits) -> Harness {
    start_as(Standing::Known, parked, limits)
}

fn start_as(standing: Standing, parked: usize, limits: Limits) -> Harness {
    let (peer, stream) = duplex(64 * 1024);
    let (release, parked): (VecDeque<_>, VecDeque<_>) =
        (0..parked).map(|_| oneshot::channel()).unzip();
    let seen = Arc::default();
    let answered = Answered::default();
    let dispatch =
        Obedient { parked, seen: Arc::clone(&seen), answered: Arc::clone(&answered), standing };
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(stream, dispatch, limits, stopped));
    Harness { peer, release, seen, answered, stop, task }
}

impl Harness {
    async fn send(&mut self, body: &[u8]) {
        self.peer.write_i32(body.len() as i32).await.expect("open");
        self.peer.write_all(body).await.expect("open");
    }

    async fn receive(&mut self) -> Vec<u8> {
        let length = self.peer.read_i32().await.expect("open");
        let mut body = vec![0; length as usize];
        self.peer.read_exact(&mut body).await.expect("open");
        body
    }

    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn answers_keep_the_order_of_the_requests() {
    let mut harness = start(2, LIMITS);
    for body in [&b"lfirst"[..], b"nsecond", b"lthird", b"snone", b"nfourth"] {
        harness.send(body).await;
    }
    harness.settle().await;
    // The last is beyond the four that may be outstanding.
    assert_eq!(harness.seen(), 4);
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    harness.settle().await;
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    for body in [&b"first"[..], b"second", b"third", b"fourth"] {
        assert_eq!(harness.receive().await, body);
    }
    assert_eq!(harness.seen(), 5);
    let answered = harness.answered.lock().clone();
    assert_eq!(answered, b"fstf".map(i32::from), "each was told of once, in their order");
}

#[tokio::test]
async fn frames_are_small_until_the_peer_is_known() {
    let mut harness = start_as(Standing::Unknown, 0, LIMITS);
    harness.send(b"known").await;
    assert_eq!(harness.receive().await, b"nown");
    harness.send(&[b'n'; 1000]).await;
    assert_eq!(harness.receive().await.len(), 999);

    let mut harness = start_as(Standing::Unknown, 0, LIMITS);
    harness.send(&[b'n'; 101]).await;
    let reason = harness.task.await.expect("no panic");
    assert!(matches!(reason, CloseReason::Frame(FrameError::TooLarge { limit: 100, .. })));
}

#[tokio::test]
async fn who_is_refused_is_told_so_and_nothing_more() {
    let mut harness = start_as(Standing::Unknown, 1, LIMITS);
    harness.send(b"refused").await;
    harness.send(b"nmore").await;
    harness.settle().await;
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    assert_eq!(harness.receive().await, b"efused");
    let reason = harness.task.await.expect("no panic");
    assert!(matches!(reason, CloseReason::Refused), "{reason}");
    assert_eq!(
        harness.peer.read_i32().await.map_err(|error| error.kind()),
        Err(io::ErrorKind::UnexpectedEof)
    );
}

/// Somebody who has just read that they are refused.
async fn refused() -> Harness {
    let mut harness = start_as(Standing::Unknown, 1, LIMITS);
    harness.send(b"refused").await;
    harness.settle().await;
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    assert_eq!(harness.receive().await, b"efused");
    harness
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_has_time_to_read_so_before_the_end() {
    let mut harness = refused().await;
    let told = tokio::time::Instant::now();
    harness.peer.write_all(b"and on").await.expect("open");
    assert!(harness.peer.read_i32().await.is_err(), "nothing more is said");
    assert_eq!(told.elapsed(), LINGER);
    assert!(matches!(harness.task.await, Ok(CloseReason::Refused)));
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_and_goes_is_not_waited_for() {
    let harness = refused().await;
    let told = tokio::time::Instant::now();
    drop(harness.peer);
    assert!(matches!(harness.task.await, Ok(CloseReason::Refused)));
    assert!(told.elapsed() < LINGER);
}

#[tokio::test]
async fn nothing_is_handled_behind_a_barrier() {
    let mut harness = start(1, LIMITS);
    harness.send(b"bfirst").await;
    harness.send(b"nsecond").await;
    harness.settle().await;
    assert_eq!(harness.seen(), 1);
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    assert_eq!(harness.receive().await, b"first");
    assert_eq!(harness.receive().await, b"second");
}

#[tokio::test]
async fn a_peer_that_goes_away_ends_the_task_even_while_answers_are_awaited() {
    let mut harness = start(1, LIMITS);
    harness.send(b"lfirst").await;
    harness.settle().await;
    drop(harness.peer);
    assert!(matches!(harness.task.await, Ok(CloseReason::Peer)));
    assert!(harness.release[0].is_closed(), "the waiting answer was dropped");
}

#[tokio::test]
async fn a_refused_request_closes_the_connection_after_the_answers_before_it() {
    let mut harness = start(0, LIMITS);
    harness.send(b"nfirst").await;
    assert_eq!(harness.receive().await, b"first");
    harness.send(b"?").await;
    assert!(matches!(harness.task.await, Ok(CloseReason::Malformed(_))));
}

#[tokio::test]
async fn an_oversized_frame_closes_the_connection() {
    let mut harness = start(0, LIMITS);
    harness.peer.write_i32(1001).await.expect("open");
    let reason = harness.task.await.expect("ends");
    assert!(matches!(reason, CloseReason::Frame(FrameError::TooLarge { .. })), "{reason:?}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_from_either() {
    let limits = Limits { unwritten_bytes_max: 1000, ..LIMITS };
    let mut harness = start(0, limits);
    let mut sent = 0;
    // 64 KiB fit into the stream towards the peer, 64 KiB into the stream towards the task.
    let body = [b'n'; 900];
    while tokio::time::timeout(Duration::from_millis(50), harness.send(&body)).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "the task reads without end");
    }
    assert!(harness.seen() < 100, "{} requests were taken", harness.seen());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_connection_and_an_awaited_answer_keeps_it() {
    let harness = start(0, LIMITS);
    let begun = tokio::time::Instant::now();
    assert!(matches!(harness.task.await, Ok(CloseReason::Idle)));
    assert!(begun.elapsed() >= Duration::from_secs(600));

    let mut harness = start(1, LIMITS);
    harness.send(b"lfirst").await;
    tokio::time::sleep(Duration::from_secs(1200)).await;
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    assert_eq!(harness.receive().await, b"first");
    assert!(matches!(harness.task.await, Ok(CloseReason::Idle)));
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_awaited_answers_but_not_for_ever() {
    let mut harness = start(1, LIMITS);
    harness.send(b"lfirst").await;
    harness.settle().await;
    harness.stop.send_replace(true);
    harness.settle().await;
    harness.release.pop_back().expect("parked").send(()).expect("awaited");
    assert_eq!(harness.receive().await, b"first");
    assert!(matches!(harness.task.await, Ok(CloseReason::Shutdown)));

    let mut harness = start(1, LIMITS);
    harness.send(b"lfirst").await;
    harness.settle().await;
    let begun = tokio::time::Instant::now();
    harness.stop.send_replace(true);
    assert!(matches!(harness.task.await, Ok(CloseReason::Shutdown)));
    assert_eq!(begun.elapsed().as_secs(), 2);
}

/// Keeps what is written until it is flushed for the second time, as TLS does over a full socket.
struct Reluctant {
    inner: DuplexStream,
    held: Vec<u8>,
    was_asked: bool,
}

impl Outlet for Reluctant {}

impl AsyncRead for Reluctant {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Reluctant {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.held.is_empty() && !this.was_asked {
            this.was_asked = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        while !this.held.is_empty() {
            let written = Pin::new(&mut this.inner).poll_write(context, &this.held);
            let written = std::task::ready!(written)?;
            this.held.drain(..written);
        }
        this.was_asked = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_stream_that_holds_bytes_back_is_flushed_until_it_gives_them() {
    let (mut peer, inner) = duplex(64 * 1024);
    let (_stop, stopped) = watch::channel(false);
    let stream = Reluctant { inner, held: Vec::new(), was_asked: false };
    tokio::spawn(serve(stream, Obedient::unparked(), LIMITS, stopped));
    peer.write_all(b"\0\0\0\x02na").await.expect("open");
    let mut answer = [0; 5];
    let read = tokio::time::timeout(Duration::from_secs(30), peer.read_exact(&mut answer)).await;
    read.expect("the answer is not held back").expect("open");
    assert_eq!(&answer, b"\0\0\0\x01a");
}

/// Gives nothing before as much as expected is there, as sockets do.
struct Patient {
    inner: DuplexStream,
    there: Vec<u8>,
    expected: AtomicUsize,
    waiting: parking_lot::Mutex<Option<std::task::Waker>>,
}

impl Outlet for Patient {
    fn expect(&self, _: &mut ReadableAt, missing: usize) -> io::Result<()> {
        self.expected.store(missing.max(1), Ordering::SeqCst);
        if self.there.len() >= missing.max(1) {
            self.waiting.lock().take().inspect(|waker| waker.wake_by_ref());
        }
        Ok(())
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut space = [0; 4096];
        let mut come = tokio::io::ReadBuf::new(&mut space);
        while Pin::new(&mut this.inner).poll_read(context, &mut come)?.is_ready() {
            if come.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.there.extend_from_slice(come.filled());
            come.clear();
        }
        if this.there.len() < this.expected.load(Ordering::SeqCst) {
            *this.waiting.lock() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = this.there.len().min(buffer.remaining());
        buffer.put_slice(&this.there.drain(..count).collect::<Vec<u8>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_quickly_at_first_and_then_slowly_is_not_cut_off() {
    const FRAME_BYTES: usize = 200_000;
    let limits = Limits {
        request_bytes_max: FRAME_BYTES,
        receive_max: Some(Duration::from_secs(30)),
        ..LIMITS
    };
    let (mut peer, inner) = duplex(1 << 20);
    let (_stop, stopped) = watch::channel(false);
    let stream =
        Patient { inner, there: Vec::new(), expected: 1.into(), waiting: Default::default() };
    let task = tokio::spawn(serve(stream, Obedient::unparked(), limits, stopped));
    let mut frame = (FRAME_BYTES as u32).to_be_bytes().to_vec();
    frame.resize(4 + FRAME_BYTES, b'n');
    let (quick, slow) = frame.split_at(60_000);
    peer.write_all(quick).await.expect("open");
    // Half as fast again as anybody has to be.
    for part in slow.chunks(1536) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.write_all(part).await.expect("open");
    }
    let mut answer = vec![0; 4 + FRAME_BYTES - 1];
    peer.read_exact(&mut answer).await.expect("an answer");
    drop(peer);
    assert!(matches!(task.await, Ok(CloseReason::Peer)));
}

/// Answers every frame with the middle of a file between two pieces of memory.
struct Librarian {
    pieces: Vec<Piece>,
    failures: Arc<AtomicUsize>,
}

impl Dispatch for Librarian {
    fn dispatch(&mut self, _: Pieces, _: Instant) -> Reply {
        Reply::Now(Answer::Frame(self.pieces.clone(), None))
    }

    fn disk_failed(&mut self, _: &DiskError) {
        self.failures.fetch_add(1, Ordering::SeqCst);
    }

    fn answered(&mut self, _: &Receipt, _: Instant, _: Instant) {}
}

/// Large enough to fill sockets' buffers, so that it goes out in several steps.
const SHELF_BYTES: usize = 9_000_000;

fn librarian() -> (Librarian, Vec<u8>) {
    let content: Vec<u8> = (0..SHELF_BYTES).map(|index| (index % 251) as u8).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, &content).expect("written");
    let file = OsDisk::new().open(&path, OpenMode::Read).expect("there");
    let middle = Piece::File(FileRange::new(file, 1000, SHELF_BYTES - 2000));
    let edge = |bytes: &'static [u8]| Piece::Memory(Bytes::from_static(bytes));
    let expected = [b"before", &content[1000..SHELF_BYTES - 1000], b"after"].concat();
    let pieces = vec![edge(b"before"), middle, edge(b"after")];
    (Librarian { pieces, failures: Arc::default() }, expected)
}

async fn read_answers(peer: &mut (impl AsyncRead + AsyncWrite + Unpin), expected: &[u8]) {
    for _ in 0..2 {
        peer.write_all(b"\0\0\0\x01n").await.expect("open");
    }
    for _ in 0..2 {
        let mut received = vec![0; expected.len()];
        peer.read_exact(&mut received).await.expect("open");
        assert!(received == expected, "the bytes differ");
    }
}

#[tokio::test]
async fn a_file_is_read_for_a_stream_that_takes_none() {
    let (librarian, expected) = librarian();
    let (mut peer, stream) = duplex(64 * 1024);
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(stream, librarian, LIMITS, stopped));
    read_answers(&mut peer, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sent_through_a_socket() {
    let (librarian, expected) = librarian();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut peer, (stream, _)) = (peer.expect("there"), accepted.expect("called"));
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(stream, librarian, LIMITS, stopped));
    read_answers(&mut peer, &expected).await;
}

/// The file of an answer that has begun turns out to be shorter than it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_sent_is_the_disks_fault_and_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, b"short").expect("written");
    let file = OsDisk::new().open(&path, OpenMode::Read).expect("there");
    let pieces = vec![Piece::File(FileRange::new(file, 0, 1000))];
    let failures = Arc::<AtomicUsize>::default();
    let (_stop, stopped) = watch::channel(false);

    let librarian = Librarian { pieces: pieces.clone(), failures: Arc::clone(&failures) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut peer, (stream, _)) = (peer.expect("there"), accepted.expect("called"));
    peer.write_all(b"\0\0\0\x01n").await.expect("open");
    let reason = serve(stream, librarian, LIMITS, stopped.clone()).await;
    assert!(matches!(reason, CloseReason::Disk(_)), "by the system: {reason:?}");

    let librarian = Librarian { pieces, failures: Arc::clone(&failures) };
    let (mut peer, stream) = duplex(64 * 1024);
    peer.write_all(b"\0\0\0\x01n").await.expect("open");
    let reason = serve(stream, librarian, LIMITS, stopped).await;
    assert!(matches!(reason, CloseReason::Disk(_)), "by reading: {reason:?}");
    assert_eq!(failures.load(Ordering::SeqCst), 2);
}

/// Answers one frame and then reads nothing for an hour, as for a quota.
struct Silenced {
    until: Option<Instant>,
}

impl Dispatch for Silenced {
    fn dispatch(&mut self, _: Pieces, _: Instant) -> Reply {
        self.until = Some(Instant::now() + Duration::from_secs(3600));
        Reply::Now(Answer::Silence)
    }

    fn answered(&mut self, _: &Receipt, _: Instant, _: Instant) {}

    fn muted_until(&self) -> Option<Instant> {
        self.until
    }
}

/// Serves a peer that does something after its first frame.
async fn serve_silenced(then: impl FnOnce(TcpStream) -> Option<TcpStream>) -> CloseReason {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut peer, (stream, _)) = (peer.expect("there"), accepted.expect("called"));
    let (_stop, stopped) = watch::channel(false);
    let limits = Limits { receive_max: Some(Duration::from_millis(100)), ..LIMITS };
    let task = tokio::spawn(serve(stream, Silenced { until: None }, limits, stopped));
    // The second frame stays unread.
    peer.write_all(b"\0\0\0\x01n\0\0\0\x01n").await.expect("open");
    let _kept = then(peer);
    let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
    ended.expect("it does not stay for an hour").expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_has_gone_is_noticed_while_it_is_not_read_from() {
    let (reset, closed) = tokio::join!(
        serve_silenced(|peer| {
            // A reset instead of an orderly end.
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket");
            None
        }),
        serve_silenced(|peer| {
            socket2::SockRef::from(&peer).shutdown(std::net::Shutdown::Write).expect("a socket");
            Some(peer)
        }),
    );
    assert!(matches!(reset, CloseReason::Peer), "{reset:?}");
    assert!(matches!(closed, CloseReason::Peer), "{closed:?}");
}
