//! Who a connection belongs to, from its first byte until that is known.
//!
//! ```text
//! Arrived --SaslHandshake--> Exchanging --SaslAuthenticate ...--> Known
//!                                |                                   (TLS and plain listeners begin here)
//!                                +-- wrong --> Refused
//! ```
//!
//! Until a connection is known, nothing is served but ApiVersions and the exchange itself, and its
//! frames are small. After SaslHandshake version 0 the mechanism's messages travel as frames
//! without headers.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fleuve_metadata::config::{
    BrokerSettings, ClientCertificates, Listener, Pem, SaslSettings, TlsSettings,
};
use fleuve_metadata::image::{Image, ScramCredential, ScramMechanism};
use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_security::sasl::{Credentials, Decoys, Exchange, Mechanism, PlainUsers, Refusal, Step};
use fleuve_security::{
    ClientAuth, Jaas, Principal, PrincipalMapping, TlsMaterial, distinguished_name, server_config,
};
use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;

use crate::broker::StartError;
use crate::connection::Standing;

/// What protects a listener, ready for use.
pub(crate) struct Door {
    /// Encrypts connections.
    pub(crate) tls: Option<TlsAcceptor>,
    sasl: Option<Arc<Sasl>>,
    mapping: PrincipalMapping,
}

/// The mechanisms of a listener, and what credentials are compared with.
#[derive(Debug)]
struct Sasl {
    mechanisms: Vec<Mechanism>,
    plain: PlainUsers,
    decoys: Decoys,
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
        let tls = match &listener.protection.tls {
            Some(tls) => {
                let material = read(tls).await.map_err(failed)?;
                let config = server_config(&material).map_err(|error| failed(error.to_string()))?;
                Some(TlsAcceptor::from(config))
            }
            None => None,
        };
        let sasl = match &listener.protection.sasl {
            Some(sasl) => Some(Arc::new(Sasl::new(sasl, random).map_err(failed)?)),
            None => None,
        };
        let mapping = PrincipalMapping::parse(&settings.network.principal_mapping)
            .map_err(|error| failed(format!("ssl.principal.mapping.rules: {error}")))?;
        Ok(Self { tls, sasl, mapping })
    }

    /// Begins with a connection that presented `certificate`, if it presented any.
    pub(crate) fn arrival(&self, certificate: Option<&[u8]>) -> Result<Identity, String> {
        if let Some(sasl) = &self.sasl {
            return Ok(Identity {
                is_known: AtomicBool::new(false),
                principal: OnceLock::new(),
                exchange: Mutex::new(State::Arrived),
                sasl: Some(Arc::clone(sasl)),
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
    fn new(settings: &SaslSettings, random: &dyn Random) -> Result<Self, String> {
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
        })
    }
}

async fn read(tls: &TlsSettings) -> Result<TlsMaterial, String> {
    let trusted = match &tls.trusted {
        Some(pem) => Some(read_pem(pem).await?),
        None => None,
    };
    Ok(TlsMaterial {
        chain: read_pem(&tls.chain).await?,
        key: read_pem(&tls.key).await?,
        trusted,
        client_auth: match tls.client_certificates {
            ClientCertificates::None => ClientAuth::None,
            ClientCertificates::Requested => ClientAuth::Requested,
            ClientCertificates::Required => ClientAuth::Required,
        },
        allow_tls12: tls.allow_tls12,
        allow_tls13: tls.allow_tls13,
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
    principal: OnceLock<Principal>,
    exchange: Mutex<State>,
    sasl: Option<Arc<Sasl>>,
}

#[derive(Debug)]
enum State {
    Arrived,
    Exchanging { exchange: Exchange, without_headers: bool },
    Known,
    Refused,
}

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
            principal: OnceLock::from(principal),
            exchange: Mutex::new(State::Known),
            sasl: None,
        }
    }

    /// Who it is, once that is known.
    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.get()
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

    /// Begins with a mechanism.
    pub(crate) fn choose(
        &self,
        mechanism: &str,
        without_headers: bool,
        random: &dyn Random,
    ) -> Result<(), Misstep> {
        let mut state = self.exchange.lock();
        let sasl = match (&*state, &self.sasl) {
            (State::Known, _) | (_, None) => return Err(Misstep::AlreadyKnown),
            (State::Arrived, Some(sasl)) => sasl,
            _ => return Err(Misstep::OutOfTurn),
        };
        match sasl.mechanisms.iter().find(|known| known.name() == mechanism) {
            Some(known) => {
                let exchange = Exchange::begin(*known, random);
                *state = State::Exchanging { exchange, without_headers };
                Ok(())
            }
            None => {
                *state = State::Refused;
                Err(Misstep::Mechanism)
            }
        }
    }

    /// Reports whether the next frame is a message of the mechanism as it is.
    pub(crate) fn expects_bare_message(&self) -> bool {
        !self.is_known.load(Ordering::Relaxed)
            && matches!(*self.exchange.lock(), State::Exchanging { without_headers: true, .. })
    }

    /// Takes a message of the mechanism and returns the answer.
    pub(crate) fn step(&self, message: &[u8], image: &Image) -> Result<Bytes, Misstep> {
        let mut state = self.exchange.lock();
        let (State::Exchanging { exchange, .. }, Some(sasl)) = (&mut *state, &self.sasl) else {
            return Err(match *state {
                State::Known => Misstep::AlreadyKnown,
                _ => Misstep::OutOfTurn,
            });
        };
        match exchange.step(message, &Known { sasl, image }) {
            Ok(Step::Challenge(challenge)) => Ok(challenge),
            Ok(Step::Done { user, message }) => {
                self.principal.get_or_init(|| Principal::user(&user));
                *state = State::Known;
                self.is_known.store(true, Ordering::Relaxed);
                Ok(message)
            }
            Err(refusal) => {
                *state = State::Refused;
                Err(Misstep::Refused(refusal))
            }
        }
    }
}

/// The credentials of a listener and of the image.
struct Known<'a> {
    sasl: &'a Sasl,
    image: &'a Image,
}

impl Credentials for Known<'_> {
    fn plain(&self) -> &PlainUsers {
        &self.sasl.plain
    }

    fn scram(&self, user: &str, mechanism: ScramMechanism) -> Option<ScramCredential> {
        self.image.scram().of(&Str::copy_from(user), mechanism).cloned()
    }

    fn decoys(&self) -> &Decoys {
        &self.sasl.decoys
    }
}
