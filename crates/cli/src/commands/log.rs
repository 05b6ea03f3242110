//! `fleuve log`: what stands in the files of a partition, without a broker.
//!
//! The lines are those of Apache Kafka's `DumpLogSegments`, so that scripts written for it work.

mod files;
mod indexes;
mod printer;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::files::files;
pub(crate) use self::indexes::verify_indexes;
use self::printer::Printer;
use crate::args::{Common, Format};
use crate::decode::Decoder;
use crate::failure::Failure;

/// Look into log files, without a broker.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Show batches, records and index entries.
    Dump(Dump),
    /// Hold index files against the log beside them.
    VerifyIndex(VerifyIndex),
}

/// Show batches, records and index entries.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    fleuve log dump fleuve-data/greetings-0                       all files of a partition\n  \
    fleuve log dump --records fleuve-data/greetings-0/*.log       records too\n  \
    fleuve log dump --data fleuve-data/__consumer_offsets-7       groups and offsets, decoded\n  \
    fleuve log dump -o json fleuve-data/greetings-0/00000000000000000000.log")]
pub(crate) struct Dump {
    /// Files (.log, .index, .timeindex, .txnindex, .snapshot, checkpoints) or partition directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Also the records of each batch.
    #[arg(long)]
    pub(crate) records: bool,
    /// Also keys and values; implies --records. Those of the system's topics are read.
    #[arg(long)]
    pub(crate) data: bool,
    /// Show keys and values as they are, also those of the system's topics.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Which topic's records are read, whatever the directory's name says.
    #[arg(skip)]
    pub(crate) decoder: Option<Decoder>,
    /// Leave out what stands beside key and value.
    #[arg(skip)]
    pub(crate) skip_metadata: bool,
    /// Stop after so many bytes of batches.
    #[arg(skip)]
    pub(crate) bytes_max: Option<u64>,
}

/// Hold index files against the log beside them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fleuve log verify-index fleuve-data/greetings-0")]
pub(crate) struct VerifyIndex {
    /// .index and .timeindex files or partition directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

pub(crate) async fn run(command: Log, common: &Common) -> Result<(), Failure> {
    match command {
        Log::Dump(dump) => run_dump(&dump, common.output),
        Log::VerifyIndex(verify) => verify_indexes(&verify.paths, common.output),
    }
}

/// Dumps files; fails at the end if one of them was damaged.
pub(crate) fn run_dump(dump: &Dump, format: Format) -> Result<(), Failure> {
    let mut printer = Printer::new(dump, format);
    let mut damaged = 0;
    for path in files(&dump.paths)? {
        damaged += usize::from(!printer.dump(&path)?);
    }
    printer.flush()?;
    match damaged {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} files are damaged, as shown above"))),
    }
}
