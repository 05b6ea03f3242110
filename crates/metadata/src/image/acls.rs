//! Access control entries: who may, or must not, do what to which resources.
//!
//! The image keeps them as facts, by id and in a fixed order. How a request is judged by them is
//! the authorizer's business; [`Acls::iter`] and [`super::Change::AclAdded`] give it what an index
//! by resource is built from.

use std::fmt;

use fleuve_protocol::Str;
use fleuve_protocol::messages::access_control_entry_record::AccessControlEntryRecord;
use fleuve_types::Uuid;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// Declares an enum with Kafka's numbers and names, beginning after `UNKNOWN` and `ANY`.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $id:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the number that stands for it on the wire and in records.
            pub const fn wire_id(self) -> i8 {
                match self {
                    $(Self::$variant => $id,)*
                }
            }

            /// Finds what a number stands for; the ones for "unknown" and "any" stand for nothing.
            pub const fn from_wire_id(id: i8) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

numbered! {
    /// What kind of thing an entry protects.
    AclResourceType {
        /// Topics.
        Topic = 2 "TOPIC",
        /// Groups of any kind.
        Group = 3 "GROUP",
        /// The cluster as a whole.
        Cluster = 4 "CLUSTER",
        /// Transactional ids.
        TransactionalId = 5 "TRANSACTIONAL_ID",
        /// Delegation tokens.
        DelegationToken = 6 "DELEGATION_TOKEN",
        /// Users, as owners of tokens.
        User = 7 "USER",
    }
}

numbered! {
    /// How an entry's resource name is meant.
    AclPatternType {
        /// This very name, or with `*` every name.
        Literal = 3 "LITERAL",
        /// Every name that begins so.
        Prefixed = 4 "PREFIXED",
    }
}

numbered! {
    /// What somebody does to a resource.
    AclOperation {
        /// Everything.
        All = 2 "ALL",
        /// Reading.
        Read = 3 "READ",
        /// Writing.
        Write = 4 "WRITE",
        /// Creating.
        Create = 5 "CREATE",
        /// Deleting.
        Delete = 6 "DELETE",
        /// Altering.
        Alter = 7 "ALTER",
        /// Describing.
        Describe = 8 "DESCRIBE",
        /// What brokers do among themselves.
        ClusterAction = 9 "CLUSTER_ACTION",
        /// Describing configs.
        DescribeConfigs = 10 "DESCRIBE_CONFIGS",
        /// Altering configs.
        AlterConfigs = 11 "ALTER_CONFIGS",
        /// Writing idempotently, in the days when that needed a right.
        IdempotentWrite = 12 "IDEMPOTENT_WRITE",
        /// Creating tokens.
        CreateTokens = 13 "CREATE_TOKENS",
        /// Describing tokens.
        DescribeTokens = 14 "DESCRIBE_TOKENS",
        /// Prepared transactions.
        TwoPhaseCommit = 15 "TWO_PHASE_COMMIT",
    }
}

numbered! {
    /// Whether an entry allows or denies.
    AclPermission {
        /// It denies, which wins over any entry that allows.
        Deny = 2 "DENY",
        /// It allows.
        Allow = 3 "ALLOW",
    }
}

/// An access control entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What kind of resource it protects.
    pub resource_type: AclResourceType,
    /// The resource's name, or how it begins, or `*`.
    pub resource_name: Str,
    /// How the name is meant.
    pub pattern_type: AclPatternType,
    /// Who: `Type:name`, or `User:*` for everybody.
    pub principal: Str,
    /// From which host; `*` for any.
    pub host: Str,
    /// To do what.
    pub operation: AclOperation,
    /// May or must not.
    pub permission: AclPermission,
}

impl Acl {
    /// Reads an entry, unless it uses numbers that this release does not know.
    pub(super) fn from_record(record: &AccessControlEntryRecord) -> Option<Self> {
        Some(Self {
            resource_type: AclResourceType::from_wire_id(record.resource_type)?,
            resource_name: record.resource_name.detach(),
            pattern_type: AclPatternType::from_wire_id(record.pattern_type)?,
            principal: record.principal.detach(),
            host: record.host.detach(),
            operation: AclOperation::from_wire_id(record.operation)?,
            permission: AclPermission::from_wire_id(record.permission_type)?,
        })
    }

    /// Makes the record that adds this entry.
    pub fn to_record(&self, id: Uuid) -> AccessControlEntryRecord {
        AccessControlEntryRecord {
            id,
            resource_type: self.resource_type.wire_id(),
            resource_name: self.resource_name.clone(),
            pattern_type: self.pattern_type.wire_id(),
            principal: self.principal.clone(),
            host: self.host.clone(),
            operation: self.operation.wire_id(),
            permission_type: self.permission.wire_id(),
        }
    }
}

/// All access control entries.
#[derive(Clone, Debug, Default)]
pub struct Acls {
    by_id: RedBlackTreeMapSync<Uuid, Acl>,
    // The id is part of the key, because another writer may have recorded the same entry twice.
    sorted: RedBlackTreeSetSync<(Acl, Uuid)>,
}

impl PartialEq for Acls {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Acls {
    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.by_id.size()
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Finds an entry by its id.
    pub fn by_id(&self, id: Uuid) -> Option<&Acl> {
        self.by_id.get(&id)
    }

    /// Reports whether this very entry exists, under whatever id.
    pub fn contains(&self, acl: &Acl) -> bool {
        let least = (acl.clone(), Uuid([0; 16]));
        self.sorted.range(least..).next().is_some_and(|(found, _)| found == acl)
    }

    /// Lists the entries with their ids, sorted by resource, then by the rest.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &Acl)> {
        self.sorted.iter().map(|(acl, id)| (*id, acl))
    }

    /// Adds an entry; `false` if the id is taken.
    pub(super) fn add(&mut self, id: Uuid, acl: Acl) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        self.sorted.insert_mut((acl.clone(), id));
        self.by_id.insert_mut(id, acl);
        true
    }

    /// Removes an entry and returns it.
    pub(super) fn remove(&mut self, id: Uuid) -> Option<Acl> {
        let acl = self.by_id.get(&id)?.clone();
        self.by_id.remove_mut(&id);
        let entry = (acl, id);
        self.sorted.remove_mut(&entry);
        Some(entry.0)
    }
}
