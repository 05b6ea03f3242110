//! Recently appended batches kept in memory, so that consumers at the tail cost no disk read.
//!
//! One cache serves all logs under one byte budget. It is a single queue in the order of appends,
//! and the oldest batch of any log goes first. That order is what bounds memory: a cached batch is
//! a slice of the request it came in and pins that request's frame, and frames leave the queue in
//! about the order in which they came. Evicting by log or by use would leave single slices behind,
//! each pinning a frame many times its size. Two cases are copied instead of pinned: small batches,
//! because a shared network buffer may lie behind them, and batches that are a small part of a
//! large frame.
//!
//! Large batches are not cached: the system sends them from its own cache without copying them
//! once more, and the memory they came in, free at once, serves the next while the processor still
//! has it at hand.
//!
//! A log keeps a [`TailWindow`]: the contiguous run of its newest batches with their tickets. A
//! ticket older than the queue's front has been evicted.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use fleuve_protocol::records::layout::HEADER_SIZE;
use parking_lot::Mutex;

/// Batches below this are copied: cheaper than what they might pin.
const COPIED_BATCH_BYTES: usize = 4096;
/// A batch that makes up less than one part in this many of its frame is copied.
const FRAME_SHARE: usize = 4;
/// Batches from this size on are left to the system's cache.
const LARGE_BATCH_BYTES: usize = 256 << 10;
/// Copies and headers are carved out of chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// What one entry costs besides its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The cache that all logs share.
#[derive(Debug)]
pub(crate) struct TailCache {
    budget: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The ticket of the front entry; tickets count up by one.
    first_ticket: u64,
    entries: VecDeque<CachedBatch>,
    bytes: usize,
    chunk: BytesMut,
}

#[derive(Debug)]
struct CachedBatch {
    header: Bytes,
    /// Empty when the whole batch is in `header`.
    body: Bytes,
}

/// A batch as it was written: the header with offset and epoch in place, and the unchanged rest.
#[derive(Clone, Debug)]
pub(crate) struct PlacedBatch {
    pub(crate) header: [u8; HEADER_SIZE],
    pub(crate) body: Bytes,
    pub(crate) base_offset: i64,
    pub(crate) next_offset: i64,
}

impl PlacedBatch {
    pub(crate) fn size(&self) -> usize {
        HEADER_SIZE + self.body.len()
    }
}

/// The newest batches of one log, as far as they are cached.
#[derive(Debug, Default)]
pub(crate) struct TailWindow {
    entries: VecDeque<WindowEntry>,
}

#[derive(Clone, Copy, Debug)]
struct WindowEntry {
    ticket: u64,
    base_offset: i64,
    next_offset: i64,
    size: usize,
}

/// What a read may take from the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailRead {
    pub(crate) offset: i64,
    pub(crate) limit_offset: i64,
    pub(crate) max_bytes: usize,
    pub(crate) min_one_batch: bool,
}

impl TailCache {
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget, queue: Mutex::default() }
    }

    /// Adds what a log has just appended, batches that came in a frame of `frame_bytes`.
    pub(crate) fn push(
        &self,
        window: &mut TailWindow,
        batches: &[PlacedBatch],
        frame_bytes: usize,
    ) {
        let total: usize = batches.iter().map(PlacedBatch::size).sum();
        if total > self.budget || batches.iter().any(|batch| batch.size() >= LARGE_BATCH_BYTES) {
            // The window must stay contiguous.
            window.clear();
            return;
        }
        let mut evicted = Vec::new();
        let mut queue = self.queue.lock();
        for batch in batches {
            let size = batch.size();
            let copied = size < COPIED_BATCH_BYTES || size < frame_bytes / FRAME_SHARE;
            let header = queue.copy(&batch.header, if copied { &batch.body } else { &[] });
            let body = if copied { Bytes::new() } else { batch.body.clone() };
            queue.bytes += size + ENTRY_OVERHEAD_BYTES;
            let ticket = queue.first_ticket + queue.entries.len() as u64;
            queue.entries.push_back(CachedBatch { header, body });
            window.entries.push_back(WindowEntry {
                ticket,
                base_offset: batch.base_offset,
                next_offset: batch.next_offset,
                size,
            });
        }
        while queue.bytes > self.budget {
            let Some(oldest) = queue.entries.pop_front() else { break };
            queue.first_ticket += 1;
            queue.bytes -= oldest.header.len() + oldest.body.len() + ENTRY_OVERHEAD_BYTES;
            evicted.push(oldest);
        }
        let first_ticket = queue.first_ticket;
        drop(queue);
        window.forget_before(first_ticket);
        // Frames are freed outside the lock.
        drop(evicted);
    }

    /// Collects whole batches from the one that holds `read.offset` on; `None` when that batch is
    /// not cached.
    pub(crate) fn read(&self, window: &mut TailWindow, read: TailRead) -> Option<Vec<Bytes>> {
        if window.entries.back()?.next_offset <= read.offset {
            return None;
        }
        let queue = self.queue.lock();
        window.forget_before(queue.first_ticket);
        if window.entries.front()?.base_offset > read.offset {
            return None;
        }
        let begin = window.entries.partition_point(|entry| entry.next_offset <= read.offset);
        let mut parts = Vec::new();
        let mut size = 0;
        for entry in window.entries.range(begin..) {
            let fits = size + entry.size <= read.max_bytes || (size == 0 && read.min_one_batch);
            if !fits || entry.next_offset > read.limit_offset {
                break;
            }
            let cached = &queue.entries[(entry.ticket - queue.first_ticket) as usize];
            parts.push(cached.header.clone());
            if !cached.body.is_empty() {
                parts.push(cached.body.clone());
            }
            size += entry.size;
        }
        Some(parts)
    }
}

