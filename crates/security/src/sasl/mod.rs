//! SASL as servers speak it: how somebody proves who they are.
//!
//! An [`Exchange`] takes the client's messages one after another. It neither knows how they travel
//! nor where credentials are kept.

mod plain;
mod scram;

use std::fmt;

use bytes::Bytes;
use fleuve_metadata::image::{ScramCredential, ScramMechanism};
use fleuve_os::Random;

pub use plain::PlainUsers;
pub use scram::{Decoys, Scram};

/// The mechanisms that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// Name and password as they are.
    Plain,
    /// Proof of knowing a password, without saying it.
    Scram(ScramMechanism),
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 3] =
        [Self::Plain, Self::Scram(ScramMechanism::Sha256), Self::Scram(ScramMechanism::Sha512)];

    /// Returns the registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(mechanism) => mechanism.name(),
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

    /// Returns what stands in for users who do not exist.
    fn decoys(&self) -> &Decoys;
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
    Over,
}

impl Exchange {
    /// Begins with a mechanism that the client has chosen.
    pub fn begin(mechanism: Mechanism, random: &dyn Random) -> Self {
        Self(match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Scram(mechanism) => State::Scram(Box::new(Scram::begin(mechanism, random))),
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
            State::Over => return Err(Refusal("a message after the end")),
        };
        self.0 = next;
        Ok(step)
    }
}
