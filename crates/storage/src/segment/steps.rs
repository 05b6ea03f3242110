//! Where readers will go on.
//!
//! A reader asks for what follows its last answer, so the end of each read is kept for a while: the
//! next one begins there without a search in the index. Like an entry of the index a step is a
//! hint, and is compared with the batch that it points at.

use parking_lot::Mutex;

/// So many readers of a segment find their place again, each at its own.
const READERS: usize = 8;

/// The last places of a segment's readers.
#[derive(Debug)]
pub(crate) struct Steps(Mutex<Ring>);

#[derive(Debug)]
struct Ring {
    steps: [Step; READERS],
    oldest: usize,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    offset: i64,
    position: u64,
}

impl Default for Steps {
    fn default() -> Self {
        let nowhere = Step { offset: -1, position: 0 };
        Self(Mutex::new(Ring { steps: [nowhere; READERS], oldest: 0 }))
    }
}

impl Steps {
    /// Notes that who has asked for `asked` will ask for `next`, and where that stands.
    pub(crate) fn note(&self, asked: i64, next: i64, position: u64) {
        let mut ring = self.0.lock();
        let own = ring.steps.iter().position(|step| step.offset == asked);
        let place = own.unwrap_or_else(|| {
            let oldest = ring.oldest;
            ring.oldest = (oldest + 1) % READERS;
            oldest
        });
        ring.steps[place] = Step { offset: next, position };
    }

    /// Returns where the batch that begins at `offset` should stand.
    pub(super) fn position(&self, offset: i64) -> Option<u64> {
        let ring = self.0.lock();
        ring.steps.iter().find(|step| step.offset == offset).map(|step| step.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reader_keeps_one_place_and_the_oldest_makes_room() {
        let steps = Steps::default();
        assert_eq!(steps.position(0), None);
        for round in 0..3 {
            for reader in 0..READERS as i64 {
                let asked = reader * 100 + round;
                steps.note(asked, asked + 1, asked as u64);
            }
        }
        for reader in 0..READERS as i64 {
            assert_eq!(steps.position(reader * 100 + 3), Some(reader as u64 * 100 + 2));
            assert_eq!(steps.position(reader * 100 + 2), None, "it has gone on");
        }
        steps.note(5_000, 5_001, 7);
        assert_eq!(steps.position(5_001), Some(7));
        assert_eq!(steps.position(3), None, "the oldest");
        assert_eq!(steps.position(103), Some(102));
    }
}
