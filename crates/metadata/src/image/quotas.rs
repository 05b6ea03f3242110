//! Quotas: how much users, clients and addresses may use.

use std::collections::BTreeMap;
use std::fmt;

use fleuve_protocol::Str;
use fleuve_protocol::messages::client_quota_record::{ClientQuotaRecord, EntityData};
use rpds::RedBlackTreeMapSync;

/// What part of a client an entity speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaEntityType {
    /// The name a client gives itself.
    ClientId,
    /// The address it comes from.
    Ip,
    /// The user it has authenticated as.
    User,
}

impl QuotaEntityType {
    /// Returns Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientId => "client-id",
            Self::Ip => "ip",
            Self::User => "user",
        }
    }

    /// Finds what a name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::ClientId, Self::Ip, Self::User].into_iter().find(|kind| kind.name() == name)
    }
}

/// Whom a quota holds for: a name for each part, or `None` for everybody without a quota of their
/// own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaEntity(pub BTreeMap<QuotaEntityType, Option<Str>>);

impl fmt::Display for QuotaEntity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, name)) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{}={}", kind.name(), name.as_deref().unwrap_or("<default>"))?;
        }
        Ok(())
    }
}

impl QuotaEntity {
    /// Reads the entity of a record, unless it has parts that this release does not know.
    pub(super) fn from_record(record: &ClientQuotaRecord) -> Option<Self> {
        let parts = record.entity.iter().map(|part| {
            let name = part.entity_name.as_ref().map(Str::detach);
            Some((QuotaEntityType::from_name(&part.entity_type)?, name))
        });
        parts.collect::<Option<_>>().map(Self)
    }

    /// Makes the record that sets, or with `None` removes, one of this entity's quotas.
    pub fn to_record(&self, key: &str, value: Option<f64>) -> ClientQuotaRecord {
        let part = |(kind, name): (&QuotaEntityType, &Option<Str>)| EntityData {
            entity_type: Str::from(kind.name()),
            entity_name: name.clone(),
        };
        ClientQuotaRecord {
            entity: self.0.iter().map(part).collect(),
            key: Str::copy_from(key),
            value: value.unwrap_or_default(),
            remove: value.is_none(),
        }
    }
}

/// Quotas of one entity, by key.
pub type QuotaMap = BTreeMap<Str, f64>;

/// All quotas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    by_entity: RedBlackTreeMapSync<QuotaEntity, QuotaMap>,
}

impl Quotas {
    /// Returns the quotas of an entity, if it has any.
    pub fn of(&self, entity: &QuotaEntity) -> Option<&QuotaMap> {
        self.by_entity.get(entity)
    }

    /// Lists the entities that have quotas, with them.
    pub fn iter(&self) -> impl Iterator<Item = (&QuotaEntity, &QuotaMap)> {
        self.by_entity.iter()
    }

    pub(super) fn set(&mut self, entity: QuotaEntity, key: Str, value: Option<f64>) {
        match (self.by_entity.get_mut(&entity), value) {
            (Some(map), Some(value)) => {
                map.insert(key, value);
            }
            (Some(map), None) => {
                map.remove(&key);
                if map.is_empty() {
                    self.by_entity.remove_mut(&entity);
                }
            }
            (None, Some(value)) => {
                self.by_entity.insert_mut(entity, QuotaMap::from([(key, value)]));
            }
            (None, None) => {}
        }
    }
}
