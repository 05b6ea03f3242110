//! What is known of each API apart from its messages.

use std::fmt;

use crate::messages::ApiKey;
use crate::wire::VersionRange;

/// The row of one API in the generated table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiInfo {
    pub(crate) name: &'static str,
    pub(crate) versions: VersionRange,
    pub(crate) request_flexible_from: Option<i16>,
    pub(crate) response_flexible_from: Option<i16>,
    pub(crate) listeners: Listeners,
    pub(crate) latest_is_unstable: bool,
}

/// The kinds of listeners on which Kafka serves an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// Brokers serve it, to clients and to each other.
    pub broker: bool,
    /// Controllers serve it.
    pub controller: bool,
}

impl ApiKey {
    /// Returns Kafka's name of the API, such as `Fetch`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Returns the number that stands for the API in request headers.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Returns the versions that Kafka 4.3 knows; what a broker advertises is its own affair.
    pub const fn versions(self) -> VersionRange {
        self.info().versions
    }

    /// Reports whether Kafka still counts the highest version as unstable, not to be advertised.
    pub const fn latest_is_unstable(self) -> bool {
        self.info().latest_is_unstable
    }

    /// Returns the listeners on which Kafka serves the API.
    pub const fn listeners(self) -> Listeners {
        self.info().listeners
    }

    /// Reports whether a broker's listener serves the API.
    pub const fn is_client_facing(self) -> bool {
        self.info().listeners.broker
    }

    /// Returns the version of the header in front of a request of `version`.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if is_flexible(self.info().request_flexible_from, version) { 2 } else { 1 }
    }

    /// Returns the version of the header in front of a response of `version`.
    ///
    /// ApiVersions answers with the oldest header always, because the client does not yet know what
    /// the broker speaks (KIP-511).
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            Self::ApiVersions => 0,
            _ if is_flexible(self.info().response_flexible_from, version) => 1,
            _ => 0,
        }
    }
}

const fn is_flexible(from: Option<i16>, version: i16) -> bool {
    matches!(from, Some(from) if version >= from)
}

/// Reports a key that no API of Kafka 4.3 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no API has key {0}")]
pub struct UnknownApiKey(pub i16);

impl TryFrom<i16> for ApiKey {
    type Error = UnknownApiKey;

    fn try_from(code: i16) -> Result<Self, UnknownApiKey> {
        let found = Self::ALL.binary_search_by_key(&code, |key| key.code());
        found.map(|index| Self::ALL[index]).map_err(|_| UnknownApiKey(code))
    }
}

impl From<ApiKey> for i16 {
    fn from(key: ApiKey) -> Self {
        key.code()
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_unknown_ones_do_not() {
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::try_from(key.code()), Ok(key));
        }
        // Keys 4 to 7 spoke to ZooKeeper's brokers.
        for code in [-1, 4, 7, 1000] {
            assert_eq!(ApiKey::try_from(code), Err(UnknownApiKey(code)));
        }
    }

    #[test]
    fn the_table_is_kafkas() {
        assert_eq!(ApiKey::Fetch.code(), 1);
        assert_eq!(ApiKey::Fetch.name(), "Fetch");
        assert_eq!(ApiKey::Fetch.versions(), VersionRange::new(4, 18));
        assert!(ApiKey::Fetch.is_client_facing() && !ApiKey::Vote.is_client_facing());
        assert!(ApiKey::InitProducerId.latest_is_unstable());
        let unstable = ApiKey::ALL.into_iter().filter(|key| key.latest_is_unstable());
        assert_eq!(unstable.collect::<Vec<_>>(), [ApiKey::InitProducerId]);
    }

    #[test]
    fn headers_follow_the_version() {
        assert_eq!(ApiKey::Produce.request_header_version(8), 1);
        assert_eq!(ApiKey::Produce.request_header_version(9), 2);
        assert_eq!(ApiKey::Produce.response_header_version(8), 0);
        assert_eq!(ApiKey::Produce.response_header_version(9), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }
}
