//! Many members.
