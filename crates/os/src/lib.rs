//! The world as traits: clock, randomness and disk, with their real versions.
//!
//! Machines on the floors above take these traits as arguments and never call the operating system
//! themselves. That is what lets `fleuve-sim` replay a crash, a torn write, a full disk or a clock
//! jump from a seed. Nothing here knows Kafka.

mod clock;
mod disk;
mod os_disk;
mod peer;
mod piece;
mod random;
mod readable;

pub use clock::{Clock, SystemClock};
pub use disk::{Disk, DiskError, DiskLock, DiskResult, Entry, EntryKind, File, OpenMode};
pub use os_disk::OsDisk;
pub use peer::PeerState;
pub use piece::{FileRange, Piece, send_before_file};
pub use random::{OsRandom, Random};
pub use readable::ReadableAt;
