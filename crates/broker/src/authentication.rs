//! Who a connection belongs to, from its first byte until that is known.
//!
//! ```text
//! Arrived --SaslHandshake--> Exchanging --SaslAuthenticate ...--> Known
//!                             ^  |                                 | (TLS and plain listeners begin here)
//!                             |  +-- wrong --> Refused             |
//!                             +--SaslHandshake, within a session---+
//! ```
//!
//! With `connections.max.reauth.ms` a session ends, and the client has to authenticate again before
//! that, as the same principal and by the same mechanism (KIP-368). Whoever does not loses the
//! connection with the next request.
//!
//! Until a connection is known, nothing is served but ApiVersions and the exchange itself, and its
//! frames are small. After SaslHandshake version 0 the mechanism's messages travel as frames
//! without headers.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleuve_metadata::config::{
    BrokerSettings, CertificateChanges, ClientCertificates, Listener, Pem, SaslSettings, Secret,
    TlsSettings,
};
use fleuve_metadata::controller::{TokenSettings, token_hmac};
use fleuve_metadata::image::{Image, ScramCredential, ScramMechanism};
use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_security::keystore::{self, Passwords};
use fleuve_security::oauth::Bearer;
use fleuve_security::sasl::{
    Credentials, Decoys, Exchange, Mechanism, PlainUsers, Refusal, Step, TokenCredential,
};
use fleuve_security::{
    CertificateNames, ClientAuth, Jaas, Principal, PrincipalMapping, TlsMaterial,
    distinguished_name, server_config,
};
use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::broker::StartError;
use crate::connection::Standing;
use crate::issuer::Issuer;

/// What protects a listener, ready for use.
pub(crate) struct Door {
    /// Encrypts connections.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Whose certificate it shows.
    names: Option<CertificateNames>,
    sasl: Option<Arc<Sasl>>,
    mapping: PrincipalMapping,
}

/// The mechanisms of a listener, and what credentials are compared with.
#[derive(Debug)]
struct Sasl {
    mechanisms: Vec<Mechanism>,
    plain: PlainUsers,
    decoys: Decoys,
    issuer: Option<Arc<Issuer>>,
    /// `connections.max.reauth.ms` by mechanism.
    sessions_max_ms: BTreeMap<&'static str, i64>,
}

impl Door {
    /// Reads certificates, users and rules of a listener.
    pub(crate) async fn open(
        settings: &BrokerSettings,
        listener: &Listener,
        random: &dyn Random,
    ) -> Result<Self, StartError> {
        let failed =
            |reason: String| StartError::Protection { listener: listener.name.clone(), reason };
        let (tls, names) = match &listener.protection.tls {
            Some(tls) => {
                let material = read(tls).await.map_err(failed)?;
                let config = server_config(&material).map_err(|error| failed(error.to_string()))?;
                (Some(TlsAcceptor::from(config)), material.names())
            }
            None => (None, None),
        };
        let sasl = match &listener.protection.sasl {
            Some(sasl) => Some(Arc::new(Sasl::new(sasl, random).await.map_err(failed)?)),
            None => None,
        };
        let mapping = PrincipalMapping::parse(&settings.network.principal_mapping)
            .map_err(|error| failed(format!("ssl.principal.mapping.rules: {error}")))?;
        Ok(Self { tls, names, sasl, mapping })
    }

    /// Tells whose certificate it shows.
    pub(crate) fn names(&self) -> Option<CertificateNames> {
        self.names.clone()
    }

    /// Looks whether this may take the place of a door with a certificate of these names.
    pub(crate) fn may_replace(
        &self,
        before: Option<&CertificateNames>,
        allowed: CertificateChanges,
    ) -> Result<(), String> {
        let (Some(before), Some(now)) = (before, &self.names) else { return Ok(()) };
        if !allowed.of_subject && now.subject() != before.subject() {
            return Err(format!(
                "Keystore DistinguishedName does not match: existing={}, new={}; allow it with \
                 ssl.allow.dn.changes=true",
                before.subject(),
                now.subject()
            ));
        }
        if !allowed.of_alternative_names && !now.has_alternatives_of(before) {
            return Err(format!(
                "Keystore SubjectAltNames do not match: the certificate of {} lacks names that the \
                 one before has; allow it with ssl.allow.san.changes=true",
                now.subject()
            ));
        }
        Ok(())
    }

