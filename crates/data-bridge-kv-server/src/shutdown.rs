//! SIGTERM, Ctrl-C and the end of the log. For a signal: not ready at once, serve on for the drain delay, stop accepting, finish what is in flight. A
//! second signal skips the waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::server::{FINISH, Server};

/// The signals that end the server. Must be made inside a tokio runtime.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens for them from now on.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How often the log is looked at, and how long clients may take to hear that it failed.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until the log fails; answers why.
async fn log_failure(server: &Server) -> String {
    loop {
        if let Some(failure) = server.shared().engine.log_failure() {
            return failure;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for the first signal, then ends the server as the module says. If the log fails the server ends at once, since it
/// may acknowledge nothing any more. The answer is why the log failed, also if it did so at the very end.
pub async fn until_signal(server: Server, mut signals: Signals, drain_delay: Duration) -> Option<String> {
    let failure = tokio::select! {
        () = signals.next() => None,
        failure = log_failure(&server) => Some(failure),
    };
    let shared = Arc::clone(server.shared());
    if failure.is_some() {
        tracing::error!(failure, "the log failed: nothing is acknowledged any more, the server ends");
        tokio::time::sleep(LOOK).await;
        server.stop(LOOK).await;
        return failure;
    }
    server.drain();
    tracing::info!(delay_seconds = drain_delay.as_secs_f64(), "shutting down: not ready from now on");
    let limit = tokio::select! {
        () = tokio::time::sleep(drain_delay) => FINISH,
        () = signals.next() => Duration::ZERO,
        _ = log_failure(&server) => LOOK,
    };
    let mut stopping = std::pin::pin!(server.stop(limit));
    let ended = tokio::select! {
        ended = &mut stopping => ended,
        // A second signal while connections finish: what is still open is cut off with the runtime.
        () = signals.next() => usize::MAX,
    };
    match ended {
        0 => tracing::info!("stopped: every connection finished"),
        usize::MAX => tracing::info!("stopped at the second signal"),
        ended => tracing::info!(ended, "stopped: some connections had to be ended"),
    }
    // Where the waits were skipped it is still open; its last writes are acknowledged all the same.
    drop(shared.engine.close());
    let failure = shared.engine.log_failure();
    if let Some(failure) = &failure {
        tracing::error!(failure, "the log failed at the end: what it was not done with may be lost");
    }
    failure
}
