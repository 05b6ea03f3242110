//! How a listener is protected: TLS and SASL, by Kafka's keys, for all listeners or for one.
//!
//! ```text
//! ssl.KEY                                    for every listener with SSL in its protocol
//! listener.name.NAME.ssl.KEY                 for this one
//! listener.name.NAME.plain.sasl.jaas.config  the users of PLAIN
//! fleuve.http.ssl.KEY                        for the HTTP door, if it speaks TLS
//! ```
//!
//! Certificates are named here and read by the broker at its start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::layers::Layers;
use super::listeners::SecurityProtocol;
use super::problem::Problems;

/// Keys that may stand behind `listener.name.NAME.`.
pub(super) const LISTENER_KEYS: &[&str] = &[
    "connections.max.reauth.ms",
    "max.connection.creation.rate",
    "max.connections",
    "oauthbearer.connections.max.reauth.ms",
    "oauthbearer.sasl.jaas.config",
    "oauthbearer.sasl.server.callback.handler.class",
    "plain.connections.max.reauth.ms",
    "plain.sasl.jaas.config",
    "sasl.enabled.mechanisms",
    "scram-sha-256.connections.max.reauth.ms",
    "scram-sha-256.sasl.jaas.config",
    "scram-sha-512.connections.max.reauth.ms",
    "scram-sha-512.sasl.jaas.config",
    "ssl.cipher.suites",
    "ssl.client.auth",
    "ssl.enabled.protocols",
    "ssl.keystore.certificate.chain",
    "ssl.key.password",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Whether the HTTP door speaks TLS.
pub(super) const HTTP_PROTOCOL_KEY: &str = "fleuve.http.security.protocol";
/// The mechanisms that are served.
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Where certificates or a key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Secret),
}

/// How a store is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// PEM, keys perhaps under a password.
    #[default]
    Pem,
    /// PKCS12, of Java or OpenSSL.
    Pkcs12,
    /// Java's own format.
    Jks,
}

impl StoreKind {
    fn from_name(name: &str) -> Option<Self> {
        let kinds = [("PEM", Self::Pem), ("PKCS12", Self::Pkcs12), ("JKS", Self::Jks)];
        kinds.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
    }
}

/// How a keystore or truststore is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreAccess {
    /// How it is written.
    pub kind: StoreKind,
    /// Its password.
    pub password: Option<Secret>,
    /// The password of the key in it.
    pub key_password: Option<Secret>,
}

/// `ssl.client.auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Clients are not asked for one.
    None,
    /// Clients without one may connect, too.
    Requested,
    /// Clients need one.
    Required,
}

/// TLS of one listener, or of the HTTP door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate chain.
    pub chain: Pem,
    /// The private key.
    pub key: Pem,
    /// How the keystore is opened.
    pub key_store: StoreAccess,
    /// The authorities of clients' certificates.
    pub trusted: Option<Pem>,
    /// How the truststore is opened.
    pub trust_store: StoreAccess,
    /// Whether clients need a certificate.
    pub client_certificates: ClientCertificates,
    /// Whether TLS 1.2 is spoken.
    pub allow_tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub allow_tls13: bool,
    /// The only cipher suites that are spoken, by their IANA names; all there are if none is named.
    pub cipher_suites: Vec<String>,
}

impl TlsSettings {
    /// Lists the files that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        let stores = [Some(&self.chain), Some(&self.key), self.trusted.as_ref()];
        stores.into_iter().flatten().filter_map(|pem| match pem {
            Pem::File(path) => Some(path.as_path()),
            Pem::Inline(_) => None,
        })
    }
}

/// SASL of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslSettings {
    /// The mechanisms, by name, in the order in which clients are told them.
    pub mechanisms: Vec<&'static str>,
    /// The users of PLAIN, as a JAAS entry.
    pub plain_users: Option<Secret>,
    /// Whose tokens OAUTHBEARER takes.
    pub issuer: Option<IssuerSettings>,
    /// `connections.max.reauth.ms` by mechanism; those that are missing let sessions last as long
    /// as their connections.
    pub sessions_max_ms: BTreeMap<&'static str, i64>,
}

/// Whose tokens are taken, by the keys `sasl.oauthbearer.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// `jwks.endpoint.url`.
    pub url: String,
    /// `jwks.endpoint.refresh.ms`.
    pub refresh_ms: u64,
    /// `jwks.endpoint.retry.backoff.ms`.
    pub retry_ms: u64,
    /// `jwks.endpoint.retry.backoff.max.ms`.
    pub retry_max_ms: u64,
    /// `expected.issuer`.
    pub issuer: String,
    /// `expected.audience`; at least one.
    pub audiences: Vec<String>,
    /// `clock.skew.seconds`.
    pub clock_skew_seconds: i64,
    /// `sub.claim.name`.
    pub subject_claim: String,
    /// `scope.claim.name`.
    pub scope_claim: String,
}