    /// Begins with a connection that presented `certificate`, if it presented any.
    pub(crate) fn arrival(&self, certificate: Option<&[u8]>) -> Result<Identity, String> {
        if let Some(sasl) = &self.sasl {
            return Ok(Identity {
                is_known: AtomicBool::new(false),
                is_by_token: AtomicBool::new(false),
                principal: OnceLock::new(),
                exchange: Mutex::new(State::Arrived),
                sasl: Some(Arc::clone(sasl)),
                session: Session::default(),
            });
        }
        let Some(certificate) = certificate else { return Ok(Identity::default()) };
        let name = distinguished_name(certificate).ok_or("its certificate cannot be read")?;
        let user = self.mapping.user(&name);
        let user = user.ok_or_else(|| format!("no rule makes a user of {name}"))?;
        Ok(Identity::known(Principal::user(&user)))
    }
}

impl Sasl {
    async fn new(settings: &SaslSettings, random: &dyn Random) -> Result<Self, String> {
        let mechanisms = settings.mechanisms.iter().copied().filter_map(Mechanism::from_name);
        let jaas = match &settings.plain_users {
            Some(text) => Jaas::parse(text.expose())
                .map_err(|error| format!("plain.sasl.jaas.config: {error}"))?,
            None => Jaas::default(),
        };
        Ok(Self {
            mechanisms: mechanisms.collect(),
            plain: PlainUsers::new(jaas.options("user_"), random),
            decoys: Decoys::new(random),
            issuer: match &settings.issuer {
                Some(issuer) => Some(Issuer::start(issuer).await?),
                None => None,
            },
            sessions_max_ms: settings.sessions_max_ms.clone(),
        })
    }
}

/// Reads certificates and makes what a TLS server needs.
pub(crate) async fn tls_config(tls: &TlsSettings) -> Result<Arc<ServerConfig>, String> {
    server_config(&read(tls).await?).map_err(|error| error.to_string())
}

async fn read(tls: &TlsSettings) -> Result<TlsMaterial, String> {
    let (chain, key, trusted) = (&tls.chain, &tls.key, tls.trusted.as_ref());
    let passwords = Passwords {
        store: tls.key_store.password.as_ref().map(Secret::expose),
        key: tls.key_store.key_password.as_ref().map(Secret::expose),
    };
    let open = async |pem: &Pem| {
        let bytes = read_pem(pem).await?;
        let opened = keystore::key_and_chain(tls.key_store.kind, &bytes, passwords);
        opened.map_err(|error| format!("ssl.keystore: {error}"))
    };
    let trusted = match trusted {
        Some(pem) => {
            let password = tls.trust_store.password.as_ref().map(Secret::expose);
            let opened = keystore::trusted(tls.trust_store.kind, &read_pem(pem).await?, password);
            Some(opened.map_err(|error| format!("ssl.truststore: {error}"))?)
        }
        None => None,
    };
    Ok(TlsMaterial {
        chain: open(chain).await?,
        key: open(key).await?,
        trusted,
        client_auth: match tls.client_certificates {
            ClientCertificates::None => ClientAuth::None,
            ClientCertificates::Requested => ClientAuth::Requested,
            ClientCertificates::Required => ClientAuth::Required,
        },
        allow_tls12: tls.allow_tls12,
        allow_tls13: tls.allow_tls13,
        cipher_suites: tls.cipher_suites.clone(),
    })
}

async fn read_pem(pem: &Pem) -> Result<Vec<u8>, String> {
    match pem {
        Pem::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => {
            let unread = |error: io::Error| format!("cannot read {}: {error}", path.display());
            tokio::fs::read(path).await.map_err(unread)
        }
    }
}

/// Who a connection belongs to.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Looked at for every frame, and so apart from the rest.
    is_known: AtomicBool,
    is_by_token: AtomicBool,
    principal: OnceLock<Principal>,
    exchange: Mutex<State>,
    sasl: Option<Arc<Sasl>>,
    session: Session,
}

#[derive(Debug)]
enum State {
    Arrived,
    Exchanging {
        exchange: Exchange,
        mechanism: Mechanism,
        without_headers: bool,
    },
    /// Known, by a mechanism of SASL unless it need not say who it is.
    Known {
        mechanism: Option<Mechanism>,
        /// When it last began to authenticate again.
        begun_again: Option<Instant>,
    },
    Refused,
}

