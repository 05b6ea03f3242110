//! A web site of an application: pages from memory, events as they happen, and what visitors send.
//!
//! Whoever can reach the address may look and send, so it is meant for the loopback. Other sites that a visitor's browser
//! has open must not act in the visitor's name: a site answers only under its own address, takes only JSON, which a browser
//! sends across sites after asking, and never says yes to that question. Pages may load nothing from elsewhere.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::visitor::names_an_address;

/// A boxed future of an answer.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// What an application shows, and takes.
pub trait Site: Send + Sync + 'static {
    /// The page, script or style under a path.
    fn asset(&self, path: &str) -> Option<Asset>;

    /// Begins to send a visitor the events of a path.
    fn subscribe(&self, path: &str) -> Option<Events>;

    /// Takes the JSON that a visitor has sent to a path.
    fn post<'a>(&'a self, path: &'a str, body: Bytes) -> Answer<'a>;
}

/// Something to load.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static str,
}

/// An answer in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The document.
    pub json: String,
}

/// Something that has happened: its kind, and what there is to know about it in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteEvent {
    /// Its kind, in letters.
    pub kind: &'static str,
    /// A JSON document in one line.
    pub json: Arc<str>,
}

/// Events for one visitor; the end of the sender is the end of the connection.
pub type Events = mpsc::Receiver<SiteEvent>;

/// A running site.
#[derive(Debug)]
pub struct SiteServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl SiteServer {
    /// Listens on `address` and shows `site` until shut down.
    pub async fn start(address: SocketAddr, site: Arc<dyn Site>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, mut stopped) = watch::channel(false);
        let shown = Shown { site, stop: stop.subscribe() };
        let routes = Router::new().fallback(answer).with_state(shown);
        let task = tokio::spawn(async move {
            let until_stopped = async move {
                // The sender going away means the same as being told.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            let served = axum::serve(listener, routes).with_graceful_shutdown(until_stopped);
            if let Err(error) = served.await {
                tracing::error!(%address, %error, "the site stopped");
            }
        });
        Ok(Self { address, stop, task })
    }

    /// The address that was bound, with the port the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the visitors' events, stops accepting, and waits for the end.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the site's task failed");
        }
    }
}

#[derive(Clone)]
struct Shown {
    site: Arc<dyn Site>,
    stop: watch::Receiver<bool>,
}

async fn answer(State(shown): State<Shown>, request: Request) -> Response {
    let mut response = dispatch(shown, request).await;
    for (name, value) in PROTECTION {
        let name = HeaderName::from_static(name);
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn dispatch(shown: Shown, request: Request) -> Response {
    let Some(host) = own_host(request.headers()) else {
        return (StatusCode::MISDIRECTED_REQUEST, "ask for this site by its address\n")
            .into_response();
    };
    let path = request.uri().path().to_owned();
    match *request.method() {
        Method::GET => {
            if let Some(asset) = shown.site.asset(&path) {
                return ([(header::CONTENT_TYPE, asset.content_type)], asset.body).into_response();
            }
            match shown.site.subscribe(&path) {
                Some(events) => {
                    let stop = Box::pin(stopped(shown.stop));
                    Sse::new(EventStream { events, stop })
                        .keep_alive(KeepAlive::default())
                        .into_response()
                }
                None => (StatusCode::NOT_FOUND, "nothing here: see /\n").into_response(),
            }
        }
        Method::POST => {
            if !is_own_json(request.headers(), &host) {
                return (StatusCode::FORBIDDEN, "send application/json from this site\n")
                    .into_response();
            }
            let Ok(body) = to_bytes(request.into_body(), BODY_BYTES_MAX).await else {
                return (StatusCode::PAYLOAD_TOO_LARGE, "that is too much\n").into_response();
            };
            let reply = shown.site.post(&path, body).await;
            let status = StatusCode::from_u16(reply.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, "application/json")], reply.json).into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// The host that was asked for, if it is an address or `localhost`.
///
/// A foreign name that points here would make this site a part of the foreign one in a browser's eyes.
fn own_host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    names_an_address(host).then(|| host.to_owned())
}

fn is_own_json(headers: &HeaderMap, host: &str) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_json = text(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim() == "application/json")
    });
    is_json && text(header::ORIGIN).is_none_or(|origin| origin == format!("http://{host}"))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The events of one visitor, until the site ends.
struct EventStream {
    events: Events,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stream for EventStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.events.poll_recv(cx).map(|event| {
            event.map(|event| Ok(Event::default().event(event.kind).data(&*event.json)))
        })
    }
}

/// What a visitor may send at once.
const BODY_BYTES_MAX: usize = 16 << 10;

const PROTECTION: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Echo;

    impl Site for Echo {
        fn asset(&self, path: &str) -> Option<Asset> {
            (path == "/").then_some(Asset { content_type: "text/html", body: "<p>hello" })
        }

        fn subscribe(&self, path: &str) -> Option<Events> {
            (path == "/events").then(|| {
                let (events, receiver) = mpsc::channel(1);
                let event = SiteEvent { kind: "news", json: "{\"a\":1}".into() };
                events.try_send(event).expect("room");
                receiver
            })
        }

        fn post<'a>(&'a self, path: &'a str, body: Bytes) -> Answer<'a> {
            let json = format!("\"{path} {}\"", body.len());
            Box::pin(std::future::ready(Reply { status: 202, json }))
        }
    }

    async fn ask(address: SocketAddr, request: String) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    fn get(path: &str, host: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    }

    fn post(headers: &str, body: &str) -> String {
        format!(
            "POST /posts HTTP/1.1\r\nHost: 127.0.0.1:1\r\n{headers}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn pages_events_and_posts_are_answered() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = SiteServer::start(any_port, Arc::new(Echo)).await.expect("a free port");
        let address = server.address();
        let page = ask(address, get("/", "localhost:80")).await;
        assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("<p>hello"), "{page}");
        assert!(page.contains("content-security-policy: default-src 'none';"), "{page}");
        let events = ask(address, get("/events", "[::1]:80")).await;
        assert!(events.contains("event: news\ndata: {\"a\":1}\n\n"), "{events}");
        let missing = ask(address, get("/other", "127.0.0.1")).await;
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
        let json = "Content-Type: application/json; charset=utf-8\r\n";
        let posted = ask(address, post(json, "{}")).await;
        assert!(posted.starts_with("HTTP/1.1 202") && posted.contains("/posts 2"), "{posted}");
        server.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn other_sites_get_nothing_and_nobody_sends_too_much() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = SiteServer::start(any_port, Arc::new(Echo)).await.expect("a free port");
        let address = server.address();
        let rebound = ask(address, get("/", "evil.example:80")).await;
        assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
        let form = ask(address, post("Content-Type: text/plain\r\n", "{}")).await;
        assert!(form.starts_with("HTTP/1.1 403"), "{form}");
        let json = "Content-Type: application/json\r\n";
        let foreign = format!("{json}Origin: http://evil.example\r\n");
        let foreign = ask(address, post(&foreign, "{}")).await;
        assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
        let own = ask(address, post(&format!("{json}Origin: http://127.0.0.1:1\r\n"), "{}")).await;
        assert!(own.starts_with("HTTP/1.1 202"), "{own}");
        let large = ask(address, post(json, &"x".repeat(BODY_BYTES_MAX + 1))).await;
        assert!(large.starts_with("HTTP/1.1 413"), "{large}");
        server.shutdown().await;
    }
}
