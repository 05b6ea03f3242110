//! Finds the batches in what was read from a log, and takes some of them out.
//!
//! A read comes in pieces whose ends have nothing to do with batches: see `handlers::fetch_reply`.
//! Only headers are looked at, and nothing is copied but a header that two pieces share.

use bytes::Bytes;
use fleuve_coordinator::share_partition::{Acquired, Fetched};
use fleuve_protocol::records::BatchHeader;

/// Bytes of a batch in front of its records.
const HEADER_SIZE: usize = 61;

/// A batch and where it lies in the pieces.
#[derive(Clone, Debug)]
struct Place {
    header: BatchHeader,
    begin: usize,
    end: usize,
}

/// Pieces of a log, cut at the batches.
#[derive(Debug)]
pub(crate) struct Cut {
    pieces: Vec<Bytes>,
    places: Vec<Place>,
}

impl Cut {
    /// Looks for the whole batches in the pieces; a damaged header ends the search.
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        let total: usize = pieces.iter().map(Bytes::len).sum();
        let mut cut = Self { pieces, places: Vec::new() };
        let mut begin = 0;
        while begin + HEADER_SIZE <= total {
            let header = cut.take(begin, begin + HEADER_SIZE);
            let header = match &header[..] {
                [only] => BatchHeader::parse(only),
                parts => BatchHeader::parse(&parts.concat()),
            };
            let Ok(header) = header else { break };
            let end = begin.saturating_add(header.size());
            if end > total || end <= begin {
                break;
            }
            cut.places.push(Place { header, begin, end });
            begin = end;
        }
        cut
    }

    /// Bytes of all whole batches.
    pub(crate) fn len(&self) -> usize {
        self.places.last().map_or(0, |place| place.end)
    }

    /// The headers of the batches.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &BatchHeader> {
        self.places.iter().map(|place| &place.header)
    }

    /// The batches as a share-partition looks at them; `is_hidden` says which no consumer is to see
    /// beside control batches.
    pub(crate) fn fetched(&self, mut is_hidden: impl FnMut(&BatchHeader) -> bool) -> Vec<Fetched> {
        let batches = self.headers().map(|header| Fetched {
            first: header.base_offset.0,
            last: header.last_offset().0,
            is_deliverable: !header.attributes.is_control() && !is_hidden(header),
        });
        batches.collect()
    }

    /// The batches from the first to the last that have acquired records.
    pub(crate) fn around(&self, acquired: &[Acquired]) -> Vec<Bytes> {
        let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else {
            return Vec::new();
        };
        let from = self.places.partition_point(|place| place.header.last_offset().0 < first.first);
        let to = self.places.partition_point(|place| place.header.base_offset.0 <= last.last);
        match self.places.get(from..to) {
            Some([]) | None => Vec::new(),
            Some(places) => self.take(places[0].begin, places[places.len() - 1].end),
        }
    }

    /// The bytes from `begin` up to `end`, counted over all pieces.
    fn take(&self, begin: usize, end: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        let mut at = 0;
        for piece in &self.pieces {
            let (from, to) = (begin.max(at), end.min(at + piece.len()));
            if from < to {
                taken.push(piece.slice(from - at..to - at));
            }
            at += piece.len();
            if at >= end {
                break;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::{BatchBuilder, BatchOptions, NewRecord};
    use fleuve_types::{Offset, TimestampMs};

    use super::*;

    fn batch(base: i64, records: usize) -> Bytes {
        let mut builder =
            BatchBuilder::new(BatchOptions { base_offset: Offset(base), ..Default::default() });
        for _ in 0..records {
            let record = NewRecord {
                timestamp: TimestampMs(1),
                key: None,
                value: Some(b"value"),
                headers: &[],
            };
            builder.append(&record).expect("it fits");
        }
        builder.finish()
    }

    #[test]
    fn batches_are_found_wherever_the_pieces_end() {
        let whole = [batch(0, 3), batch(3, 1), batch(10, 2)].concat();
        let whole = Bytes::from(whole);
        for piece in [1, 7, 60, 61, 62, 100, whole.len()] {
            let pieces = (0..whole.len())
                .step_by(piece)
                .map(|at| whole.slice(at..(at + piece).min(whole.len())))
                .collect();
            let cut = Cut::new(pieces);
            let bounds: Vec<_> =
                cut.fetched(|_| false).iter().map(|batch| (batch.first, batch.last)).collect();
            assert_eq!(bounds, [(0, 2), (3, 3), (10, 11)]);
            assert_eq!(cut.len(), whole.len());
            let acquired = [Acquired { first: 3, last: 3, delivery_count: 1 }];
            assert_eq!(cut.around(&acquired).concat(), batch(3, 1));
            let acquired = [acquired[0], Acquired { first: 10, last: 10, delivery_count: 1 }];
            assert_eq!(cut.around(&acquired).concat(), [batch(3, 1), batch(10, 2)].concat());
        }
    }

    #[test]
    fn a_cut_tail_is_left_alone() {
        let whole = batch(0, 3);
        let cut = Cut::new(vec![whole.slice(..whole.len() - 1)]);
        assert_eq!((cut.len(), cut.fetched(|_| false).len()), (0, 0));
    }
}