impl Queue {
    /// Copies `header` and `body` next to each other.
    fn copy(&mut self, header: &[u8], body: &[u8]) -> Bytes {
        let needed = header.len() + body.len();
        if self.chunk.capacity() < needed {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES.max(needed));
        }
        self.chunk.extend_from_slice(header);
        self.chunk.extend_from_slice(body);
        self.chunk.split().freeze()
    }
}

impl TailWindow {
    /// Forgets everything, because the log was cut.
    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
    }

    fn forget_before(&mut self, first_ticket: u64) {
        while self.entries.front().is_some_and(|entry| entry.ticket < first_ticket) {
            self.entries.pop_front();
        }
        // The window of an idle log should cost nothing.
        if self.entries.is_empty() {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, body: &Bytes) -> PlacedBatch {
        let header = [base_offset as u8; HEADER_SIZE];
        PlacedBatch { header, body: body.clone(), base_offset, next_offset: base_offset + 10 }
    }

    fn read(cache: &TailCache, window: &mut TailWindow, offset: i64) -> Option<usize> {
        let read =
            TailRead { offset, limit_offset: i64::MAX, max_bytes: usize::MAX, min_one_batch: true };
        cache.read(window, read).map(|parts| parts.iter().map(Bytes::len).sum())
    }

    #[test]
    fn the_oldest_append_of_any_log_goes_first() {
        let cache = TailCache::new(50_000);
        let (mut left, mut right) = (TailWindow::default(), TailWindow::default());
        let body = Bytes::from(vec![7; 10_000 - HEADER_SIZE]);
        for round in 0..3 {
            cache.push(&mut left, &[batch(round * 10, &body)], body.len());
            cache.push(&mut right, &[batch(round * 10, &body)], body.len());
        }
        assert_eq!(read(&cache, &mut left, 5), None, "evicted by later appends");
        assert_eq!(read(&cache, &mut left, 10), Some(20_000));
        assert_eq!(read(&cache, &mut right, 10), Some(20_000));
        assert_eq!(read(&cache, &mut right, 29), Some(10_000), "from inside the last batch");
        assert_eq!(read(&cache, &mut right, 30), None, "nothing there yet");
    }

    #[test]
    fn a_large_batch_is_left_to_the_system_and_what_follows_is_cached_again() {
        let cache = TailCache::new(1 << 20);
        let mut window = TailWindow::default();
        let small = Bytes::from(vec![7; 100 - HEADER_SIZE]);
        let large = Bytes::from(vec![7; LARGE_BATCH_BYTES - HEADER_SIZE]);
        cache.push(&mut window, &[batch(0, &small)], small.len());
        cache.push(&mut window, &[batch(10, &large)], large.len());
        assert!(large.is_unique(), "its memory is free for the next");
        assert_eq!(read(&cache, &mut window, 0), None);
        assert_eq!(read(&cache, &mut window, 10), None);
        cache.push(&mut window, &[batch(20, &small)], small.len());
        assert_eq!(read(&cache, &mut window, 10), None);
        assert_eq!(read(&cache, &mut window, 20), Some(100));
    }

    #[test]
    fn limits_cut_between_batches() {
        let cache = TailCache::new(1 << 20);
        let mut window = TailWindow::default();
        let body = Bytes::from(vec![7; 100 - HEADER_SIZE]);
        cache.push(&mut window, &[batch(0, &body), batch(10, &body), batch(20, &body)], 300);
        let mut read = |offset, limit_offset, max_bytes, min_one_batch| {
            cache
                .read(&mut window, TailRead { offset, limit_offset, max_bytes, min_one_batch })
                .map(|parts| parts.len())
        };
        assert_eq!(read(0, 30, 1000, false), Some(3));
        assert_eq!(read(0, 29, 1000, false), Some(2), "a batch beyond the limit stays out");
        assert_eq!(read(0, 30, 250, false), Some(2));
        assert_eq!(read(0, 30, 99, false), Some(0));
        assert_eq!(read(0, 30, 99, true), Some(1), "one batch always fits");
        assert_eq!(read(0, 9, 99, true), Some(0), "but not beyond the limit");
    }

    #[test]
    fn small_parts_of_large_frames_are_copied() {
        let cache = TailCache::new(1 << 20);
        let mut window = TailWindow::default();
        let frame = Bytes::from(vec![1; 100_000]);
        let share = frame.slice(..5_000);
        drop(frame);
        cache.push(&mut window, &[batch(0, &share)], 100_000);
        assert!(share.is_unique(), "the cache does not pin the frame");
        cache.push(&mut window, &[batch(10, &share)], 8_000);
        assert!(!share.is_unique(), "a frame of its own size is pinned");
    }
}
