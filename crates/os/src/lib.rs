//! The world as traits: clock, randomness and disk, with their real versions.
