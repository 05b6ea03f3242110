//! The HTTP server behind `/metrics`, `/healthz`, `/readyz` and the pages of a service.
//!
//! Health is told to everybody. Who may see the rest decides the service, which is told who asks.
//! On a loopback address the door answers only under an address or `localhost`: nothing else keeps a
//! foreign site's scripts from reading it, once the foreign name points here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::door::{Counts, Door, Rules};
use crate::{Ask, Exposition, ProcessUsage};

const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a service tells the HTTP door about itself.
pub trait Probe: Send + Sync + 'static {
    /// Adds the service's families to a metrics page.
    fn write_metrics(&self, page: &mut Exposition);

    /// Says whether the service can do its work, and if not, why.
    fn readiness(&self) -> Result<(), String>;

    /// Reports whether it answers to a name that is neither an address nor `localhost`, although only
    /// this machine reaches it.
    fn answers_to(&self, _host: &str) -> bool {
        false
    }

    /// Says whether whoever asks may see the metrics, and if not, what to tell them.
    fn refuses_metrics<'a>(&'a self, _ask: &'a Ask) -> Asked<'a> {
        Box::pin(std::future::ready(None))
    }

    /// Answers what is asked for under a path of the service's own; `None` if there is nothing.
    fn page<'a>(&'a self, _ask: &'a Ask) -> Asked<'a> {
        Box::pin(std::future::ready(None))
    }
}

/// A boxed future of an answer, if there is one.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Option<Page>> + Send + 'a>>;

/// A JSON document with the status it is sent under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The document.
    pub json: String,
}

/// A running HTTP server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `address` and answers for `probe` until shut down, without TLS.
    pub async fn start(address: SocketAddr, probe: Arc<dyn Probe>) -> io::Result<Self> {
        Self::start_by(Rules::default(), address, probe).await
    }

    /// Does the same for connections that keep to `rules`.
    pub async fn start_by(
        rules: Rules,
        address: SocketAddr,
        probe: Arc<dyn Probe>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::<Counts>::default();
        let is_local = address.ip().is_loopback();
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .fallback(get(page))
            .with_state(Shown { probe, is_local, counts: Arc::clone(&counts) });
        let door = Door::new(listener, rules, counts, routes, stopped);
        Ok(Self { address, stop, task: tokio::spawn(door.serve()) })
    }

    /// The address that was bound, with the port the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets running requests finish for a moment and waits for the end.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP server's task failed");
        }
    }
}

/// What pages are made of.
#[derive(Clone)]
struct Shown {
    probe: Arc<dyn Probe>,
    /// Whether only this machine reaches the door.
    is_local: bool,
    counts: Arc<Counts>,
}

async fn metrics(State(shown): State<Shown>, request: Request) -> Response {
    let Some(ask) = shown.admit(&request) else { return misdirected() };
    if let Some(refusal) = shown.probe.refuses_metrics(&ask).await {
        return refusal.into_response();
    }
    let mut page = Exposition::new();
    shown.probe.write_metrics(&mut page);
    shown.counts.write(&mut page);
    if let Some(usage) = ProcessUsage::read() {
        usage.write(&mut page);
    }
    ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], page.into_text()).into_response()
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.probe.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
    }
}

async fn page(State(shown): State<Shown>, request: Request) -> Response {
    let Some(ask) = shown.admit(&request) else { return misdirected() };
    match shown.probe.page(&ask).await {
        Some(page) => page.into_response(),
        None => {
            (StatusCode::NOT_FOUND, "nothing here: see /metrics, /healthz, /readyz and /v3/kafka\n")
                .into_response()
        }
    }
}

impl Shown {
    /// Reads a question; none if it is asked under a name that is not ours.
    fn admit(&self, request: &Request) -> Option<Ask> {
        let ask = Ask::of(request);
        let is_own = !self.is_local || ask.names_an_address() || self.probe.answers_to(&ask.host);
        is_own.then_some(ask)
    }
}

fn misdirected() -> Response {
    let text = "ask for this page by its address, or by localhost\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], self.json).into_response();
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            for scheme in ["Basic realm=\"fleuve\", charset=\"UTF-8\"", "Bearer"] {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::{Credentials, Kind};

    /// Whether metrics are for those who show a token.
    struct Starting(bool);

    impl Probe for Starting {
        fn write_metrics(&self, page: &mut Exposition) {
            page.family("answers", Kind::Gauge, "The answer.").sample(&[], 42.0);
        }

        fn readiness(&self) -> Result<(), String> {
            Err("loading".to_owned())
        }

        fn refuses_metrics<'a>(&'a self, ask: &'a Ask) -> Asked<'a> {
            let is_known = ask.credentials == Some(Credentials::Bearer("good".to_owned()));
            let refusal = Page { status: 401, json: "{}".to_owned() };
            Box::pin(std::future::ready((!is_known && self.0).then_some(refusal)))
        }

        fn page<'a>(&'a self, ask: &'a Ask) -> Asked<'a> {
            let (host, address) = (&ask.host, ask.address);
            let page = Page { status: 418, json: format!("{{\"{host}\":\"{address}\"}}") };
            Box::pin(std::future::ready((ask.path == "/own?a=b").then_some(page)))
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        get_with(address, path, "Host: localhost\r\n").await
    }

    async fn get_with(address: SocketAddr, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn the_three_pages_answer_and_the_server_ends() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(any_port, Arc::new(Starting(false))).await.expect("a free port");
        let address = server.address();

        let page = get(address, "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.contains("text/plain; version=0.0.4"), "{page}");
        assert!(page.contains("\nanswers 42\n"), "{page}");
        assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
        let page = get(address, "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 503"), "{page}");
        assert!(page.ends_with("not ready: loading\n"), "{page}");

        let page = get(address, "/own?a=b").await;
        assert!(page.starts_with("HTTP/1.1 418"), "{page}");
        assert!(
            page.contains("application/json") && page.ends_with("{\"localhost\":\"127.0.0.1\"}"),
            "{page}"
        );
        let page = get(address, "/other").await;
        assert!(page.starts_with("HTTP/1.1 404") && page.contains("/metrics"), "{page}");

        server.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    /// A script of a foreign site reads what its own name shows, wherever that points to meanwhile.
    #[tokio::test]
    async fn cve_class_dns_rebinding_a_foreign_name_that_points_here_gets_nothing() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(any_port, Arc::new(Starting(false))).await.expect("a free port");
        let address = server.address();
        for path in ["/metrics", "/own?a=b"] {
            for host in ["Host: evil.example\r\n", "Host: evil.example:9644\r\n"] {
                let page = get_with(address, path, host).await;
                assert!(page.starts_with("HTTP/1.1 421"), "{page}");
                assert!(!page.contains("answers 42"), "{page}");
            }
        }
        server.shutdown().await;
    }

    #[tokio::test]
    async fn whoever_the_service_does_not_know_is_asked_who_they_are() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(any_port, Arc::new(Starting(true))).await.expect("a free port");
        let address = server.address();
        let page = get(address, "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 401"), "{page}");
        assert!(page.contains("www-authenticate: Basic realm=\"fleuve\""), "{page}");
        assert!(page.contains("www-authenticate: Bearer"), "{page}");
        let known = "Host: localhost\r\nAuthorization: Bearer good\r\n";
        let page = get_with(address, "/metrics", known).await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(get(address, "/healthz").await.ends_with("ok\n"), "health is for everybody");
        server.shutdown().await;
    }
}
