//! Simulated disk, clock and randomness: a world that fails on command and repeats from a seed.
//!
//! Test only. The same sequence of calls with the same seed gives the same crash, byte for byte.

mod clock;
mod disk;
mod random;

pub use clock::SimClock;
pub use disk::{Crash, Effect, Fault, HeldSyncs, Operation, SimDisk};
pub use random::SimRandom;
