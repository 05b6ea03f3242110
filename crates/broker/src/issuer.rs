//! The issuer whose tokens a listener takes: its keys are fetched at the start, again from time to
//! time, and soon after a token named a key that is not known.
//!
//! An issuer that cannot be reached does not keep the broker from starting, and keys that were read
//! once hold until new ones are; a file that cannot be read is a mistake in the configuration.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fleuve_metadata::config::IssuerSettings;
use fleuve_security::oauth::{Bearer, BearerError, Expectations, KeySet};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A set of keys is a few kilobytes.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// How long fetching may take.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// The shortest time between two fetches because of keys that are not known, which anybody can
/// name who can connect.
const EXPEDITED_APART: Duration = Duration::from_secs(10);

/// An issuer and its keys as they are known.
#[derive(Debug)]
pub(crate) struct Issuer {
    settings: IssuerSettings,
    expectations: Expectations,
    keys: RwLock<Arc<KeySet>>,
    /// A token named a key that is not known.
    wanted: Notify,
}

impl Issuer {
    /// Reads the keys, and keeps reading them as long as somebody holds the issuer.
    pub(crate) async fn start(settings: &IssuerSettings) -> Result<Arc<Self>, String> {
        let issuer = Arc::new(Self {
            expectations: Expectations {
                issuer: settings.issuer.clone(),
                audiences: settings.audiences.clone(),
                clock_skew_seconds: settings.clock_skew_seconds,
                subject_claim: settings.subject_claim.clone(),
                scope_claim: settings.scope_claim.clone(),
            },
            settings: settings.clone(),
            keys: RwLock::default(),
            wanted: Notify::new(),
        });
        let fetched = issuer.fetch().await;
        let has_keys = fetched.is_ok();
        match fetched {
            Ok(()) => {}
            Err(error) if settings.url.starts_with("file:") => {
                return Err(format!("{}: {error}", settings.url));
            }
            Err(error) => {
                tracing::warn!(url = %settings.url, %error, "the issuer's keys cannot be had");
            }
        }
        tokio::spawn(keep_fresh(Arc::downgrade(&issuer), has_keys));
        Ok(issuer)
    }

    /// Checks a token; why one is refused is only logged.
    pub(crate) fn check(&self, token: &str, now_ms: i64) -> Option<Bearer> {
        let keys = Arc::clone(&self.keys.read());
        match self.expectations.check(token, &keys, now_ms) {
            Ok(bearer) => Some(bearer),
            Err(error) => {
                tracing::info!(%error, "a token of OAUTHBEARER is refused");
                if error == BearerError::UnknownKey {
                    self.wanted.notify_one();
                }
                None
            }
        }
    }

    async fn fetch(&self) -> Result<(), String> {
        let url = &self.settings.url;
        let document = match url.strip_prefix("file://").or_else(|| url.strip_prefix("file:")) {
            Some(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?.into(),
            None => match timeout(FETCH_MAX, get(url)).await {
                Ok(fetched) => fetched?,
                Err(_) => return Err("it takes too long".to_owned()),
            },
        };
        let keys = KeySet::parse(&document).map_err(|error| error.to_string())?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }
}

async fn keep_fresh(issuer: Weak<Issuer>, mut has_keys: bool) {
    let Some(settings) = issuer.upgrade().map(|issuer| issuer.settings.clone()) else { return };
    let first_pause = Duration::from_millis(settings.retry_ms.max(1));
    let longest_pause = Duration::from_millis(settings.retry_max_ms).max(first_pause);
    let refresh = Duration::from_millis(settings.refresh_ms.max(1_000));
    let mut pause = first_pause;
    loop {
        let rest = if has_keys { refresh } else { pause };
        {
            // Held only while it waits for a short time, so that a listener that is closed lets go.
            let Some(held) = issuer.upgrade() else { return };
            let slice = rest.min(EXPEDITED_APART);
            let expedited = timeout(slice, held.wanted.notified()).await.is_ok();
            drop(held);
            if !expedited && rest > slice && !wait(&issuer, rest - slice).await {
                return;
            }
        }
        let Some(held) = issuer.upgrade() else { return };
        match held.fetch().await {
            Ok(()) => (has_keys, pause) = (true, first_pause),
            Err(error) => {
                tracing::warn!(url = %settings.url, %error, "the issuer's keys cannot be had");
                has_keys = false;
                pause = (pause * 2).min(longest_pause);
            }
        }
        drop(held);
        sleep(first_pause).await;
    }
}

/// Waits until the time is over or a key is wanted; `false` when nobody holds the issuer any more.
async fn wait(issuer: &Weak<Issuer>, mut rest: Duration) -> bool {
    while !rest.is_zero() {
        let Some(held) = issuer.upgrade() else { return false };
        let slice = rest.min(EXPEDITED_APART);
        if timeout(slice, held.wanted.notified()).await.is_ok() {
            return true;
        }
        rest -= slice;
    }
    true
}

async fn get(url: &str) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    let host = uri.host().ok_or("a URL without a host")?.to_owned();
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let authority = uri.authority().map_or_else(|| host.clone(), ToString::to_string);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let text = |error: io::Error| error.to_string();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await.map_err(text)?;
    if !is_https {
        return exchange(stream, request).await;
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    exchange(connector.connect(server, stream).await.map_err(text)?, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Bytes, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(text)?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    };
    tokio::pin!(asking, connection);
    tokio::select! {
        answer = &mut asking => answer,
        ended = &mut connection => {
            ended.map_err(text)?;
            // The connection may end with the answer already read.
            asking.await
        }
    }
}
