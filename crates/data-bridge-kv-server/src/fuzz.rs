//! What must hold for any bytes on a connection, as plain functions like those of the test kit: tests call them on
//! stable Rust, the targets in `fuzz/` under libFuzzer. A body panics if a promise is broken and answers whether the
//! input was accepted.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use data_bridge_kv::{Engine, Settings};

use crate::config::Config;
use crate::config::layers::Layers;
use crate::dialogue::{Dialogue, Ending, Next};
use crate::requests::{self, Scratch, Tail};
use crate::resp::parse::Limits;
use crate::resp::scan::Scan;
use crate::server::Shared;

const LIMITS: Limits = Limits { arguments: 1000, bulk_bytes: 4096, inline_bytes: 512 };

/// Requests: a part of the input is whole exactly where the scan says so, and never reads differently than in the
/// whole input; what builds a command does so without a panic.
pub fn resp(bytes: &[u8]) -> bool {
    let (mut args, mut scratch, mut requests) = (Vec::new(), Scratch::default(), Vec::new());
    let tail = requests::read(bytes, &LIMITS, usize::MAX, &mut args, &mut scratch, &mut requests, |_, _| {});
    requests::complete(&mut args, &scratch, &mut requests);
    for request in requests.iter().filter(|request| !request.is_empty()) {
        // A command that can't be built is as good as one that can.
        let _ = request.call(&args);
    }
    let Some(first) = requests.first() else { return tail == Tail::More };
    let end = first.bytes.end;
    if end <= 256 && bytes.first() == Some(&b'*') {
        let mut scan = Scan::default();
        for cut in 1..=end {
            let part = bytes.get(..cut).unwrap_or_default();
            assert_eq!(scan.is_whole(part, &LIMITS), Ok(cut == end), "cut at {cut} of {end}");
        }
    }
    true
}

/// A connection's whole dialogue with a small store behind it: it always goes on or ends, and uses up no more than
/// it was given.
pub fn dialogue(bytes: &[u8]) -> bool {
    let shared = shared();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let Ok(client) = shared.clients.admit(address, address, true, 0) else { return false };
    let mut dialogue = Dialogue::new(Arc::clone(shared), Arc::clone(&client));
    let mut rest = bytes;
    let mut answered = false;
    loop {
        let (used, next) = dialogue.feed(rest);
        assert!(used <= rest.len(), "used {used} of {}", rest.len());
        rest = rest.get(used..).unwrap_or_default();
        answered |= !dialogue.out.is_empty();
        match next {
            Next::Input | Next::End(_) => break,
            Next::Room => assert!(!dialogue.out.is_empty(), "waits for nothing"),
            Next::Answer if dialogue.end_wait() => {}
            Next::Answer => dialogue.read_letters(&client.mailbox.take()),
            Next::Pause(_) => {}
            Next::Disk => {
                assert!(dialogue.session.caller.needs.take() > 0, "nothing is on disk");
                dialogue.session.caller.most_bytes = u64::MAX;
            }
        }
        dialogue.out.clear();
    }
    shared.engine.disconnect(&dialogue.session.caller);
    shared.clients.remove(&client, Ending::Wanted);
    answered
}

fn shared() -> &'static Arc<Shared> {
    static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let settings = Settings {
            max_memory: 64 << 20,
            shards: Some(2),
            seed: Some(1),
            background: false,
            ..Settings::default()
        };
        let opened = Engine::open(settings).ok().zip(Config::read(&Layers::default()).ok());
        let shared = opened.and_then(|(engine, (config, _))| Shared::new(config, Arc::new(engine)).ok());
        Arc::new(shared.unwrap_or_else(|| unreachable!("the defaults are valid")))
    })
}
