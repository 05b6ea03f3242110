//! `kafka-delegation-tokens`: passwords that a user hands to programs, for a while.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{ArgGroup, Parser};
use fleuve_client::admin::{DelegationToken, Principal};

use super::Connect;
use crate::failure::Failure;
use crate::output::line;
use crate::quantities::format_time;

/// Create, renew, expire and describe delegation tokens.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["create", "renew", "expire", "describe"]))]
pub(super) struct Tokens {
    #[command(flatten)]
    connect: Connect,
    /// Make a token.
    #[arg(long, requires = "max_life_time_period")]
    create: bool,
    /// Let a token live longer.
    #[arg(long, requires_all = ["hmac", "renew_time_period"])]
    renew: bool,
    /// End a token.
    #[arg(long, requires_all = ["hmac", "expiry_time_period"])]
    expire: bool,
    /// Show tokens.
    #[arg(long)]
    describe: bool,
    /// As whom the token acts, or whose tokens to show; may be repeated.
    #[arg(long)]
    owner_principal: Vec<String>,
    /// Who may renew it; may be repeated.
    #[arg(long)]
    renewer_principal: Vec<String>,
    /// Milliseconds after which the token ends for good; -1 for as long as possible.
    #[arg(long, allow_negative_numbers = true)]
    max_life_time_period: Option<i64>,
    /// Milliseconds by which it lives longer; -1 for as long as possible.
    #[arg(long, allow_negative_numbers = true)]
    renew_time_period: Option<i64>,
    /// Milliseconds after which it ends; -1 for at once.
    #[arg(long, allow_negative_numbers = true)]
    expiry_time_period: Option<i64>,
    /// The token's password.
    #[arg(long)]
    hmac: Option<String>,
}

pub(super) async fn run(options: Tokens) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    let owners = principals(&options.owner_principal)?;
    let renewers = principals(&options.renewer_principal)?;
    let hmac = STANDARD
        .decode(options.hmac.as_deref().unwrap_or_default())
        .map_err(|_| Failure::new("--hmac: expected base64, as --create prints it"))?;
    if options.create {
        let owner = match owners.as_slice() {
            [] => None,
            [owner] => Some(owner),
            _ => return Err(Failure::new("--owner-principal: a token has one owner")),
        };
        let life_ms = options.max_life_time_period.unwrap_or(-1);
        let token = admin.create_delegation_token(owner, &renewers, life_ms).await?;
        line(format!("Created delegation token with tokenId : {}", token.id))?;
        return print(&[token]);
    }
    if options.renew {
        let until_ms =
            admin.renew_delegation_token(&hmac, options.renew_time_period.unwrap_or(-1)).await?;
        let until = minutes(until_ms);
        return line(format!("Completed renew operation. New expiry date : {until}"));
    }
    if options.expire {
        let until_ms =
            admin.expire_delegation_token(&hmac, options.expiry_time_period.unwrap_or(-1)).await?;
        let until = minutes(until_ms);
        return line(format!("Completed expire operation. New expiry date : {until}"));
    }
    let owners = (!owners.is_empty()).then_some(owners.as_slice());
    let tokens = admin.describe_delegation_tokens(owners).await?;
    line(format!("Total number of tokens : {}", tokens.len()))?;
    print(&tokens)
}

fn print(tokens: &[DelegationToken]) -> Result<(), Failure> {
    let row = |parts: [&str; 8]| {
        let [id, hmac, owner, requester, renewers, issued, expires, max] = parts;
        line(format!(
            "{id:<15} {hmac:<30} {owner:<15} {requester:<15} {renewers:<25} {issued:<15} {expires:<15} {max:<15}"
        ))
    };
    line("")?;
    row([
        "TOKENID",
        "HMAC",
        "OWNER",
        "REQUESTER",
        "RENEWERS",
        "ISSUEDATE",
        "EXPIRYDATE",
        "MAXDATE",
    ])?;
    for token in tokens {
        let renewers: Vec<String> = token.renewers.iter().map(name).collect();
        let requester = token.requester.as_ref().map(name).unwrap_or_default();
        let [issued, expires, max] =
            [token.issued_ms, token.expires_ms, token.ends_ms].map(minutes);
        row([
            &token.id,
            &STANDARD.encode(&token.hmac),
            &name(&token.owner),
            &requester,
            &format!("[{}]", renewers.join(", ")),
            &issued,
            &expires,
            &max,
        ])?;
    }
    Ok(())
}

/// Reads principals, written `Type:name`.
fn principals(texts: &[String]) -> Result<Vec<Principal>, Failure> {
    let principal = |text: &String| match text.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Ok(Principal { kind: kind.to_owned(), name: name.to_owned() })
        }
        _ => Err(Failure::new(format!("`{text}` is no principal: write User:NAME"))),
    };
    texts.iter().map(principal).collect()
}

fn name(principal: &Principal) -> String {
    format!("{}:{}", principal.kind, principal.name)
}

/// A time up to its minute, in UTC.
fn minutes(ms: i64) -> String {
    format_time(ms).chars().take("2026-11-21T10:00".len()).collect()
}
