//! Injected errors: which operation on which path fails, when, how often, and in what manner.

use std::io;
use std::path::Path;

/// The operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Syncing a file, data only or all.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Changing a file's length.
    SetLen,
}

/// What happens instead of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The disk answers EIO. A sync that fails so marks the pages clean, as Linux does: they stay
    /// readable, no later sync writes them, and a crash loses them.
    InputOutputError,
    /// The disk answers ENOSPC, having done nothing.
    OutOfSpace,
    /// A write stores this many bytes and then answers ENOSPC.
    OutOfSpaceAfter(usize),
    /// The process has too many files open: EMFILE.
    OutOfDescriptors,
}

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

impl Effect {
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::InputOutputError => EIO,
            Self::OutOfSpace | Self::OutOfSpaceAfter(_) => ENOSPC,
            Self::OutOfDescriptors => EMFILE,
        })
    }
}

/// An error to inject: once, at the first matching operation, unless told otherwise.
///
/// ```
/// use fleuve_sim::{Effect, Fault, Operation};
///
/// // The third and fourth sync of any `.log` file fail.
/// let fault = Fault::on(Operation::Sync, Effect::InputOutputError).path(".log").skip(2).times(2);
/// # let _ = fault;
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    effect: Effect,
    path: String,
    skip: u64,
    times: u64,
}

impl Fault {
    /// Makes the next `operation` on any path have `effect`.
    pub fn on(operation: Operation, effect: Effect) -> Self {
        Self { operation, effect, path: String::new(), skip: 0, times: 1 }
    }

    /// Limits the fault to paths that contain `part`.
    pub fn path(self, part: impl Into<String>) -> Self {
        Self { path: part.into(), ..self }
    }

    /// Lets `count` matching operations succeed first.
    pub fn skip(self, count: u64) -> Self {
        Self { skip: count, ..self }
    }

    /// Makes the fault strike `count` times.
    pub fn times(self, count: u64) -> Self {
        Self { times: count, ..self }
    }

    /// Makes the fault strike until the faults are cleared.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }
}

/// Returns the effect of the first of `faults` that strikes now, and counts it down.
pub(super) fn strike(faults: &mut Vec<Fault>, operation: Operation, path: &Path) -> Option<Effect> {
    let path = path.to_string_lossy();
    let matching = faults
        .iter()
        .position(|fault| fault.operation == operation && path.contains(&fault.path))?;
    let fault = &mut faults[matching];
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    let effect = fault.effect;
    fault.times -= 1;
    if fault.times == 0 {
        faults.remove(matching);
    }
    Some(effect)
}
