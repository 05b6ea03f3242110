//! SASL as servers speak it: how somebody proves who they are.
//!
//! An [`Exchange`] takes the client's messages one after another. It neither knows how they travel
//! nor where credentials are kept.

mod bearer;
mod password;
mod plain;
mod scram;

use std::fmt;

use bytes::Bytes;
use fleuve_metadata::image::{ScramCredential, ScramMechanism};
use fleuve_os::Random;
use fleuve_protocol::Str;

pub use bearer::Bearing;
pub use password::is_password_of;
pub use plain::PlainUsers;
pub use scram::{Decoys, Scram};

use crate::oauth::Bearer;

/// The mechanisms that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// Name and password as they are.
    Plain,
    /// Proof of knowing a password, without saying it.
    Scram(ScramMechanism),
    /// A token that an issuer has signed.
    OauthBearer,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Plain,
        Self::Scram(ScramMechanism::Sha256),
        Self::Scram(ScramMechanism::Sha512),
        Self::OauthBearer,
    ];

    /// Returns the registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(mechanism) => mechanism.name(),
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// Finds a mechanism by its registered name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What credentials are compared with.
pub trait Credentials {
    /// Returns the users of PLAIN.
    fn plain(&self) -> &PlainUsers;

    /// Finds the credential of a user of SCRAM.
    fn scram(&self, user: &str, mechanism: ScramMechanism) -> Option<ScramCredential>;

    /// Finds a delegation token that is still good, by its id.
    fn token(&self, id: &str, mechanism: ScramMechanism) -> Option<TokenCredential>;

    /// Checks a token of OAUTHBEARER.
    fn bearer(&self, token: &str) -> Option<Bearer>;

    /// Returns what stands in for users who do not exist.
    fn decoys(&self) -> &Decoys;
}

/// What a delegation token is compared with, and whom it stands for.
#[derive(Clone, Debug)]
pub struct TokenCredential {
    /// Its password's credential.
    pub credential: ScramCredential,
    /// As whom its bearer acts, as `Type:name`.
    pub owner: Str,
    /// When it ends.
    pub until_ms: i64,
}

/// What comes after a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The client has to answer this.
    Challenge(Bytes),
    /// The client is who it says.
    Done {
        /// Its name.
        user: String,
        /// The last thing to tell it.
        message: Bytes,
        /// Until when what it showed is good, if that ends.
        until_ms: Option<i64>,
        /// As whom it acts, as `Type:name`, if it showed a delegation token.
        owner: Option<Str>,
    },
}

/// The client is not who it says, or does not speak the mechanism's language.
///
/// The text may be told to the client: it is the same for a user who does not exist and for a
/// password that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Authentication failed: {0}")]
pub struct Refusal(pub(crate) &'static str);

/// One authentication, from the choice of a mechanism to its end.
#[derive(Debug)]
pub struct Exchange(State);

#[derive(Debug)]
enum State {
    Plain,
    Scram(Box<Scram>),
    Bearing(Bearing),
    Over,
}

impl Exchange {
    /// Begins with a mechanism that the client has chosen.
    pub fn begin(mechanism: Mechanism, random: &dyn Random) -> Self {
        Self(match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Scram(mechanism) => State::Scram(Box::new(Scram::begin(mechanism, random))),
            Mechanism::OauthBearer => State::Bearing(Bearing::default()),
        })
    }

    /// Takes the client's next message. There is none after the end, nor after a refusal.
    pub fn step(&mut self, message: &[u8], credentials: &dyn Credentials) -> Result<Step, Refusal> {
        let state = std::mem::replace(&mut self.0, State::Over);
        let (step, next) = match state {
            State::Plain => (credentials.plain().authenticate(message)?, State::Over),
            State::Scram(mut scram) => match scram.step(message, credentials)? {
                step @ Step::Challenge(_) => (step, State::Scram(scram)),
                step @ Step::Done { .. } => (step, State::Over),
            },
            State::Bearing(mut bearing) => match bearing.step(message, credentials)? {
                step @ Step::Challenge(_) => (step, State::Bearing(bearing)),
                step @ Step::Done { .. } => (step, State::Over),
            },
            State::Over => return Err(Refusal("a message after the end")),
        };
        self.0 = next;
        Ok(step)
    }
}
