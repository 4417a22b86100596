//! The admin port: probes and metrics over HTTP/1.1, one request a connection, no authentication and nothing secret.

mod metrics;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::server::{Phase, Shared};

/// Longest request head.
const HEAD_BYTES: usize = 8 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most requests at a time.
const AT_ONCE: usize = 64;

/// An answer without its head.
struct Response {
    status: &'static str,
    kind: &'static str,
    body: String,
}

/// Serves until its task is ended.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // Who is too slow gets nothing; a broken connection is its own affair.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &shared)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the admin port failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                break respond(request.method.unwrap_or_default(), request.path.unwrap_or_default(), shared);
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

fn respond(method: &str, path: &str, shared: &Shared) -> Response {
    if method != "GET" && method != "HEAD" {
        return plain("405 Method Not Allowed", "only GET and HEAD\n");
    }
    let path = path.split('?').next().unwrap_or_default();
    match path {
        "/livez" if shared.is_alive() => plain("200 OK", "ok\n"),
        "/livez" => plain("503 Service Unavailable", "no serving thread has taken a turn lately\n"),
        "/startupz" if shared.phase() != Phase::Starting => plain("200 OK", "ok\n"),
        "/startupz" => plain("503 Service Unavailable", "starting\n"),
        "/readyz" => match shared.phase() {
            Phase::Ready if shared.engine.log_failure().is_some() => {
                plain("503 Service Unavailable", "the log failed\n")
            }
            Phase::Ready => plain("200 OK", "ok\n"),
            Phase::Starting => plain("503 Service Unavailable", "starting\n"),
            Phase::Draining => plain("503 Service Unavailable", "draining\n"),
        },
        "/metrics" => Response {
            status: "200 OK",
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: metrics::text(shared),
        },
        _ => plain("404 Not Found", "try /livez, /readyz, /startupz or /metrics\n"),
    }
}

fn plain(status: &'static str, body: &str) -> Response {
    Response { status, kind: "text/plain; charset=utf-8", body: body.to_owned() }
}
