//! Listeners: the addresses a broker accepts connections on, and those it tells clients.
//!
//! ```text
//! listeners            = NAME "://" [HOST] ":" PORT { "," ... }     HOST may be [IPv6]
//! advertised.listeners = the same, names a subset, no wildcard host
//! security.protocol.map = NAME ":" PROTOCOL { "," ... }
//! ```
//!
//! Controller listeners are those that `controller.listener.names` names. Nothing of ours needs
//! one, because the controller is in this process; who asks controllers directly does (KIP-919).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::layers::Layers;
use super::problem::{Origin, Problems};
use super::protection::{self, Protection};

/// What protects the bytes of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Nothing.
    Plaintext,
    /// TLS.
    Ssl,
    /// Authentication by SASL, without encryption.
    SaslPlaintext,
    /// Authentication by SASL inside TLS.
    SaslSsl,
}

impl SecurityProtocol {
    const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// Returns the number by which broker registrations name this protocol.
    pub const fn wire_id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An address to accept connections on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The listener's name, in capitals.
    pub name: String,
    /// What protects it.
    pub protocol: SecurityProtocol,
    /// The host name or address to bind, without brackets; empty for every address.
    pub host: String,
    /// The port; 0 for any free one.
    pub port: u16,
    /// Certificates, mechanisms and users.
    pub protection: Protection,
    /// `max.connections` of this listener alone.
    pub connections_max: Option<u32>,
    /// `max.connection.creation.rate` of this listener alone.
    pub creation_rate_max: Option<u32>,
}

/// An address that clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedListener {
    /// The listener's name, in capitals.
    pub name: String,
    /// The host name or address.
    pub host: String,
    /// The port; 0 stands for the one that the listener of this name got.
    pub port: u16,
}

/// Whom one talks to at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A broker.
    Broker,
    /// A controller.
    Controller,
}

/// The listeners of a broker, checked together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Where clients and brokers connect to.
    pub open: Vec<Listener>,
    /// Where the controller is asked directly.
    pub controller: Vec<Listener>,
    /// What clients are told, for each listener that is told at all.
    pub advertised: Vec<AdvertisedListener>,
    /// Name of the listener that brokers use among themselves.
    pub inter_broker: String,
}

impl Listeners {
    /// All listeners, those of the broker first.
    pub fn all(&self) -> impl Iterator<Item = (Role, &Listener)> {
        let brokers = self.open.iter().map(|listener| (Role::Broker, listener));
        brokers.chain(self.controller.iter().map(|listener| (Role::Controller, listener)))
    }
}

/// Reads and checks everything about listeners.
pub(super) fn resolve(layers: &Layers<'_>, host_name: &str, problems: &mut Problems) -> Listeners {
    let origin = |key: &str| layers.origin(key);
    let controller_names: Vec<String> =
        layers.list("controller.listener.names").iter().map(|name| name.to_uppercase()).collect();
    let protocols = protocol_map(layers, &controller_names, problems);
    let all = parse_endpoints(layers, "listeners", problems);
    check_ports(&all, origin("listeners"), problems);
    // What is wrong with these is said further down.
    let told = parse_endpoints(layers, "advertised.listeners", &mut Problems::default());

    let mut listeners = Listeners::default();
    for endpoint in &all {
        let Some(&protocol) = protocols.get(&endpoint.name) else {
            problems.error(
                origin("listeners"),
                format!(
                    "listener {} has no security protocol; add `{}:PLAINTEXT` to \
                     listener.security.protocol.map",
                    endpoint.name, endpoint.name
                ),
            );
            continue;
        };
        let Endpoint { name, host, port } = endpoint.clone();
        let is_local = is_loopback(&host);
        let mut listener = Listener {
            connections_max: protection::own_limit(layers, &name, "max.connections"),
            creation_rate_max: protection::own_limit(layers, &name, "max.connection.creation.rate"),
            protection: protection::resolve(layers, &name, protocol, is_local, problems),
            name,
            protocol,
            host,
            port,
        };
        let is_controllers = controller_names.contains(&listener.name);
        let is_open_to_all = !is_local && !listener.protection.authenticates();
        if is_open_to_all && !layers.boolean(ALLOW_KEY) {
            if listener.host.is_empty() && is_for_this_machine(&listener, is_controllers, &told) {
                stay_here(&mut listener, origin("listeners"), problems);
            } else {
                check_exposure(&listener, origin("listeners"), problems);
            }
        }
        match is_controllers {
            true => listeners.controller.push(listener),
            false => listeners.open.push(listener),
        }
    }
    if listeners.open.is_empty() && problems.errors.is_empty() {
        problems.error(
            origin("listeners"),
            "no listener is left for clients; name one that is not in controller.listener.names",
        );
    }
    listeners.advertised = advertised(layers, &listeners, &controller_names, host_name, problems);
    listeners.inter_broker = inter_broker(layers, &listeners, problems);
    listeners
}

