//! Asking another instance of a service over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Gets what `authority`, a host with its port, has under `path`: the status and the body. Everything is over within
/// `patience`, and bodies longer than `bytes_max` are refused.
pub async fn get(
    authority: &str,
    path: &str,
    patience: Duration,
    bytes_max: usize,
) -> Result<(u16, Bytes), String> {
    match tokio::time::timeout(patience, exchange(authority, path, bytes_max)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{authority} does not answer in {} ms", patience.as_millis())),
    }
}

async fn exchange(authority: &str, path: &str, bytes_max: usize) -> Result<(u16, Bytes), String> {
    let text = |error: hyper::Error| format!("{authority}: {error}");
    let stream = TcpStream::connect(authority).await.map_err(|e| format!("{authority}: {e}"))?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{path}: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        Ok((status, body.map_err(|error| format!("{authority}: {error}"))?.to_bytes()))
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
