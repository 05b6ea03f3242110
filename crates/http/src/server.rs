//! The HTTP server behind `/metrics`, `/healthz`, `/readyz` and the pages of a service.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Exposition, ProcessUsage};

const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a service tells the HTTP door about itself.
pub trait Probe: Send + Sync + 'static {
    /// Adds the service's families to a metrics page.
    fn write_metrics(&self, page: &mut Exposition);

    /// Says whether the service can do its work, and if not, why.
    fn readiness(&self) -> Result<(), String>;

    /// Answers what is asked for under a path of the service's own; `None` if there is nothing.
    ///
    /// `host` is the host that the client named, and `path` the path with its query.
    fn page(&self, _host: &str, _path: &str) -> Option<Page> {
        None
    }

    /// Answers as [`Self::page`] does, where an answer has to be waited for.
    fn later<'a>(&'a self, host: &'a str, path: &'a str) -> LaterPage<'a> {
        Box::pin(std::future::ready(self.page(host, path)))
    }
}

/// A page that has to be waited for.
pub type LaterPage<'a> = Pin<Box<dyn Future<Output = Option<Page>> + Send + 'a>>;

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
    /// Listens on `address` and answers for `probe` until shut down.
    pub async fn start(address: SocketAddr, probe: Arc<dyn Probe>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, mut stopped) = watch::channel(false);
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .fallback(get(page))
            .with_state(probe);
        let task = tokio::spawn(async move {
            let until_stopped = async move {
                // The sender going away means the same as being told.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            if let Err(error) =
                axum::serve(listener, routes).with_graceful_shutdown(until_stopped).await
            {
                tracing::error!(%address, %error, "the HTTP server stopped");
            }
        });
        Ok(Self { address, stop, task })
    }

    /// The address that was bound, with the port the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets running requests finish and waits for the end.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP server's task failed");
        }
    }
}

async fn metrics(State(probe): State<Arc<dyn Probe>>) -> Response {
    let mut page = Exposition::new();
    probe.write_metrics(&mut page);
    if let Some(usage) = ProcessUsage::read() {
        usage.write(&mut page);
    }
    ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], page.into_text()).into_response()
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> Response {
    match probe.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
    }
}

async fn page(State(probe): State<Arc<dyn Probe>>, request: Request) -> Response {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match probe.later(named.or(uri.host()).unwrap_or_default(), path).await {
        Some(page) => {
            let status = StatusCode::from_u16(page.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, "application/json")], page.json).into_response()
        }
        None => {
            (StatusCode::NOT_FOUND, "nothing here: see /metrics, /healthz, /readyz and /v3/kafka\n")
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::Kind;

    struct Starting;

    impl Probe for Starting {
        fn write_metrics(&self, page: &mut Exposition) {
            page.family("answers", Kind::Gauge, "The answer.").sample(&[], 42.0);
        }

        fn readiness(&self) -> Result<(), String> {
            Err("loading".to_owned())
        }

        fn page(&self, host: &str, path: &str) -> Option<Page> {
            (path == "/own?a=b").then(|| Page { status: 418, json: format!("{{\"{host}\":1}}") })
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn the_three_pages_answer_and_the_server_ends() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(any_port, Arc::new(Starting)).await.expect("a free port");
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
        assert!(page.contains("application/json") && page.ends_with("{\"x\":1}"), "{page}");
        let page = get(address, "/other").await;
        assert!(page.starts_with("HTTP/1.1 404") && page.contains("/metrics"), "{page}");

        server.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