#[derive(Clone, Debug)]
struct Endpoint {
    name: String,
    host: String,
    port: u16,
}

fn parse_endpoints(layers: &Layers<'_>, key: &str, problems: &mut Problems) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in layers.list(key) {
        match parse_endpoint(&item) {
            Ok(endpoint) if endpoints.iter().any(|known| known.name == endpoint.name) => problems
                .error(
                    layers.origin(key),
                    format!(
                        "`{key}` names listener {} twice; give each listener its own name and map \
                         it in listener.security.protocol.map",
                        endpoint.name
                    ),
                ),
            Ok(endpoint) => endpoints.push(endpoint),
            Err(reason) => problems.error(
                layers.origin(key),
                format!("invalid item `{item}` in `{key}`: {reason}; write NAME://HOST:PORT"),
            ),
        }
    }
    endpoints
}

fn parse_endpoint(text: &str) -> Result<Endpoint, &'static str> {
    let (name, address) = text.split_once("://").ok_or("there is no `://`")?;
    if name.is_empty() {
        return Err("the listener has no name");
    }
    let (host, port) = address.rsplit_once(':').ok_or("there is no port")?;
    let port = port.parse().map_err(|_| "the port is not a number from 0 to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or("the bracket is not closed")?,
        None => host,
    };
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || "-%._:".contains(c)) {
        return Err("the host contains a character that no host has");
    }
    Ok(Endpoint { name: name.to_uppercase(), host: host.to_owned(), port })
}

/// Two listeners may share a port only as one IPv4 and one IPv6 address.
fn check_ports(endpoints: &[Endpoint], origin: Option<&Origin>, problems: &mut Problems) {
    for (index, first) in endpoints.iter().enumerate() {
        for second in &endpoints[index + 1..] {
            let same_port = first.port == second.port && first.port != 0;
            let families = (first.host.parse::<IpAddr>(), second.host.parse::<IpAddr>());
            let apart = matches!(families, (Ok(a), Ok(b)) if a.is_ipv4() != b.is_ipv4());
            if same_port && !apart {
                problems.error(
                    origin,
                    format!(
                        "listeners {} and {} share port {}; give each its own, or make one IPv4 \
                         and the other IPv6",
                        first.name, second.name, first.port
                    ),
                );
            }
        }
    }
}

/// The name of this machine that only itself knows.
const LOCALHOST: &str = "localhost";

/// Lets listeners without authentication be reached from other machines.
pub(super) const ALLOW_KEY: &str = "fleuve.allow.unauthenticated.network";

/// Reports whether only this machine reaches a host.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reports whether nobody on another machine could use a listener, wherever it accepts connections: clients are told
/// to come to this machine, or are not told at all where the controller is.
fn is_for_this_machine(listener: &Listener, is_controllers: bool, told: &[Endpoint]) -> bool {
    let told = told.iter().find(|endpoint| endpoint.name == listener.name);
    told.map_or(is_controllers, |endpoint| is_loopback(&endpoint.host))
}

/// Binds a listener to the loopback, so that the file of Kafka's quickstart works and nobody is let in by it.
fn stay_here(listener: &mut Listener, origin: Option<&Origin>, problems: &mut Problems) {
    LOCALHOST.clone_into(&mut listener.host);
    problems.warning(
        origin,
        format!(
            "listener {} asks nobody for a password and is for clients on this machine, so it \
             listens on {LOCALHOST} only; {ALLOW_KEY}=true opens it to the network",
            listener.name
        ),
    );
}

/// Without authentication, whoever reaches a listener may read, write and delete.
fn check_exposure(listener: &Listener, origin: Option<&Origin>, problems: &mut Problems) {
    problems.error(
        origin,
        format!(
            "listener {} would let other machines read, write and delete without authentication; \
             bind it to localhost, give it SASL or ssl.client.auth=required, or allow it with \
             {ALLOW_KEY}=true",
            listener.name
        ),
    );
}