/// When a session ends.
#[derive(Debug)]
struct Session {
    epoch: Instant,
    /// Milliseconds after the epoch; 0 if it does not end.
    until_ms: AtomicU64,
}

impl Default for Session {
    fn default() -> Self {
        Self { epoch: Instant::now(), until_ms: AtomicU64::new(0) }
    }
}

/// What a message of an exchange is judged by.
#[derive(Clone, Copy)]
pub(crate) struct Present<'a> {
    pub(crate) image: &'a Image,
    pub(crate) now_ms: i64,
    /// How delegation tokens are made, if they are.
    pub(crate) tokens: Option<&'a TokenSettings>,
}

/// The answer to a message of an exchange.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) message: Bytes,
    /// How long the session will last that begins with it; 0 if it does not end.
    pub(crate) lifetime_ms: i64,
    /// Whether it is known now who it is.
    pub(crate) is_done: bool,
}

/// The shortest time between two beginnings of an exchange within a session.
const BEGINNINGS_APART: Duration = Duration::from_secs(1);

/// Why a message of the exchange has no answer within the mechanism.
#[derive(Debug)]
pub(crate) enum Misstep {
    /// The connection is known already.
    AlreadyKnown,
    /// It is not the turn of this message.
    OutOfTurn,
    /// The mechanism is not served here.
    Mechanism,
    /// The client is not who it says.
    Refused(Refusal),
    /// It is not who it was.
    OtherPrincipal,
}

impl Default for Identity {
    /// Somebody who need not say who it is.
    fn default() -> Self {
        Self::known(Principal::anonymous())
    }
}

impl Identity {
    fn known(principal: Principal) -> Self {
        Self {
            is_known: AtomicBool::new(true),
            is_by_token: AtomicBool::new(false),
            principal: OnceLock::from(principal),
            exchange: Mutex::new(State::Known { mechanism: None, begun_again: None }),
            sasl: None,
            session: Session::default(),
        }
    }

