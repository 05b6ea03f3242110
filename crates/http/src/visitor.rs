//! Who asks for a page, as far as the request says: address, host that was named, credentials.
//!
//! Nothing is judged here but the form; whether a password is right knows the service.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::door::Caller;

/// A question to a service: for what, and by whom.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The host that the client named.
    pub host: String,
    /// The path with its query.
    pub path: String,
    /// Where it comes from.
    pub address: IpAddr,
    /// What it showed, if it showed anything that can be read.
    pub credentials: Option<Credentials>,
    /// The certificate in DER that it presented with TLS, if it did; that it descends from an
    /// authority that is trusted has been checked.
    pub certificate: Option<Arc<[u8]>>,
}

/// What somebody shows to prove who they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic [hidden]",
            Self::Bearer(_) => "Bearer [hidden]",
        })
    }
}

impl Credentials {
    /// Reads an `Authorization` header; `None` if it is of another scheme or not well formed.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return (!rest.is_empty()).then(|| Self::Bearer(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

impl Ask {
    /// Reads what a request says about itself.
    pub(crate) fn of(request: &Request) -> Self {
        let uri = request.uri();
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let caller = request.extensions().get::<Caller>();
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            host: header(header::HOST).or(uri.host()).unwrap_or_default().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            address: caller.map_or(nowhere, |caller| caller.address.ip()),
            credentials: header(header::AUTHORIZATION).and_then(Credentials::parse),
            certificate: caller.and_then(|caller| caller.certificate.clone()),
        }
    }

    /// Reports whether it asks for this machine by an address or `localhost`.
    ///
    /// A foreign name that points here would make a page of ours a part of the foreign site in a
    /// browser's eyes, so that its scripts could read it.
    pub(crate) fn names_an_address(&self) -> bool {
        names_an_address(&self.host)
    }
}

/// Reports whether a host, perhaps with a port, is an address or `localhost`.
pub(crate) fn names_an_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_nonsense_is_none() {
        let basic = Credentials::Basic { user: "ada".to_owned(), password: "a:b".to_owned() };
        assert_eq!(Credentials::parse("Basic YWRhOmE6Yg=="), Some(basic.clone()));
        assert_eq!(Credentials::parse("bearer  x.y.z "), Some(Credentials::Bearer("x.y.z".into())));
        for text in ["", "Basic", "Basic !", "Basic YWRh", "Bearer ", "Digest x", "Basic /w=="] {
            assert_eq!(Credentials::parse(text), None, "{text}");
        }
        assert!(!format!("{basic:?}").contains("ada"));
    }

    #[test]
    fn foreign_names_are_told_from_addresses() {
        for host in ["localhost", "localhost:9644", "127.0.0.1:1", "[::1]:80", "10.0.0.1"] {
            assert!(names_an_address(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9644", "localhost.evil.example", "127.0.0.1.nip.io"]
        {
            assert!(!names_an_address(host), "{host}");
        }
    }
}