fn protocol_map(
    layers: &Layers<'_>,
    controller_names: &[String],
    problems: &mut Problems,
) -> BTreeMap<String, SecurityProtocol> {
    const KEY: &str = "listener.security.protocol.map";
    let mut map = BTreeMap::new();
    let text = layers.text(KEY).unwrap_or_default();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let pair = item.rsplit_once(':').and_then(|(name, protocol)| {
            let protocol = protocol.trim();
            let known = SecurityProtocol::ALL
                .into_iter()
                .find(|known| known.name().eq_ignore_ascii_case(protocol))?;
            Some((name.trim().to_uppercase(), known))
        });
        match pair {
            Some((name, protocol)) if !map.contains_key(&name) => {
                map.insert(name, protocol);
            }
            Some((name, _)) => problems.error(
                layers.origin(KEY),
                format!("`{KEY}` maps {name} twice; keep one of the two"),
            ),
            None => problems.error(
                layers.origin(KEY),
                format!(
                    "invalid item `{item}` in `{KEY}`: write NAME:PROTOCOL with PLAINTEXT, SSL, \
                     SASL_PLAINTEXT or SASL_SSL"
                ),
            ),
        }
    }
    // As in Kafka, an unwritten map makes controller listeners plain.
    if layers.origin(KEY).is_none() {
        for name in controller_names {
            map.entry(name.clone()).or_insert(SecurityProtocol::Plaintext);
        }
    }
    // A flag such as `--listen` cannot know which names the file maps.
    if matches!(layers.origin("listeners"), Some(Origin::Flag(_))) {
        let plaintext = SecurityProtocol::Plaintext;
        map.entry(plaintext.name().to_owned()).or_insert(plaintext);
    }
    map
}

fn advertised(
    layers: &Layers<'_>,
    listeners: &Listeners,
    controller_names: &[String],
    host_name: &str,
    problems: &mut Problems,
) -> Vec<AdvertisedListener> {
    const KEY: &str = "advertised.listeners";
    let default_host = |host: &str| {
        if host.is_empty() { host_name.to_owned() } else { host.to_owned() }
    };
    let explicit = !layers.list(KEY).is_empty();
    let (endpoints, origin) = if explicit {
        (parse_endpoints(layers, KEY, problems), layers.origin(KEY))
    } else {
        let of_listener = |listener: &Listener| Endpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: listener.port,
        };
        (listeners.open.iter().map(of_listener).collect(), layers.origin("listeners"))
    };
    let mut advertised = Vec::new();
    for controller in &listeners.controller {
        let told = endpoints.iter().find(|endpoint| endpoint.name == controller.name);
        let (host, port) =
            told.map_or((&controller.host, controller.port), |it| (&it.host, it.port));
        // Unlike a broker's, its address is seldom written, and no address of no machine is told.
        let is_nowhere = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        let host = if is_nowhere { host_name.to_owned() } else { default_host(host) };
        advertised.push(AdvertisedListener { name: controller.name.clone(), host, port });
    }
    for endpoint in endpoints {
        if controller_names.contains(&endpoint.name) {
            continue;
        }
        if explicit && !listeners.open.iter().any(|listener| listener.name == endpoint.name) {
            problems.error(
                origin,
                format!(
                    "`{KEY}` names {}, which is not in `listeners`; add it there or remove it here",
                    endpoint.name
                ),
            );
        } else if endpoint.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            problems.error(
                origin,
                format!(
                    "clients cannot connect to {}, the address of no machine, which listener {} \
                     would tell them; set `{KEY}={}://HOST:{}` to a host that they can reach",
                    endpoint.host, endpoint.name, endpoint.name, endpoint.port
                ),
            );
        } else {
            let Endpoint { name, host, port } = endpoint;
            advertised.push(AdvertisedListener { name, host: default_host(&host), port });
        }
    }
    advertised
}

fn inter_broker(layers: &Layers<'_>, listeners: &Listeners, problems: &mut Problems) -> String {
    const KEY: &str = "inter.broker.listener.name";
    let is_controllers = |name: &str| listeners.controller.iter().any(|it| it.name == name);
    let names = listeners.advertised.iter().map(|known| known.name.as_str());
    let names: Vec<&str> = names.filter(|name| !is_controllers(name)).collect();
    let chosen = layers.text(KEY).filter(|name| !name.is_empty()).map(|name| name.to_uppercase());
    match chosen {
        Some(name) if names.contains(&name.as_str()) || names.is_empty() => name,
        Some(name) => {
            problems.error(
                layers.origin(KEY),
                format!(
                    "`{KEY}` is {name}, which is not advertised; use one of {}",
                    names.join(", ")
                ),
            );
            name
        }
        // Kafka insists on the listener called PLAINTEXT here; alone, any will do.
        None => names
            .iter()
            .find(|name| **name == "PLAINTEXT")
            .or_else(|| names.first())
            .copied()
            .unwrap_or_default()
            .to_owned(),
    }
}
