//! How far a member is on its way to its target assignment, and the epochs that mean more than a
//! number.

/// The epoch of a group, and of its target, before anything happened, as Kafka counts. With its first
/// member it is one more.
pub(crate) const FIRST_EPOCH: i32 = 1;

/// The epoch with which a member leaves; also that of a member about to be forgotten.
pub(crate) const LEAVING: i32 = -1;
/// The epoch of a static member that left for a while.
pub(crate) const LEFT_FOR_A_WHILE: i32 = -2;
/// The epoch with which a member joins.
pub(crate) const JOINING: i32 = 0;
/// The epoch of a target assignment that is gone.
pub(crate) const NO_TARGET: i32 = -1;

/// How far a member is on its way to its target assignment. The protocols write the states down
/// as different numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has what it is to have.
    #[default]
    Stable,
    /// It must give something up first.
    Unrevoked,
    /// It waits for what others have yet to give up.
    Unreleased,
    /// A later version of Kafka put it into a state that we do not know.
    Unknown,
}

impl MemberState {
    /// Reads a state whose first one is written as `first`.
    pub(crate) fn from_code(code: i8, first: i8) -> Self {
        match code.checked_sub(first) {
            Some(0) => Self::Stable,
            Some(1) => Self::Unrevoked,
            Some(2) => Self::Unreleased,
            _ => Self::Unknown,
        }
    }

    /// The number to write where the first state is written as `first`.
    pub(crate) fn code(self, first: i8) -> i8 {
        match self {
            Self::Stable => first,
            Self::Unrevoked => first + 1,
            Self::Unreleased => first + 2,
            Self::Unknown => 127,
        }
    }
}
