//! `fleuve user token`: delegation tokens, passwords that a user hands to programs for a while (KIP-48).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use fleuve_client::Admin;
use fleuve_client::admin::{DelegationToken, Principal};
use serde_json::{Value, json};

use crate::args::Format;
use crate::failure::Failure;
use crate::outcome::Outcomes;
use crate::output::print;
use crate::quantities::{format_time, parse_duration};

/// Create, list, renew and end delegation tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its id and secret are user and password, with `tokenauth=true`.
    #[command(after_help = "Example:\n  \
        fleuve user token create --renewer User:scheduler --lifetime 2d -o json")]
    Create {
        /// As whom it acts, if not as you.
        #[arg(long, value_name = "User:NAME")]
        owner: Option<String>,
        /// Who may renew it beside the owner; may be repeated.
        #[arg(long, value_name = "User:NAME")]
        renewer: Vec<String>,
        /// How long it can be renewed, as 12h or 7d [default: as long as the broker allows].
        #[arg(long, value_name = "DURATION")]
        lifetime: Option<String>,
    },
    /// List the tokens that you may see, with their secrets.
    List {
        /// Only those of this user; may be repeated.
        #[arg(long, value_name = "User:NAME")]
        owner: Vec<String>,
    },
    /// Let a token live longer.
    Renew {
        #[command(flatten)]
        which: Secret,
        /// By how much, as 12h [default: as long as the broker allows].
        #[arg(long, value_name = "DURATION")]
        period: Option<String>,
    },
    /// End a token, at once or later.
    Expire {
        #[command(flatten)]
        which: Secret,
        /// After this time, as 10m [default: at once].
        #[arg(long, value_name = "DURATION")]
        after: Option<String>,
        /// Only say which token would end.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which token.
#[derive(Debug, Args)]
pub(crate) struct Secret {
    /// The token's secret, as `create` prints it.
    hmac: String,
}

impl Secret {
    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        STANDARD.decode(&self.hmac).map_err(|_| {
            Failure::new("the secret is not base64: copy it from `fleuve user token list`")
        })
    }
}

pub(crate) async fn run(command: Token, admin: &Admin, format: Format) -> Result<(), Failure> {
    match command {
        Token::Create { owner, renewer, lifetime } => {
            let owner = owner.as_deref().map(principal).transpose()?;
            let renewers = principals(&renewer)?;
            let lifetime_ms = duration_ms(lifetime.as_deref())?;
            let token =
                admin.create_delegation_token(owner.as_ref(), &renewers, lifetime_ms).await?;
            show(format, &[token])
        }
        Token::List { owner } => {
            let owners = principals(&owner)?;
            let owners = (!owners.is_empty()).then_some(owners.as_slice());
            show(format, &admin.describe_delegation_tokens(owners).await?)
        }
        Token::Renew { which, period } => {
            let period_ms = duration_ms(period.as_deref())?;
            let until = admin.renew_delegation_token(&which.bytes()?, period_ms).await?;
            let mut outcomes = Outcomes::new(format, false);
            let sentence = format!("the token holds until {}", format_time(until));
            outcomes.done("renew", json!({ "expires_ms": until }), sentence)?;
            outcomes.end()
        }
        Token::Expire { which, after, dry_run } => {
            let after_ms = duration_ms(after.as_deref())?;
            let hmac = which.bytes()?;
            let mut outcomes = Outcomes::new(format, dry_run);
            if dry_run {
                let known = admin.describe_delegation_tokens(None).await?;
                let token = known.into_iter().find(|token| *token.hmac == *hmac);
                let token = token.ok_or_else(|| {
                    Failure::new("there is no such token: see `fleuve user token list`")
                })?;
                let sentence = format!("would end token {} of {}", token.id, text(&token.owner));
                outcomes.done("expire", json!({ "token": token.id }), sentence)?;
                return outcomes.end();
            }
            let until = admin.expire_delegation_token(&hmac, after_ms).await?;
            let sentence = format!("the token ends at {}", format_time(until));
            outcomes.done("expire", json!({ "expires_ms": until }), sentence)?;
            outcomes.end()
        }
    }
}

/// Reads a duration; without one it is the broker who decides.
fn duration_ms(duration: Option<&str>) -> Result<i64, Failure> {
    let Some(duration) = duration else { return Ok(-1) };
    parse_duration(duration)
        .filter(|ms| *ms >= 0)
        .ok_or_else(|| Failure::new(format!("{duration}: expected a duration, as 12h or 7d")))
}

fn principal(written: &str) -> Result<Principal, Failure> {
    match written.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Ok(Principal { kind: kind.to_owned(), name: name.to_owned() })
        }
        _ => Err(Failure::new(format!("`{written}` is no principal: write User:NAME"))),
    }
}

fn principals(written: &[String]) -> Result<Vec<Principal>, Failure> {
    written.iter().map(|written| principal(written)).collect()
}

fn text(principal: &Principal) -> String {
    format!("{}:{}", principal.kind, principal.name)
}

fn show(format: Format, tokens: &[DelegationToken]) -> Result<(), Failure> {
    let renewers = |token: &DelegationToken| token.renewers.iter().map(text).collect::<Vec<_>>();
    let value = tokens.iter().map(|token| {
        json!({
            "id": token.id, "hmac": STANDARD.encode(&token.hmac), "owner": text(&token.owner),
            "requester": token.requester.as_ref().map(text), "renewers": renewers(token),
            "issued_ms": token.issued_ms, "expires_ms": token.expires_ms,
            "ends_ms": token.ends_ms,
        })
    });
    let value = Value::Array(value.collect());
    let rows = tokens.iter().map(|token| {
        vec![
            token.id.clone(),
            STANDARD.encode(&token.hmac),
            text(&token.owner),
            renewers(token).join(" "),
            format_time(token.expires_ms),
            format_time(token.ends_ms),
        ]
    });
    print(
        format,
        &value,
        &["id", "hmac", "owner", "renewers", "holds until", "at most until"],
        rows,
    )
}
