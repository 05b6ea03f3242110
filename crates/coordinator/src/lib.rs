//! Group coordination as pure machines.
