//! Listeners, handlers, purgatory and configuration: drives the machines.
