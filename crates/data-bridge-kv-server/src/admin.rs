//! The admin port: probes and metrics over HTTP/1.1, one request a connection, no authentication and nothing secret.

mod metrics;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::opening::{Opening, Progress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::server::{Phase, Shared};

/// Longest request head.
const HEAD_BYTES: usize = 8 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most connections at a time.
const AT_ONCE: usize = 64;

/// With the header that goes with it (RFC 9110, section 15.5.6).
const NOT_ALLOWED: &str = "405 Method Not Allowed\r\nAllow: GET, HEAD";
const UNAVAILABLE: &str = "503 Service Unavailable";
const NOT_FOUND: &str = "try /livez, /readyz, /startupz or /metrics\n";

/// An answer without its head.
struct Response {
    status: &'static str,
    kind: &'static str,
    body: String,
}

/// The connections to the port, oldest first.
#[derive(Default)]
pub struct Requests(VecDeque<AbortHandle>);

impl Requests {
    /// Sees to one more. Where there are too many the oldest ends: whoever asks at once was answered long ago, and
    /// whoever says nothing must not keep a probe out.
    fn add(&mut self, answered: impl Future<Output = ()> + Send + 'static) {
        self.0.retain(|request| !request.is_finished());
        if self.0.len() >= AT_ONCE
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(tokio::spawn(answered).abort_handle());
    }

    /// Answers a request before the store is there.
    pub fn answer_loading(&mut self, stream: TcpStream, opening: Arc<Opening>) {
        self.add(async move { answer_in_time(stream, |path| page_loading(path, &opening)).await });
    }
}

/// Serves until its task is ended.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut requests = Requests::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                requests.add(async move { answer_in_time(stream, |path| page(path, &shared)).await });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the admin port failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The next request before the store is there; `None` if accepting failed. Without an admin port it never comes.
pub async fn next(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn answer_in_time(stream: TcpStream, page: impl Fn(&str) -> Response) {
    // Who is too slow gets nothing; a broken connection is its own affair.
    let _ = tokio::time::timeout(PATIENCE, answer(stream, page)).await;
}

async fn answer(mut stream: TcpStream, page: impl Fn(&str) -> Response) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let path = request.path.unwrap_or_default();
                break match request.method {
                    Some("GET" | "HEAD") => page(path.split('?').next().unwrap_or_default()),
                    _ => plain(NOT_ALLOWED, "only GET and HEAD\n"),
                };
            }
            Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES => {}
            Ok(httparse::Status::Partial) | Err(_) => break plain("400 Bad Request", "bad request\n"),
        }
    };
    let body = if head.starts_with(b"HEAD ") { "" } else { &response.body };
    let text = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n{body}",
        response.status,
        response.kind,
        response.body.len(),
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn page(path: &str, shared: &Shared) -> Response {
    match path {
        "/livez" if shared.is_alive() => plain("200 OK", "ok\n"),
        "/livez" => plain(UNAVAILABLE, "no serving thread has taken a turn lately\n"),
        "/startupz" if shared.phase() != Phase::Starting => plain("200 OK", "ok\n"),
        "/startupz" => plain(UNAVAILABLE, "starting\n"),
        "/readyz" => match shared.phase() {
            Phase::Ready if shared.engine.log_failure().is_some() => plain(UNAVAILABLE, "the log failed\n"),
            Phase::Ready => plain("200 OK", "ok\n"),
            Phase::Starting => plain(UNAVAILABLE, "starting\n"),
            Phase::Draining => plain(UNAVAILABLE, "draining\n"),
        },
        "/metrics" => Response {
            status: "200 OK",
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics::text(shared),
        },
        _ => plain("404 Not Found", NOT_FOUND),
    }
}

fn page_loading(path: &str, opening: &Opening) -> Response {
    match path {
        "/livez" => plain("200 OK", "ok\n"),
        "/startupz" => {
            let Progress { stage, bytes_done, bytes_total } = opening.progress();
            let body = format!(
                "{{\"phase\":\"{}\",\"bytes_done\":{bytes_done},\"bytes_total\":{bytes_total}}}\n",
                stage.word()
            );
            Response { status: UNAVAILABLE, kind: "application/json", body }
        }
        "/readyz" | "/metrics" => plain(UNAVAILABLE, "loading\n"),
        _ => plain("404 Not Found", NOT_FOUND),
    }
}

fn plain(status: &'static str, body: &str) -> Response {
    Response { status, kind: "text/plain; charset=utf-8", body: body.to_owned() }
}
