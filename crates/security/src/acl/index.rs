//! Access control entries by what they are about, so that a decision looks at few of them.

use std::collections::{BTreeSet, HashMap};

use fleuve_metadata::image::{Acl, AclPatternType, AclResourceType};

use super::host::Hosts;

/// The literal name that stands for every name.
pub(super) const ANY_NAME: &str = "*";

/// All entries, by resource.
#[derive(Clone, Debug, Default)]
pub struct Index {
    by_type: HashMap<AclResourceType, OfType>,
}

#[derive(Clone, Debug, Default)]
struct OfType {
    any_name: Vec<Entry>,
    literal: HashMap<String, Vec<Entry>>,
    prefixed: HashMap<String, Vec<Entry>>,
    /// How long the prefixes are: a name is looked up once for each length.
    prefix_lengths: BTreeSet<usize>,
}

/// An entry, with its host understood.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) acl: Acl,
    pub(super) host: Hosts,
}

impl Index {
    /// Sorts entries by what they are about.
    pub fn new<'a>(acls: impl IntoIterator<Item = &'a Acl>) -> Self {
        let mut index = Self::default();
        for acl in acls {
            let of_type = index.by_type.entry(acl.resource_type).or_default();
            let name = acl.resource_name.as_str();
            let entries = match acl.pattern_type {
                AclPatternType::Literal if name == ANY_NAME => &mut of_type.any_name,
                AclPatternType::Literal => of_type.literal.entry(name.to_owned()).or_default(),
                AclPatternType::Prefixed => {
                    of_type.prefix_lengths.insert(name.len());
                    of_type.prefixed.entry(name.to_owned()).or_default()
                }
            };
            entries.push(Entry { acl: acl.clone(), host: Hosts::parse(acl.host.as_str()) });
        }
        index
    }

    /// Lists the entries about resources of a kind.
    pub(super) fn of_type(&self, resource_type: AclResourceType) -> impl Iterator<Item = &Entry> {
        self.by_type.get(&resource_type).into_iter().flat_map(|of_type| {
            let named = of_type.literal.values().chain(of_type.prefixed.values()).flatten();
            of_type.any_name.iter().chain(named)
        })
    }

    /// Lists the entries about a resource.
    pub(super) fn about<'a>(
        &'a self,
        resource_type: AclResourceType,
        name: &str,
    ) -> impl Iterator<Item = &'a Entry> {
        let of_type = self.by_type.get(&resource_type);
        of_type.into_iter().flat_map(move |of_type| {
            let literal = of_type.literal.get(name).into_iter().flatten();
            let prefixes = of_type.prefix_lengths.iter().filter_map(|length| name.get(..*length));
            let prefixed: Vec<&Vec<Entry>> =
                prefixes.filter_map(|prefix| of_type.prefixed.get(prefix)).collect();
            literal.chain(&of_type.any_name).chain(prefixed.into_iter().flatten())
        })
    }
}
