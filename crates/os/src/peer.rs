//! What the other end of a socket has done, for who does not read from it just now.

use std::os::fd::BorrowedFd;

/// What the other end of a connection has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It is there.
    Open,
    /// It has sent its last byte, and may still take some.
    Finished,
    /// It is gone: nothing can be sent to it.
    Gone,
}

impl PeerState {
    /// Looks at a socket without reading from it.
    #[cfg(target_os = "linux")]
    pub fn of(socket: BorrowedFd<'_>) -> Self {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
        if poll(&mut asked, Some(&now)).is_err() {
            return Self::Open;
        }
        let found = asked[0].revents();
        if found.intersects(PollFlags::HUP | PollFlags::ERR) {
            Self::Gone
        } else if found.contains(PollFlags::RDHUP) {
            Self::Finished
        } else {
            Self::Open
        }
    }

    /// Other systems do not tell; the connection ends when it is read from again.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_socket: BorrowedFd<'_>) -> Self {
        Self::Open
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn it_is_seen_who_has_finished_and_who_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut near = TcpStream::connect(address).expect("listening");
        let (mut far, _) = listener.accept().expect("called");
        near.write_all(b"unread").expect("open");
        assert_eq!(PeerState::of(far.as_fd()), PeerState::Open);
        near.shutdown(Shutdown::Write).expect("open");
        while PeerState::of(far.as_fd()) == PeerState::Open {
            std::thread::yield_now();
        }
        assert_eq!(PeerState::of(far.as_fd()), PeerState::Finished);
        // Whoever closes with bytes unread sends a reset.
        far.write_all(b"nobody reads this").expect("open");
        while near.peek(&mut [0]).expect("open") == 0 {
            std::thread::yield_now();
        }
        drop(near);
        while PeerState::of(far.as_fd()) != PeerState::Gone {
            std::thread::yield_now();
        }
    }
}
