//! When a socket counts as readable.
//!
//! Whoever waits for a large frame is woken for every segment of it, and each time reads a part. A
//! system that is told how much is missing wakes once that much has come.

use std::io;
use std::os::fd::BorrowedFd;

/// Fewer bytes are read as they come: waiting for them would win nothing.
const BYTES_MIN: usize = 32 << 10;
/// More are read in parts, so that those in the cache are still there when they are read.
const BYTES_MAX: usize = 1 << 20;

/// How many bytes have to come before a stream socket counts as readable; one at first.
///
/// Its end and its failures are told at once all the same.
#[derive(Debug)]
pub struct ReadableAt {
    bytes: usize,
    /// So many are known to fit into the socket's buffer.
    fitting: usize,
}

impl Default for ReadableAt {
    fn default() -> Self {
        Self { bytes: 1, fitting: BYTES_MIN }
    }
}

impl ReadableAt {
    /// Lets `socket` be readable once most of `missing` bytes have come, which are sure to come
    /// unless it ends. To be called before waiting, when everything that had come is read.
    pub fn expect(&mut self, socket: BorrowedFd<'_>, missing: usize) -> io::Result<()> {
        let bytes = if missing < BYTES_MIN { 1 } else { missing.min(BYTES_MAX) };
        if bytes == self.bytes {
            return Ok(());
        }
        set(socket, bytes)?;
        self.bytes = bytes;
        if bytes > self.fitting {
            // Linux enlarges the buffer for it since 4.18; before that we would wait for ever. Half
            // of the buffer is for what the system keeps about the bytes.
            self.fitting = (buffer_bytes(socket)? / 2).clamp(1, bytes);
            if self.fitting < bytes {
                set(socket, self.fitting)?;
                self.bytes = self.fitting;
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn buffer_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(rustix::net::sockopt::socket_recv_buffer_size(socket)?)
}

#[cfg(not(target_os = "linux"))]
fn buffer_bytes(_socket: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(usize::MAX)
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no library has this option of sockets")]
fn set(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the system reads `size` bytes
    // at a pointer to a live integer of that size, which it does not keep. What it is worth is
    // measured by bench/clients.py: 1 KiB records consumed from one broker.
    let status = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, size)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Elsewhere every byte wakes.
#[cfg(not(target_os = "linux"))]
fn set(_socket: BorrowedFd<'_>, _bytes: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    const LARGE: usize = 100 << 10;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (far, _) = listener.accept().expect("called");
        (near, far)
    }

    /// Reports whether `socket` is readable now, or becomes so.
    fn is_readable(socket: &TcpStream, timeout_secs: i64) -> bool {
        let timeout = Timespec { tv_sec: timeout_secs, tv_nsec: 0 };
        let mut asked = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        poll(&mut asked, Some(&timeout)).expect("open") > 0
    }

    /// Waits until so many bytes have come, whether they make it readable or not.
    fn await_bytes(socket: &TcpStream, count: usize) {
        socket.set_nonblocking(true).expect("open");
        let mut bytes = vec![0; count];
        while socket.peek(&mut bytes).unwrap_or(0) < count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_part_of_what_is_expected_wakes_nobody_and_all_of_it_does() {
        let (mut near, mut far) = pair();
        let mut readable_at = ReadableAt::default();
        for round in 0..3 {
            readable_at.expect(far.as_fd(), LARGE).expect("open");
            near.write_all(&[1; 1000]).expect("open");
            await_bytes(&far, 1000);
            assert!(!is_readable(&far, 0), "in round {round}");
            near.write_all(&[2; LARGE - 1000]).expect("open");
            assert!(is_readable(&far, 60));
            far.set_nonblocking(false).expect("open");
            far.read_exact(&mut [0; LARGE]).expect("it has come");
            readable_at.expect(far.as_fd(), 0).expect("open");
            near.write_all(b"x").expect("open");
            assert!(is_readable(&far, 60), "a little is enough again");
            far.read_exact(&mut [0]).expect("it has come");
        }
    }

    #[test]
    fn more_than_fits_into_the_buffer_is_not_waited_for() {
        let (mut near, far) = pair();
        rustix::net::sockopt::set_socket_recv_buffer_size(&far, 64 << 10).expect("open");
        let mut readable_at = ReadableAt::default();
        readable_at.expect(far.as_fd(), 1 << 20).expect("open");
        assert!((BYTES_MIN..1 << 20).contains(&readable_at.bytes), "{readable_at:?}");
        near.set_nonblocking(true).expect("open");
        // As much as both buffers take, which is less than was expected.
        let mut written = 0;
        while written < 1 << 20 && !is_readable(&far, 0) {
            written += near.write(&[0; 10_000]).unwrap_or(0);
            std::thread::yield_now();
        }
        assert!(written < 1 << 20, "{written}");
    }

    #[test]
    fn what_has_come_before_and_the_end_are_told_at_once() {
        let (mut near, far) = pair();
        let mut readable_at = ReadableAt::default();
        readable_at.expect(far.as_fd(), LARGE).expect("open");
        near.write_all(&[1; 10]).expect("open");
        await_bytes(&far, 10);
        assert!(!is_readable(&far, 0));
        readable_at.expect(far.as_fd(), 10).expect("open");
        assert!(is_readable(&far, 0));
        readable_at.expect(far.as_fd(), LARGE).expect("open");
        near.shutdown(Shutdown::Write).expect("open");
        assert!(is_readable(&far, 60));
    }
}
