//! CONFIG in Redis's words: what clients and tools ask for, as far as it has a meaning here.

use data_bridge_kv_model::error::{Error, ErrorKind, Result};
use data_bridge_kv_model::limits::NAMESPACES;
use data_bridge_kv_model::{Arg, Args, Glob, ReplyBuf, Shape, ValueRef};

use super::{shown, unknown_subcommand};
use crate::endpoint::Endpoint;
use crate::session::Session;

pub fn config(session: &Session, mut args: Args<'_>, out: &mut ReplyBuf) -> Result<()> {
    if args.word("GET") {
        get(session, args.all(), out)
    } else if args.word("SET") {
        set(session, args.pairs()?, out)
    } else if args.word("RESETSTAT") {
        args.finish()?;
        Err(Error::new(ErrorKind::Unavailable, "counters are never reset: compare two readings instead"))
    } else {
        Err(unknown_subcommand(&args))
    }
}

/// The settings and their values now, for the selected namespace.
fn settings(session: &Session) -> Vec<(&'static str, String)> {
    let shared = &session.shared;
    let policy = shared.engine.settings(session.caller.namespace).eviction.redis_word();
    let limit = shared.engine.stats().max_memory;
    let limit = if limit == u64::MAX { 0 } else { limit };
    let port = shared.addresses().first().map_or(0, std::net::SocketAddr::port);
    let bind: Vec<String> = shared.addresses().iter().map(|address| address.ip().to_string()).collect();
    let unix = shared.endpoints().iter().find_map(|endpoint| match endpoint {
        Endpoint::Unix(path) => Some(path.display().to_string()),
        Endpoint::Tcp(_) => None,
    });
    vec![
        ("appendonly", "no".to_owned()),
        ("bind", bind.join(" ")),
        ("databases", NAMESPACES.to_string()),
        ("maxclients", shared.config.max_clients.to_string()),
        ("maxmemory", limit.to_string()),
        ("maxmemory-policy", policy.to_owned()),
        ("port", port.to_string()),
        ("proto-max-bulk-len", data_bridge_kv_model::limits::VALUE_BYTES.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
        ("unixsocket", unix.unwrap_or_default()),
    ]
}

fn get(session: &Session, patterns: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    if patterns.is_empty() {
        return Err(Error::invalid("wrong number of arguments for 'config|get' command"));
    }
    let mut globs = Vec::new();
    let lowered: Vec<Vec<u8>> =
        patterns.iter().map(|pattern| pattern.content().unwrap_or_default().to_ascii_lowercase()).collect();
    for pattern in &lowered {
        globs.push(Glob::new(pattern)?);
    }
    let open = out.open(Shape::Map);
    let mut count = 0;
    for (name, value) in settings(session) {
        if globs.iter().any(|glob| glob.matches(name.as_bytes())) {
            out.value(ValueRef::text(name));
            out.value(ValueRef::text(&value));
            count += 1;
        }
    }
    out.close(open, count);
    Ok(())
}

/// A setting may be set to what it is: clients and benchmarks do so at their start. All else is decided when the
/// server starts.
fn set(session: &Session, pairs: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    if pairs.is_empty() {
        return Err(Error::invalid("wrong number of arguments for 'config|set' command"));
    }
    let settings = settings(session);
    for pair in pairs.chunks_exact(2) {
        let [name, value] = pair else { return Err(Error::syntax()) };
        let (name, value) = (name.text()?.to_ascii_lowercase(), value.text()?);
        let known = settings.iter().find(|(known, _)| *known == name);
        let Some((_, now)) = known else {
            let text = format!("Unknown option or number of arguments for CONFIG SET - '{}'", shown(&name));
            return Err(Error::invalid(text));
        };
        if now != value {
            let text = format!("{name} is decided when the server starts: see data-bridge-kv serve --help");
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
    }
    out.ok();
    Ok(())
}
