//! From where somebody connects, as entries say it.

use std::net::IpAddr;

/// The hosts that an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hosts {
    /// All of them.
    Any,
    /// The addresses whose first `bits` are those of `address`.
    Network {
        /// An address of the network.
        address: IpAddr,
        /// How many bits count.
        bits: u32,
    },
    /// What is no address, and so no host of a connection.
    Nowhere,
}

impl Hosts {
    /// Reads `*`, an address, or a network as `address/bits`.
    pub(super) fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>().map(|address| address.to_canonical()) else {
            return Self::Nowhere;
        };
        let width = width(address);
        match bits.map_or(Some(width), |bits| bits.parse().ok()) {
            Some(bits) if bits <= width => Self::Network { address, bits },
            _ => Self::Nowhere,
        }
    }

    /// Reports whether `host` is one of these.
    pub(super) fn contains(self, host: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Nowhere => false,
            Self::Network { address, bits } => {
                let host = host.to_canonical();
                let shift = 128 - bits;
                width(host) == width(address)
                    && (bits == 0 || leading(host) >> shift == leading(address) >> shift)
            }
        }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address's bits, beginning at the highest of 128.
fn leading(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_networks() {
        for (text, inside, outside) in [
            ("10.1.2.3", Some("10.1.2.3"), Some("10.1.2.4")),
            ("10.0.0.0/8", Some("10.255.0.1"), Some("11.0.0.0")),
            ("10.0.0.0/32", Some("10.0.0.0"), Some("10.0.0.1")),
            ("0.0.0.0/0", Some("1.2.3.4"), Some("::1")),
            ("::/0", Some("::1"), Some("1.2.3.4")),
            ("fd00::/8", Some("fd12::1"), Some("fe80::1")),
            ("10.1.2.3", Some("::ffff:10.1.2.3"), None),
            ("*", Some("1.2.3.4"), None),
            ("10.0.0.0/33", None, Some("10.0.0.0")),
            ("10.0.0.0/", None, Some("10.0.0.0")),
            ("host.example", None, Some("10.0.0.0")),
        ] {
            let hosts = Hosts::parse(text);
            let contains = |host: &str| hosts.contains(host.parse().expect("an address"));
            assert!(inside.is_none_or(contains), "{text} holds {inside:?}");
            assert!(!outside.is_some_and(contains), "{text} does not hold {outside:?}");
        }
    }
}
