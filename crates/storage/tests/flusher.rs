//! Group commit: every mark is covered by a flush that began after it.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::{Machine, Spec, append};
use fleuve_sim::{Effect, Fault, Operation};
use fleuve_storage::{FlushJob, FlushMark, FlushTarget, Flusher, Log, LogConfig, LogError};
use parking_lot::{Condvar, Mutex};

/// What a partition of the broker does with the flusher, in short.
struct Partition {
    log: Mutex<Log>,
    mark: FlushMark,
    flushed: AtomicI64,
    progress: Mutex<bool>,
    changed: Condvar,
}

impl Partition {
    fn new(log: Log) -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::new(log),
            mark: FlushMark::default(),
            flushed: AtomicI64::new(0),
            progress: Mutex::new(false),
            changed: Condvar::new(),
        })
    }

    /// Waits until `offset` is flushed or the log has failed; returns whether it was flushed.
    fn wait_for(&self, offset: i64) -> bool {
        let mut failed = self.progress.lock();
        while self.flushed.load(Ordering::SeqCst) < offset && !*failed {
            self.changed.wait(&mut failed);
        }
        self.flushed.load(Ordering::SeqCst) >= offset
    }
}

impl FlushTarget for Partition {
    fn flush_mark(&self) -> &FlushMark {
        &self.mark
    }

    fn begin_flush(&self) -> Option<FlushJob> {
        self.log.lock().begin_flush()
    }

    fn finish_flush(self: Arc<Self>, job: FlushJob, outcome: Result<(), LogError>) {
        let outcome = self.log.lock().finish_flush(job, outcome);
        let mut failed = self.progress.lock();
        match outcome {
            Ok(offset) => self.flushed.store(offset.0, Ordering::SeqCst),
            Err(_) => *failed = true,
        }
        self.changed.notify_all();
    }
}

#[test]
fn every_append_is_flushed_and_groups_form() {
    const WRITERS: i64 = 8;
    const APPENDS: i64 = 50;
    let machines: Vec<Machine> = (0..3).map(|_| Machine::new(LogConfig::default())).collect();
    let partitions: Vec<Arc<Partition>> =
        machines.iter().map(|machine| Partition::new(machine.open())).collect();
    let flusher = Flusher::start(2).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (flusher, partitions) = (&flusher, &partitions);
            scope.spawn(move || {
                for number in 0..APPENDS {
                    let partition = &partitions[((writer + number) % 3) as usize];
                    let appended = append(&mut partition.log.lock(), &Spec::values(&["x"]));
                    let offset = appended.unwrap().last_offset.0 + 1;
                    flusher.mark(partition);
                    assert!(partition.wait_for(offset));
                }
            });
        }
    });
    let flushes = flusher.flushes();
    assert!((1..=(WRITERS * APPENDS) as u64).contains(&flushes), "{flushes}");
    flusher.stop();
    let total: i64 = partitions.iter().map(|each| each.flushed.load(Ordering::SeqCst)).sum();
    assert_eq!(total, WRITERS * APPENDS);
}

#[test]
fn a_failed_flush_reaches_the_owner_and_stopping_drains() {
    let machine = Machine::new(LogConfig::default());
    let partition = Partition::new(machine.open());
    let flusher = Flusher::start(1).unwrap();
    append(&mut partition.log.lock(), &Spec::values(&["x"])).unwrap();
    machine.disk.inject(Fault::on(Operation::Sync, Effect::InputOutputError));
    flusher.mark(&partition);
    assert!(!partition.wait_for(1));
    assert_eq!((flusher.flushes(), flusher.failures()), (0, 1));
    assert!(append(&mut partition.log.lock(), &Spec::values(&["x"])).is_err());

    let healthy = Machine::new(LogConfig::default());
    let partition = Partition::new(healthy.open());
    append(&mut partition.log.lock(), &Spec::values(&["x"])).unwrap();
    flusher.mark(&partition);
    flusher.stop();
    assert_eq!(partition.flushed.load(Ordering::SeqCst), 1);
}
