//! The client-credentials grant (RFC 6749, 4.4): a token from an authorization server over HTTP.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::config::{Secret, TlsConfig};
use crate::error::{Error, Result};
use crate::http::exchange;
use crate::transport::TlsTransport;

/// What we read of the server's answer.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds.
    expires_in: Option<f64>,
}

/// A server that does not say how long a token is good.
const LIFETIME_UNKNOWN: Duration = Duration::from_secs(60);
/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks `endpoint` for a token and returns it with its lifetime.
pub(super) async fn fetch_token(
    endpoint: &str,
    client_id: &str,
    client_secret: &Secret,
    scope: Option<&str>,
    tls: Option<&TlsConfig>,
) -> Result<(Secret, Duration)> {
    let failed = |reason: String| Error::Authentication {
        broker: format!("token endpoint {endpoint}"),
        reason,
        is_retriable: true,
    };
    let asking = ask(endpoint, client_id, client_secret, scope, tls);
    let (status, body) = match tokio::time::timeout(TIMEOUT, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(reason)) => return Err(failed(reason)),
        Err(_) => return Err(failed(format!("no answer within {} ms", TIMEOUT.as_millis()))),
    };
    if status != StatusCode::OK {
        return Err(Error::Authentication {
            broker: format!("token endpoint {endpoint}"),
            reason: format!("it answered {status}"),
            is_retriable: status.is_server_error(),
        });
    }
    let granted: Granted = serde_json::from_slice(&body)
        .map_err(|_| failed("its answer is not JSON with an access_token".to_owned()))?;
    let lifetime = granted
        .expires_in
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(LIFETIME_UNKNOWN);
    Ok((Secret::new(granted.access_token), lifetime))
}

async fn ask(
    endpoint: &str,
    client_id: &str,
    client_secret: &Secret,
    scope: Option<&str>,
    tls: Option<&TlsConfig>,
) -> Result<(StatusCode, Bytes), String> {
    let uri: Uri = endpoint.parse().map_err(|error| format!("not a URL: {error}"))?;
    let host = uri.host().ok_or("a URL without a host")?.to_owned();
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let authority = uri.authority().map_or_else(|| host.clone(), ToString::to_string);
    let mut form = "grant_type=client_credentials".to_owned();
    if let Some(scope) = scope {
        form.push_str("&scope=");
        form.push_str(&form_encoded(scope));
    }
    let credentials = STANDARD.encode(format!("{client_id}:{}", client_secret.expose()));
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority)
        .header(header::AUTHORIZATION, format!("Basic {credentials}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(form)))
        .map_err(|error| error.to_string())?;
    let text = |error: std::io::Error| error.to_string();
    if is_https {
        let config = tls.cloned().unwrap_or_default();
        // Our own certificate is for brokers.
        let config = TlsConfig { identity: None, ..config };
        let transport = TlsTransport::new(&config).map_err(|error| error.to_string())?;
        exchange(transport.open(&host, port).await.map_err(text)?, request).await
    } else {
        exchange(TcpStream::connect((&*host, port)).await.map_err(text)?, request).await
    }
}

/// Encodes a form's value.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
