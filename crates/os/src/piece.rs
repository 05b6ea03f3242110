//! Bytes to send, wherever they are: in memory, or still in a file.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::disk::{DiskResult, File};

/// A run of bytes on its way out.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes in memory.
    Memory(Bytes),
    /// Bytes of a file, which nobody has read yet.
    File(FileRange),
}

/// A part of a file that does not change any more.
#[derive(Clone)]
pub struct FileRange {
    file: Arc<dyn File>,
    position: u64,
    length: usize,
    /// So many of the first bytes were found in memory.
    cached: usize,
}

impl Piece {
    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(range) => range.length,
        }
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the first `count` bytes, of which there must be as many.
    pub fn advance(&mut self, count: usize) {
        match self {
            Self::Memory(bytes) => bytes.advance(count),
            Self::File(range) => range.advance(count),
        }
    }

    /// Returns all the bytes, read from the file if that is where they are.
    pub fn into_bytes(self) -> DiskResult<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes),
            Self::File(range) => range.read(range.length),
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl FileRange {
    /// Names `length` bytes of `file` from `position` on, all of which must be there.
    pub fn new(file: Arc<dyn File>, position: u64, length: usize) -> Self {
        Self { file, position, length, cached: 0 }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reports whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Guesses whether the first bytes, at most `most` of them, are to be had without waiting for the
    /// disk. Looks again only when half of what it has seen is gone: sockets take less at a time.
    pub fn is_cached(&mut self, most: usize) -> bool {
        let asked = self.length.min(most);
        if self.cached <= asked / 2 {
            self.cached = if self.file.is_cached(self.position, asked) { asked } else { 0 };
        }
        self.cached > 0
    }

    /// Reads the first bytes, at most `most` of them. A file that ends before is an error.
    pub fn read(&self, most: usize) -> DiskResult<Bytes> {
        self.file.read_exact_at(self.position, self.length.min(most))
    }

    /// Forgets the first `count` bytes, of which there must be as many.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.length, "{count} bytes of {}", self.length);
        self.position += count as u64;
        self.length -= count;
        self.cached = self.cached.saturating_sub(count);
    }

    /// Has the system send the first bytes through a socket and returns how many it took, at most
    /// `most`. `None` if it cannot do that for this file.
    pub fn send(&self, socket: BorrowedFd<'_>, most: usize) -> Option<io::Result<usize>> {
        send_file(socket, self.file.descriptor()?, self.position, self.length.min(most))
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.position + self.length as u64;
        write!(formatter, "{}[{}..{end}]", self.file.path().display(), self.position)
    }
}

/// Sends what stands in memory before bytes of a file, and lets the system keep it until those come:
/// on its own it would be a segment, and wake the peer for next to nothing.
pub fn send_before_file(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

    #[cfg(target_os = "linux")]
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
    #[cfg(not(target_os = "linux"))]
    let flags = SendFlags::empty();
    Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
}

#[cfg(target_os = "linux")]
fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    position: u64,
    length: usize,
) -> Option<io::Result<usize>> {
    let mut position = position;
    match rustix::fs::sendfile(socket, file, Some(&mut position), length) {
        // The file system or the kind of socket has no way to do it.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => None,
        Ok(0) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        sent => Some(sent.map_err(io::Error::from)),
    }
}

#[cfg(not(target_os = "linux"))]
fn send_file(
    _socket: BorrowedFd<'_>,
    _file: BorrowedFd<'_>,
    _position: u64,
    _length: usize,
) -> Option<io::Result<usize>> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Disk, OpenMode, OsDisk};

    fn file_of(content: &[u8]) -> (tempfile::TempDir, Arc<dyn File>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, content).expect("written");
        let file = OsDisk::new().open(&path, OpenMode::Read).expect("there");
        (folder, file)
    }

    #[test]
    fn a_range_is_read_in_steps() {
        let (_folder, file) = file_of(b"0123456789");
        let mut range = FileRange::new(file, 2, 6);
        assert_eq!(range.read(4).expect("there"), b"2345"[..]);
        range.advance(4);
        assert_eq!(range.read(4).expect("there"), b"67"[..]);
        assert_eq!(Piece::File(range).into_bytes().expect("there"), b"67"[..]);
    }

    #[test]
    fn a_range_beyond_the_end_is_an_error_and_not_less() {
        let (_folder, file) = file_of(b"0123456789");
        assert!(!file.is_cached(8, 6));
        assert!(FileRange::new(file, 8, 6).read(100).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_sends_a_range() {
        let (_folder, file) = file_of(b"0123456789");
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let range = FileRange::new(file, 3, 5);
        let sent = range.send(near.as_fd(), 4).expect("possible").expect("sent");
        drop(near);
        let mut received = Vec::new();
        far.read_to_end(&mut received).expect("open");
        assert!((1..=4).contains(&sent), "{sent}");
        assert_eq!(received, b"34567"[..sent]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_found_in_memory_is_looked_for_again_once_half_of_it_is_gone() {
        let (folder, file) = file_of(&[0; 1000]);
        let mut range = FileRange::new(file, 0, 1000);
        assert!(range.is_cached(100));
        // There is nothing to be found any more.
        std::fs::write(folder.path().join("file"), b"").expect("written");
        range.advance(40);
        assert!(range.is_cached(100), "60 of 100 have been seen");
        range.advance(20);
        assert!(!range.is_cached(100), "40 are too few");
    }
}
