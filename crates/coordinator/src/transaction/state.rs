//! The states of a transactional id, which of them may follow which, and two small vocabularies:
//! how a transaction ends, and the protocol that its client speaks.

/// What a transactional id is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A producer has been initialised and no transaction has begun.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// The transaction will be committed; its markers are being written.
    PrepareCommit,
    /// The transaction will be aborted; its markers are being written.
    PrepareAbort,
    /// The transaction is committed, with all its markers.
    CompleteCommit,
    /// The transaction is aborted, with all its markers.
    CompleteAbort,
    /// The id is being removed because nobody used it. Never stored.
    Dead,
    /// The epoch is being raised to shut out a producer. Never stored, and over within one call.
    PrepareEpochFence,
}

impl State {
    /// Every state, in the order of Kafka's numbers.
    pub const ALL: [Self; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    /// Kafka's name of the state, as administrators see it and filter by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// Finds a state by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The number that stands for the state in the log.
    pub(crate) fn id(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::PrepareCommit => 2,
            Self::PrepareAbort => 3,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
            Self::Dead => 6,
            Self::PrepareEpochFence => 7,
        }
    }

    /// Finds a state by its number, if it is one that is ever stored.
    pub(crate) fn from_stored_id(id: i8) -> Option<Self> {
        let state = Self::ALL.into_iter().find(|state| state.id() == id)?;
        (!matches!(state, Self::Dead | Self::PrepareEpochFence)).then_some(state)
    }

    /// Whether a transactional id may go from `previous` to this state.
    pub fn may_follow(self, previous: Self) -> bool {
        use State::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareEpochFence};
        match self {
            Empty | Self::Dead => matches!(previous, Empty | CompleteCommit | CompleteAbort),
            Ongoing => matches!(previous, Ongoing | Empty | CompleteCommit | CompleteAbort),
            Self::PrepareCommit | PrepareEpochFence => previous == Ongoing,
            Self::PrepareAbort => matches!(
                previous,
                Ongoing | PrepareEpochFence | Empty | CompleteCommit | CompleteAbort
            ),
            CompleteCommit => previous == Self::PrepareCommit,
            CompleteAbort => previous == Self::PrepareAbort,
        }
    }

    /// What has been decided and is still to be completed, in the two states in between.
    pub fn decision(self) -> Option<Decision> {
        match self {
            Self::PrepareCommit => Some(Decision::Commit),
            Self::PrepareAbort => Some(Decision::Abort),
            _ => None,
        }
    }

    /// Whether an id in this state is forgotten when it has not been used for long.
    pub(crate) fn may_expire(self) -> bool {
        Self::Dead.may_follow(self)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// What was written becomes visible.
    Commit,
    /// What was written never becomes visible.
    Abort,
}

impl Decision {
    /// The state in which the decision is stored and its markers are written.
    pub(crate) fn prepared(self) -> State {
        match self {
            Self::Commit => State::PrepareCommit,
            Self::Abort => State::PrepareAbort,
        }
    }

    /// The state in which all is done.
    pub(crate) fn completed(self) -> State {
        match self {
            Self::Commit => State::CompleteCommit,
            Self::Abort => State::CompleteAbort,
        }
    }
}

/// Levels of the feature `transaction.version`, and of what clients speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionVersion {
    /// The protocol of KIP-98.
    #[default]
    V0,
    /// The same, with flexible records in the transaction log.
    V1,
    /// KIP-890: every transaction has an epoch of its own.
    V2,
}

impl TransactionVersion {
    /// The feature level.
    pub fn level(self) -> i16 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// Finds the version of a feature level.
    pub fn from_level(level: i16) -> Option<Self> {
        match level {
            0 => Some(Self::V0),
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// Whether the end of a transaction raises the producer's epoch.
    pub fn bumps_epoch(self) -> bool {
        self >= Self::V2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
            let stored = !matches!(state, State::Dead | State::PrepareEpochFence);
            assert_eq!(State::from_stored_id(state.id()), stored.then_some(state));
        }
        assert_eq!(State::from_name("empty"), None);
        assert_eq!(State::from_stored_id(8), None);
        for version in [TransactionVersion::V0, TransactionVersion::V1, TransactionVersion::V2] {
            assert_eq!(TransactionVersion::from_level(version.level()), Some(version));
        }
    }

    #[test]
    fn a_decision_is_followed_by_its_own_completion_only() {
        for (decision, other) in
            [(Decision::Commit, Decision::Abort), (Decision::Abort, Decision::Commit)]
        {
            assert_eq!(decision.prepared().decision(), Some(decision));
            for next in State::ALL {
                assert_eq!(next.may_follow(decision.prepared()), next == decision.completed());
            }
            assert!(!other.prepared().may_follow(decision.prepared()));
        }
    }
}
