//! OAUTHBEARER (RFC 7628) as a server.
//!
//! ```text
//! client   n,[a=AUTHZID],^Aauth=Bearer TOKEN^A[KEY=VALUE^A ...]^A
//! server   nothing, or {"status":"invalid_token"}
//! client   ^A, after which it is refused
//! ```

use bytes::Bytes;

use super::{Credentials, Refusal, Step};

/// Ends each part of a message.
const CONTROL_A: char = '\u{1}';

/// What a client hears whose token is refused; why is written to the log alone.
const INVALID: &str = "{\"status\":\"invalid_token\"}";

/// One authentication by OAUTHBEARER.
#[derive(Debug, Default)]
pub struct Bearing {
    is_refused: bool,
}

impl Bearing {
    pub(super) fn step(
        &mut self,
        message: &[u8],
        credentials: &dyn Credentials,
    ) -> Result<Step, Refusal> {
        if self.is_refused {
            return Err(Refusal(INVALID));
        }
        let message = std::str::from_utf8(message).map_err(|_| Refusal("not a text"))?;
        let (authorization_id, token) = read(message)?;
        match credentials.bearer(token) {
            Some(bearer) if authorization_id.is_none_or(|id| id == bearer.subject) => {
                Ok(Step::Done {
                    user: bearer.subject,
                    message: Bytes::new(),
                    until_ms: Some(bearer.expires_ms),
                    owner: None,
                })
            }
            Some(_) => Err(Refusal(
                "Client requested an authorization id that is different from the token's \
                 principal name",
            )),
            None => {
                self.is_refused = true;
                Ok(Step::Challenge(Bytes::from_static(INVALID.as_bytes())))
            }
        }
    }
}

/// Reads the client's first message: the authorization id, if any, and the token.
fn read(message: &str) -> Result<(Option<&str>, &str), Refusal> {
    const FORM: Refusal = Refusal("the message of OAUTHBEARER cannot be read");
    let (header, pairs) = message.split_once(CONTROL_A).ok_or(FORM)?;
    let header = header.strip_prefix("n,").and_then(|rest| rest.strip_suffix(',')).ok_or(FORM)?;
    let authorization_id = match header {
        "" => None,
        named => Some(named.strip_prefix("a=").ok_or(FORM)?),
    };
    let pairs = pairs.strip_suffix(CONTROL_A).ok_or(FORM)?;
    let mut auth = pairs.split(CONTROL_A).filter_map(|pair| pair.strip_prefix("auth="));
    let (Some(auth), None) = (auth.next(), auth.next()) else { return Err(FORM) };
    let (scheme, token) = auth.split_once(' ').ok_or(FORM)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(FORM);
    }
    Ok((authorization_id.filter(|id| !id.is_empty()), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_clients_write_them() {
        let java = "n,,\u{1}auth=Bearer a.b.c\u{1}\u{1}";
        assert_eq!(read(java), Ok((None, "a.b.c")));
        let named = "n,a=ada,\u{1}auth=bearer a.b.c\u{1}traceId=7\u{1}\u{1}";
        assert_eq!(read(named), Ok((Some("ada"), "a.b.c")));
        for message in [
            "",
            "\u{1}",
            "n,,auth=Bearer x",
            "n,,\u{1}auth=Bearer x",
            "n,,\u{1}auth=Basic x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=Bearer x\u{1}auth=Bearer y\u{1}\u{1}",
            "y,,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,ada,\u{1}auth=Bearer x\u{1}\u{1}",
        ] {
            assert!(read(message).is_err(), "{message:?}");
        }
    }
}
