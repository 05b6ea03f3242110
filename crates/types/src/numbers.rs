//! Numbers that must not be mixed up, each as its own type.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Returns the bare number, as it stands on the wire and on disk.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Position of a record in a partition, counted from 0 and never reused.
    Offset(i64)
);
number!(
    /// Number of a leader's reign over a partition; -1 when unknown.
    LeaderEpoch(i32)
);
number!(
    /// Id of a broker or controller (`node.id`).
    NodeId(i32)
);
number!(
    /// Id that the cluster gives to an idempotent or transactional producer; -1 for none.
    ProducerId(i64)
);
number!(
    /// Incarnation of a producer id; an older epoch is fenced.
    ProducerEpoch(i16)
);
number!(
    /// Milliseconds since the Unix epoch, as Kafka stores times; -1 for none.
    TimestampMs(i64)
);

impl Offset {
    /// Returns the offset `count` records further on.
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl ProducerId {
    /// The id that marks a batch without a producer.
    pub const NONE: Self = Self(-1);
}

impl LeaderEpoch {
    /// The epoch that stands for "not known".
    pub const UNKNOWN: Self = Self(-1);
}
