//! SIGTERM and Ctrl-C: not ready at once, serve on for the drain delay, stop accepting, finish what is in flight. A
//! second signal skips the waits.

use std::io;
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

/// Waits for the first signal, then ends the server as the module says.
pub async fn until_signal(server: Server, mut signals: Signals, drain_delay: Duration) {
    signals.next().await;
    server.drain();
    tracing::info!(delay_seconds = drain_delay.as_secs_f64(), "shutting down: not ready from now on");
    let hurry = tokio::select! {
        () = tokio::time::sleep(drain_delay) => false,
        () = signals.next() => true,
    };
    let limit = if hurry { Duration::ZERO } else { FINISH };
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
}
