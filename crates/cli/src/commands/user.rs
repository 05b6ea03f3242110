//! `fleuve user`: users that log in with SCRAM.

use clap::{Args, Subcommand, ValueEnum};
use fleuve_client::Admin;
use fleuve_client::admin::ScramMechanism;
use fleuve_os::{OsRandom, Random};
use fleuve_protocol::ErrorCode;
use serde_json::{Value, json};

use super::token::{self, Token};
use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::outcome::Outcomes;
use crate::output::print;
use crate::password::read_new;

/// Create, list, change and delete users that log in with SCRAM.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Create a user; the password is asked for, or read from stdin.
    #[command(after_help = "Examples:\n  \
        fleuve user create ann\n  \
        fleuve user create ann < password.txt")]
    Create(Password),
    /// Give a user another password, which is asked for, or read from stdin.
    #[command(after_help = "Example:\n  fleuve user alter ann --mechanism SCRAM-SHA-512")]
    Alter(Password),
    /// List users.
    List,
    /// Passwords for programs that hold for a while: delegation tokens.
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Delete a user's credentials.
    Delete {
        /// The user.
        name: String,
        /// Only the credential of this mechanism.
        #[arg(long, value_enum)]
        mechanism: Option<Mechanism>,
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
}

/// A user and its password.
#[derive(Debug, Args)]
pub(crate) struct Password {
    /// The user.
    name: String,
    /// Only the credential of this mechanism; unless given, both for a new user, and for others those
    /// they have.
    #[arg(long, value_enum)]
    mechanism: Option<Mechanism>,
    /// Rounds of hashing, 4096 to 16384: what guessing a password costs, and what a login costs.
    #[arg(long, default_value_t = 8192)]
    iterations: u32,
    /// The password; without this option it stays out of the process list.
    #[arg(long)]
    password: Option<String>,
}

/// A SCRAM mechanism.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mechanism {
    /// SCRAM-SHA-256.
    #[value(name = "SCRAM-SHA-256", alias = "scram-sha-256")]
    Sha256,
    /// SCRAM-SHA-512.
    #[value(name = "SCRAM-SHA-512", alias = "scram-sha-512")]
    Sha512,
}

/// Bytes of salt, as many as Kafka's tools take.
pub(crate) const SALT_BYTES: usize = 24;

pub(crate) async fn run(command: User, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        User::Create(password) => {
            if !mechanisms_of(&admin, &password.name).await?.is_empty() {
                return Err(Failure::new(format!(
                    "user {} exists: use `fleuve user alter` for another password",
                    password.name
                )));
            }
            let told = ("create", "created", common.output);
            set(&admin, password, &ScramMechanism::ALL, told).await
        }
        User::Alter(password) => {
            let known = mechanisms_of(&admin, &password.name).await?;
            if known.is_empty() {
                return Err(Failure::new(format!(
                    "there is no user {}: see `fleuve user list`",
                    password.name
                )));
            }
            // What somebody has left out on purpose does not come back with a new password.
            set(&admin, password, &known, ("alter", "changed", common.output)).await
        }
        User::List => {
            let mut users = Vec::new();
            for (_, user) in admin.describe_scram_users(&[]).await? {
                users.push(user?);
            }
            users.sort_unstable_by(|left, right| left.name.cmp(&right.name));
            let value = users
                .iter()
                .map(|user| {
                    let credentials: Vec<_> = user
                        .credentials
                        .iter()
                        .map(|(mechanism, iterations)| {
                            json!({ "mechanism": mechanism.name(), "iterations": iterations })
                        })
                        .collect();
                    json!({ "name": user.name, "credentials": credentials })
                })
                .collect();
            let rows = users.iter().flat_map(|user| {
                user.credentials.iter().map(|(mechanism, iterations)| {
                    let mechanism = mechanism.name().to_owned();
                    vec![user.name.clone(), mechanism, iterations.to_string()]
                })
            });
            print(common.output, &value, &["user", "mechanism", "iterations"], rows)
        }
        User::Token { command } => token::run(command, &admin, common.output).await,
        User::Delete { name, mechanism, dry_run } => {
            let mut found = mechanisms_of(&admin, &name).await?;
            if let Some(only) = mechanism {
                found.retain(|known| *known == only.into());
            }
            if found.is_empty() {
                return Err(Failure::new(format!(
                    "user {name} has no such credential: see `fleuve user list`"
                )));
            }
            let mut outcomes = Outcomes::new(common.output, dry_run);
            for mechanism in found {
                if !dry_run {
                    admin.delete_scram_credential(&name, mechanism).await?;
                }
                let verb = if dry_run { "would delete" } else { "deleted" };
                let sentence = format!("{verb} the {} credential of {name}", mechanism.name());
                outcomes.done("delete", subject(&name, mechanism), sentence)?;
            }
            outcomes.end()
        }
    }
}

impl From<Mechanism> for ScramMechanism {
    fn from(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Sha256 => Self::Sha256,
            Mechanism::Sha512 => Self::Sha512,
        }
    }
}

async fn mechanisms_of(admin: &Admin, name: &str) -> Result<Vec<ScramMechanism>, Failure> {
    let found = admin.describe_scram_users(&[name]).await?.into_iter().next();
    match found.map(|(_, user)| user) {
        Some(Ok(user)) => Ok(user.credentials.iter().map(|(mechanism, _)| *mechanism).collect()),
        Some(Err(error)) if error.code() == Some(ErrorCode::ResourceNotFound) => Ok(Vec::new()),
        Some(Err(error)) => Err(error.into()),
        None => Ok(Vec::new()),
    }
}

async fn set(
    admin: &Admin,
    options: Password,
    usual: &[ScramMechanism],
    (action, verb, format): (&str, &str, Format),
) -> Result<(), Failure> {
    let Password { name, mechanism, iterations, password } = options;
    let password = match password {
        Some(password) => password,
        None => read_new(&name)?,
    };
    let mechanisms = match mechanism {
        Some(only) => vec![only.into()],
        None => usual.to_vec(),
    };
    let mut outcomes = Outcomes::new(format, false);
    for mechanism in mechanisms {
        let mut salt = [0; SALT_BYTES];
        OsRandom.fill(&mut salt);
        admin.set_scram_password(&name, mechanism, iterations, &salt, &password).await?;
        let sentence = format!("{verb} the {} credential of {name}", mechanism.name());
        outcomes.done(action, subject(&name, mechanism), sentence)?;
    }
    outcomes.end()
}

fn subject(name: &str, mechanism: ScramMechanism) -> Value {
    json!({ "user": name, "mechanism": mechanism.name() })
}