/// What protects a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// TLS, if connections are encrypted.
    pub tls: Option<TlsSettings>,
    /// SASL, if clients have to authenticate by it.
    pub sasl: Option<SaslSettings>,
}

impl Protection {
    /// Reports whether nobody gets in without proving who it is.
    pub fn authenticates(&self) -> bool {
        let by_certificate =
            |tls: &TlsSettings| tls.client_certificates == ClientCertificates::Required;
        self.sasl.is_some() || self.tls.as_ref().is_some_and(by_certificate)
    }
}

/// Reads what protects a listener; problems are reported, and keep the broker from starting.
pub(super) fn resolve(
    layers: &Layers<'_>,
    name: &str,
    protocol: SecurityProtocol,
    is_loopback: bool,
    problems: &mut Problems,
) -> Protection {
    let listener = OneDoor { layers, place: Place::Listener(name) };
    let (has_tls, has_sasl) = match protocol {
        SecurityProtocol::Plaintext => (false, false),
        SecurityProtocol::Ssl => (true, false),
        SecurityProtocol::SaslPlaintext => (false, true),
        SecurityProtocol::SaslSsl => (true, true),
    };
    let sasl = has_sasl.then(|| resolve_sasl(&listener, problems));
    let sends_passwords = sasl.as_ref().is_some_and(|sasl| sasl.mechanisms.contains(&"PLAIN"));
    if sends_passwords && !has_tls && !is_loopback {
        const KEY: &str = "fleuve.allow.plain.without.tls";
        if !layers.boolean(KEY) {
            problems.error(
                layers.origin("listeners"),
                format!(
                    "listener {name} would carry the passwords of PLAIN over the network for \
                     everybody to read; use SASL_SSL or a SCRAM mechanism, or set {KEY}=true"
                ),
            );
        }
    }
    let tls = match has_tls {
        true => resolve_tls(&listener, has_sasl, problems),
        false => None,
    };
    Protection { tls, sasl }
}

/// Reads a limit that one listener has for itself.
pub(super) fn own_limit(layers: &Layers<'_>, name: &str, key: &str) -> Option<u32> {
    let text = OneDoor { layers, place: Place::Listener(name) }.own(key)?;
    text.trim().parse().ok().filter(|limit| *limit < i32::MAX as u32)
}

/// Reads TLS of the HTTP door; problems are reported, and keep the broker from starting.
pub(super) fn resolve_http(layers: &Layers<'_>, problems: &mut Problems) -> Option<TlsSettings> {
    // Those who ask for health and metrics may have no certificate although clients of listeners do,
    // so that only the door's own `ssl.client.auth` counts.
    resolve_tls(&OneDoor { layers, place: Place::Http }, true, problems)
}

/// Keys as they hold for one listener, or for the HTTP door.
struct OneDoor<'a> {
    layers: &'a Layers<'a>,
    place: Place<'a>,
}

/// What keys are read for.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// A listener, by its name.
    Listener(&'a str),
    /// The HTTP door.
    Http,
}

impl OneDoor<'_> {
    fn own_key(&self, key: &str) -> String {
        match self.place {
            Place::Listener(name) => format!("listener.name.{}.{key}", name.to_lowercase()),
            Place::Http => format!("fleuve.http.{key}"),
        }
    }

    /// What is written for this one alone.
    fn own(&self, key: &str) -> Option<String> {
        let key = self.own_key(key);
        match self.place {
            Place::Listener(_) => self.layers.of_listener(&key).map(str::to_owned),
            Place::Http => self.layers.text(&key),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        let text = self.own(key).or_else(|| self.layers.text(key));
        text.filter(|text| !text.trim().is_empty())
    }

    fn list(&self, key: &str) -> Vec<String> {
        if let Place::Http = self.place
            && let own @ [_, ..] = &self.layers.list(&self.own_key(key))[..]
        {
            return own.to_vec();
        }
        match self.own(key) {
            Some(text) => text
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect(),
            None => self.layers.list(key),
        }
    }

    fn error(&self, key: &str, message: String, problems: &mut Problems) {
        let own_key = self.own_key(key);
        let (origin, fallback, who) = match self.place {
            Place::Listener(name) => {
                let origin = self.layers.statics.origin_of_listener(&own_key);
                (origin, "listeners", format!("listener {name}"))
            }
            Place::Http => {
                (self.layers.origin(&own_key), HTTP_PROTOCOL_KEY, "the HTTP door".to_owned())
            }
        };
        let origin = origin.or_else(|| self.layers.origin(key));
        let origin = origin.or_else(|| self.layers.origin(fallback));
        problems.error(origin, format!("{who}: {message}"));
    }

    /// Finds the PEM that `key` holds or that the file of `STORE.location` holds.
    fn pem(&self, store: &str, key: &str) -> Option<Pem> {
        if let Some(text) = self.text(key) {
            return Some(Pem::Inline(Secret(text)));
        }
        let location = self.text(&format!("{store}.location"))?;
        Some(Pem::File(location.into()))
    }
}