    /// Who it is, once that is known.
    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.get()
    }

    /// Reports whether it showed a delegation token.
    pub(crate) fn is_by_token(&self) -> bool {
        self.is_by_token.load(Ordering::Relaxed)
    }

    /// Reports whether its session is over, so that it would have to authenticate again.
    #[inline]
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        let until_ms = self.session.until_ms.load(Ordering::Relaxed);
        until_ms != 0 && now >= self.session.epoch + Duration::from_millis(until_ms)
    }

    /// Reports how far the connection has come.
    pub(crate) fn standing(&self) -> Standing {
        if self.is_known.load(Ordering::Relaxed) {
            return Standing::Known;
        }
        match *self.exchange.lock() {
            State::Refused => Standing::Refused,
            _ => Standing::Unknown,
        }
    }

    /// The names of the mechanisms that are served.
    pub(crate) fn mechanisms(&self) -> Vec<Str> {
        let mechanisms = self.sasl.as_ref().map_or(&[][..], |sasl| &sasl.mechanisms);
        mechanisms.iter().map(|mechanism| Str::from(mechanism.name())).collect()
    }

    /// Begins with a mechanism, for the first time or again.
    pub(crate) fn choose(
        &self,
        name: &str,
        without_headers: bool,
        random: &dyn Random,
    ) -> Result<(), Misstep> {
        let mut state = self.exchange.lock();
        let Some(sasl) = &self.sasl else { return Err(Misstep::AlreadyKnown) };
        let only = match &*state {
            State::Arrived => None,
            State::Known { mechanism, begun_again } => {
                let ends = self.session.until_ms.load(Ordering::Relaxed) != 0;
                let too_soon = begun_again.is_some_and(|begun| begun.elapsed() < BEGINNINGS_APART);
                if !ends || too_soon || without_headers {
                    return Err(Misstep::AlreadyKnown);
                }
                *mechanism
            }
            State::Exchanging { .. } | State::Refused => return Err(Misstep::OutOfTurn),
        };
        let served = sasl.mechanisms.iter().copied().find(|known| known.name() == name);
        match served.filter(|chosen| only.is_none_or(|only| only == *chosen)) {
            Some(mechanism) => {
                let exchange = Exchange::begin(mechanism, random);
                *state = State::Exchanging { exchange, mechanism, without_headers };
                Ok(())
            }
            None => {
                self.refuse(&mut state);
                Err(Misstep::Mechanism)
            }
        }
    }

    fn refuse(&self, state: &mut State) {
        *state = State::Refused;
        self.is_known.store(false, Ordering::Relaxed);
    }

    /// Reports whether the next frame is a message of the mechanism as it is.
    pub(crate) fn expects_bare_message(&self) -> bool {
        !self.is_known.load(Ordering::Relaxed)
            && matches!(*self.exchange.lock(), State::Exchanging { without_headers: true, .. })
    }

    /// Takes a message of the mechanism and returns the answer.
    pub(crate) fn step(&self, message: &[u8], present: Present<'_>) -> Result<Stepped, Misstep> {
        let mut state = self.exchange.lock();
        let (State::Exchanging { exchange, mechanism, .. }, Some(sasl)) = (&mut *state, &self.sasl)
        else {
            return Err(match *state {
                State::Known { .. } => Misstep::AlreadyKnown,
                _ => Misstep::OutOfTurn,
            });
        };
        let mechanism = *mechanism;
        match exchange.step(message, &Known { sasl, present }) {
            Ok(Step::Challenge(message)) => Ok(Stepped { message, lifetime_ms: 0, is_done: false }),
            Ok(Step::Done { user, message, until_ms, owner }) => {
                let is_by_token = owner.is_some();
                let principal = match owner {
                    Some(owner) => Principal::parse(&owner),
                    None => Some(Principal::user(&user)),
                };
                let before = self.principal.get();
                let principal = principal.filter(|now| before.is_none_or(|before| before == now));
                let Some(principal) = principal else {
                    self.refuse(&mut state);
                    return Err(Misstep::OtherPrincipal);
                };
                let begun_again = before.map(|_| Instant::now());
                self.principal.get_or_init(|| principal);
                self.is_by_token.store(is_by_token, Ordering::Relaxed);
                let max_ms = sasl.sessions_max_ms.get(mechanism.name()).copied();
                let lifetime_ms = self.begin_session(until_ms, max_ms, present.now_ms);
                *state = State::Known { mechanism: Some(mechanism), begun_again };
                self.is_known.store(true, Ordering::Relaxed);
                Ok(Stepped { message, lifetime_ms, is_done: true })
            }
            Err(refusal) => {
                self.refuse(&mut state);
                Err(Misstep::Refused(refusal))
            }
        }
    }

    /// Begins a session and says how long it lasts. As in Kafka, the end of a token is told, but
    /// only with `connections.max.reauth.ms` is it also the end of the connection.
    fn begin_session(&self, until_ms: Option<i64>, max_ms: Option<i64>, now_ms: i64) -> i64 {
        let left_ms = until_ms.map(|until_ms| until_ms.saturating_sub(now_ms).max(0));
        let Some(max_ms) = max_ms else {
            return left_ms.unwrap_or(0);
        };
        let lifetime_ms = left_ms.map_or(max_ms, |left_ms| left_ms.min(max_ms)).max(1);
        let age = self.session.epoch.elapsed() + Duration::from_millis(lifetime_ms as u64);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.session.until_ms.store(age_ms.max(1), Ordering::Relaxed);
        lifetime_ms
    }
}

/// The credentials of a listener and of the image.
struct Known<'a> {
    sasl: &'a Sasl,
    present: Present<'a>,
}

impl Credentials for Known<'_> {
    fn plain(&self) -> &PlainUsers {
        &self.sasl.plain
    }

    fn scram(&self, user: &str, mechanism: ScramMechanism) -> Option<ScramCredential> {
        self.present.image.scram().of(&Str::copy_from(user), mechanism).cloned()
    }

    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenCredential> {
        let settings = self.present.tokens?;
        let token = self.present.image.tokens().by_id(&Str::copy_from(id))?;
        if token.has_expired(self.present.now_ms) {
            return None;
        }
        let password = token_hmac(settings, &token.id);
        Some(TokenCredential {
            credential: self.sasl.decoys.token_credential(id, mechanism, &password),
            owner: token.owner.clone(),
            until_ms: token.expires_ms.min(token.max_ms),
        })
    }

    fn bearer(&self, token: &str) -> Option<Bearer> {
        self.sasl.issuer.as_ref()?.check(token, self.present.now_ms)
    }

    fn decoys(&self) -> &Decoys {
        &self.sasl.decoys
    }
}
