//! While the directory is being opened: the ports are bound, the probes say how far it is, and each request of a RESP
//! client is answered `-LOADING`, as Redis does. A native client's first request waits. All connections go on with the
//! store as soon as it is there.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use data_bridge_kv::opening::{Opening, Progress};
use data_bridge_kv_model::frame::PREFACE;
use data_bridge_kv_model::limits::ARGUMENTS;
use data_bridge_kv_model::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::listener::{Listener, Newcomer, Ports};
use crate::resp::encode::put_error;
use crate::resp::parse::{self, Intake, Limits};

/// Input of a connection that is looked at before the store is there; what goes beyond waits in the socket.
const HELD_BYTES: usize = 64 << 10;
/// How long a client may take for its answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the log tells of the progress.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// A pause after accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits for the store and answers everybody meanwhile. Beside it come the connections that go on with it.
pub async fn wait<T>(
    ports: &Ports,
    max_clients: usize,
    opening: &Arc<Opening>,
    opened: impl Future<Output = T>,
) -> (T, Vec<Newcomer>) {
    let (is_open, opens) = watch::channel(false);
    let (mut clients, mut probes) = (JoinSet::new(), admin::Requests::default());
    let mut opened = pin!(opened);
    let mut tell = tokio::time::interval(TOLD_EVERY);
    tell.tick().await;
    let outcome = loop {
        let has_room = clients.len() < max_clients;
        tokio::select! {
            outcome = &mut opened => break outcome,
            accepted = any(&ports.listeners), if has_room => match accepted {
                Ok(newcomer) => drop(clients.spawn(hold(newcomer, Arc::clone(opening), opens.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(stream) = admin::next(ports.admin.as_ref()) => {
                probes.answer_loading(stream, Arc::clone(opening));
            }
            // Those who are gone.
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            _ = tell.tick() => {
                let Progress { stage, bytes_done, bytes_total } = opening.progress();
                tracing::info!(stage = stage.word(), bytes_done, bytes_total, "loading the data directory");
            }
        }
    };
    is_open.send_replace(true);
    let held = clients.join_all().await;
    (outcome, held.into_iter().flatten().collect())
}

/// The next connection of any of them.
async fn any(listeners: &[Listener]) -> io::Result<Newcomer> {
    poll_fn(|context| {
        let accepted = listeners.iter().map(|listener| listener.poll_accept(context));
        accepted.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Answers a connection until the store is there. `None` if it is gone before.
async fn hold(
    mut newcomer: Newcomer,
    opening: Arc<Opening>,
    mut opens: watch::Receiver<bool>,
) -> Option<Newcomer> {
    loop {
        let (answers, may_read) = answer(&mut newcomer.unread, &opening.progress());
        let sent = tokio::time::timeout(PATIENCE, newcomer.stream.write_all(&answers)).await;
        sent.ok()?.ok()?;
        tokio::select! {
            biased;
            _ = opens.wait_for(|is_open| *is_open) => return Some(newcomer),
            read = newcomer.stream.read_buf(&mut newcomer.unread), if may_read => {
                if read.ok()? == 0 {
                    return None;
                }
            }
        }
    }
}

/// Takes the whole requests of a RESP client out of its input. Answers what to send, and whether to read on: what is not
/// RESP, or too much, is for the store.
fn answer(unread: &mut Vec<u8>, progress: &Progress) -> (Vec<u8>, bool) {
    if unread.first() == PREFACE.first() {
        return (Vec::new(), false);
    }
    let limits = Limits { arguments: ARGUMENTS, bulk_bytes: HELD_BYTES, inline_bytes: HELD_BYTES };
    let (mut answers, mut used, mut is_resp) = (Vec::new(), 0, true);
    while let Some(rest) = unread.get(used..).filter(|rest| !rest.is_empty()) {
        let (mut args, mut scratch, mut placed) = (Vec::new(), Vec::new(), Vec::new());
        let mut intake = Intake::new(&mut args, &mut scratch, &mut placed);
        match parse::request(rest, &limits, &mut intake) {
            Ok(Some(next)) => {
                used = unread.len().saturating_sub(next.len());
                if !args.is_empty() {
                    put_error(&loading(progress), &mut answers);
                }
            }
            Ok(None) => break,
            Err(_) => {
                is_resp = false;
                break;
            }
        }
    }
    unread.drain(..used);
    (answers, is_resp && unread.len() < HELD_BYTES)
}

fn loading(progress: &Progress) -> Error {
    let Progress { stage, bytes_done, bytes_total } = *progress;
    let percent = bytes_done.saturating_mul(100).checked_div(bytes_total).unwrap_or(0);
    let text = format!("the store is loading its data ({}: {percent} %), try again", stage.word());
    Error::new(ErrorKind::Loading, text)
}