/// Finds out how a store is opened.
fn resolve_store(listener: &OneDoor<'_>, store: &str, problems: &mut Problems) -> StoreAccess {
    let secret = |key: &str| listener.text(key).map(Secret);
    let key_password = if store == "ssl.keystore" { secret("ssl.key.password") } else { None };
    if listener.text(&format!("{store}.location")).is_none() {
        return StoreAccess { key_password, ..StoreAccess::default() };
    }
    let type_key = format!("{store}.type");
    let name = listener.text(&type_key).unwrap_or_default();
    let kind = StoreKind::from_name(&name).unwrap_or_else(|| {
        let message = format!("`{type_key}` is {name}; it can be PEM, PKCS12 or JKS");
        listener.error(&type_key, message, problems);
        StoreKind::default()
    });
    let password_key = format!("{store}.password");
    let password = secret(&password_key);
    if kind == StoreKind::Jks && password.is_none() {
        let message = format!("a store of type JKS needs `{password_key}`");
        listener.error(&password_key, message, problems);
    }
    StoreAccess { kind, password, key_password }
}

fn resolve_sasl(listener: &OneDoor<'_>, problems: &mut Problems) -> SaslSettings {
    const KEY: &str = "sasl.enabled.mechanisms";
    let mut mechanisms = Vec::new();
    for name in listener.list(KEY) {
        match MECHANISMS.into_iter().find(|known| known.eq_ignore_ascii_case(&name)) {
            Some(known) => mechanisms.push(known),
            None => listener.error(
                KEY,
                format!(
                    "`{KEY}` has {name}, which is not served; use some of {}",
                    MECHANISMS.join(", ")
                ),
                problems,
            ),
        }
    }
    if mechanisms.is_empty() && problems.errors.is_empty() {
        listener.error(KEY, format!("`{KEY}` is empty; nobody could connect"), problems);
    }
    const PLAIN_KEY: &str = "plain.sasl.jaas.config";
    let plain_users = listener.own(PLAIN_KEY).map(Secret);
    if mechanisms.contains(&"PLAIN") && plain_users.is_none() {
        listener.error(
            KEY,
            format!(
                "PLAIN has no users; write them to `{}` as `... PlainLoginModule required \
                 user_NAME=\"PASSWORD\";`, or leave PLAIN out of `{KEY}`",
                listener.own_key(PLAIN_KEY)
            ),
            problems,
        );
    }
    let issuer = match mechanisms.contains(&"OAUTHBEARER") {
        true => resolve_issuer(listener, problems),
        false => None,
    };
    let sessions_max_ms = resolve_sessions(listener, &mechanisms, problems);
    SaslSettings { mechanisms, plain_users, issuer, sessions_max_ms }
}

/// As in Kafka, what is written for a mechanism of a listener wins over what is written for the
/// listener, and that over what is written for all.
fn resolve_sessions(
    listener: &OneDoor<'_>,
    mechanisms: &[&'static str],
    problems: &mut Problems,
) -> BTreeMap<&'static str, i64> {
    const KEY: &str = "connections.max.reauth.ms";
    let common = listener.layers.integer(KEY);
    let mut own = |key: &str| {
        let text = listener.own(key)?;
        let number = text.trim().parse::<i64>();
        if number.is_err() {
            let message = format!("`{}` is {text}; write milliseconds", listener.own_key(key));
            listener.error(key, message, problems);
        }
        number.ok()
    };
    let of_listener = own(KEY).unwrap_or(common);
    let mut sessions = BTreeMap::new();
    for mechanism in mechanisms {
        let key = format!("{}.{KEY}", mechanism.to_lowercase());
        let max_ms = own(&key).unwrap_or(of_listener);
        if max_ms > 0 {
            sessions.insert(*mechanism, max_ms);
        }
    }
    sessions
}

/// Everything that a token is checked against has to be written: what is left out would not be
/// checked.
fn resolve_issuer(listener: &OneDoor<'_>, problems: &mut Problems) -> Option<IssuerSettings> {
    const URL: &str = "sasl.oauthbearer.jwks.endpoint.url";
    const ISSUER: &str = "sasl.oauthbearer.expected.issuer";
    const AUDIENCE: &str = "sasl.oauthbearer.expected.audience";
    let layers = listener.layers;
    let text = |key: &str| layers.text(key).unwrap_or_default().trim().to_owned();
    let (url, issuer, audiences) = (text(URL), text(ISSUER), layers.list(AUDIENCE));
    let found = problems.errors.len();
    for (key, is_missing) in
        [(URL, url.is_empty()), (ISSUER, issuer.is_empty()), (AUDIENCE, audiences.is_empty())]
    {
        if is_missing {
            let message = format!("OAUTHBEARER needs `{key}`: tokens are not taken on trust");
            listener.error(key, message, problems);
        }
    }
    let is_served = ["https://", "http://", "file:/"].iter().any(|scheme| url.starts_with(scheme));
    if !url.is_empty() && !is_served {
        let message = format!("`{URL}` is {url}; write a URL of https, http or file");
        listener.error(URL, message, problems);
    }
    const HANDLER: &str = "oauthbearer.sasl.server.callback.handler.class";
    let handler = listener.own(HANDLER).unwrap_or_default();
    if !handler.is_empty() && !handler.trim().ends_with(".OAuthBearerValidatorCallbackHandler") {
        let message = format!(
            "`{HANDLER}` is {handler}; only Kafka's OAuthBearerValidatorCallbackHandler stands for \
             something here"
        );
        listener.error(HANDLER, message, problems);
    }
    let number = |key: &str| layers.integer(key).max(0) as u64;
    (problems.errors.len() == found).then(|| IssuerSettings {
        url,
        refresh_ms: number("sasl.oauthbearer.jwks.endpoint.refresh.ms"),
        retry_ms: number("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms"),
        retry_max_ms: number("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms"),
        issuer,
        audiences,
        clock_skew_seconds: layers.integer("sasl.oauthbearer.clock.skew.seconds").max(0),
        subject_claim: text("sasl.oauthbearer.sub.claim.name"),
        scope_claim: text("sasl.oauthbearer.scope.claim.name"),
    })
}

fn resolve_tls(
    listener: &OneDoor<'_>,
    has_sasl: bool,
    problems: &mut Problems,
) -> Option<TlsSettings> {
    const AUTH_KEY: &str = "ssl.client.auth";
    // As in Kafka, clients that authenticate by SASL are asked for a certificate only if the
    // listener's own key says so.
    let wanted = if has_sasl { listener.own(AUTH_KEY) } else { listener.text(AUTH_KEY) };
    let client_certificates = match wanted.as_deref().map(str::trim) {
        Some("required") => ClientCertificates::Required,
        Some("requested") => ClientCertificates::Requested,
        _ => ClientCertificates::None,
    };
    let protocols = listener.list("ssl.enabled.protocols");
    let speaks = |name: &str| protocols.iter().any(|protocol| protocol == name);
    let (allow_tls12, allow_tls13) = (speaks("TLSv1.2"), speaks("TLSv1.3"));
    if !allow_tls12 && !allow_tls13 {
        let key = "ssl.enabled.protocols";
        let message = format!("`{key}` needs TLSv1.2 or TLSv1.3");
        listener.error(key, message, problems);
    }
    let chain = listener.pem("ssl.keystore", "ssl.keystore.certificate.chain");
    let key = listener.pem("ssl.keystore", "ssl.keystore.key");
    let trusted = listener.pem("ssl.truststore", "ssl.truststore.certificates");
    if client_certificates != ClientCertificates::None && trusted.is_none() {
        let message = format!("`{AUTH_KEY}` needs a truststore; set ssl.truststore.location");
        listener.error(AUTH_KEY, message, problems);
    }
    let key_store = resolve_store(listener, "ssl.keystore", problems);
    let trust_store = resolve_store(listener, "ssl.truststore", problems);
    let (Some(chain), Some(key)) = (chain, key) else {
        let message = "TLS needs a certificate and its key; set ssl.keystore.location and \
                       ssl.keystore.type";
        listener.error("ssl.keystore.location", message.to_owned(), problems);
        return None;
    };
    Some(TlsSettings {
        chain,
        key,
        key_store,
        trusted,
        trust_store,
        client_certificates,
        allow_tls12,
        allow_tls13,
        cipher_suites: listener.list("ssl.cipher.suites"),
    })
}
