//! CLIENT: about this and the other connections.

use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv_model::command::table;
use data_bridge_kv_model::error::{Error, Result};
use data_bridge_kv_model::{Arg, Args, ReplyBuf, ValueRef};

use super::{Effect, unknown_subcommand};
use crate::clients::Client;
use crate::mailbox::END;
use crate::session::Session;

/// Longest name of a connection.
const NAME_BYTES: usize = 256;

pub fn client(session: &mut Session, mut args: Args<'_>, out: &mut ReplyBuf) -> Result<Effect> {
    if args.word("ID") {
        out.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    } else if args.word("GETNAME") {
        let names = session.client.names.lock();
        match names.name.as_str() {
            "" => out.missing(),
            name => out.value(ValueRef::bytes(name.as_bytes())),
        }
    } else if args.word("SETNAME") {
        let name = valid_name(args.next_arg()?)?;
        session.client.names.lock().name = name;
        out.ok();
    } else if args.word("SETINFO") {
        set_info(session, &mut args)?;
        out.ok();
    } else if args.word("INFO") {
        out.value(ValueRef::text(&format!("{}\n", describe_client(session, &session.client))));
    } else if args.word("LIST") {
        list(session, &mut args, out)?;
    } else if args.word("KILL") {
        return kill(session, &mut args, out);
    } else if args.word("NO-EVICT") || args.word("NO-TOUCH") {
        if !args.word("ON") && !args.word("OFF") {
            return Err(Error::syntax());
        }
        out.ok();
    } else if args.word("REPLY") {
        if !args.word("ON") {
            return Err(Error::invalid("CLIENT REPLY OFF and SKIP are not available"));
        }
        out.ok();
    } else if args.word("UNPAUSE") {
        out.ok();
    } else {
        return Err(unknown_subcommand(&args));
    }
    args.finish()?;
    Ok(Effect::None)
}

/// A name without blanks and control characters, so that lists stay readable.
pub fn valid_name(name: Arg<'_>) -> Result<String> {
    let name = name.text()?;
    if name.len() > NAME_BYTES || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid("Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(name.to_owned())
}

fn set_info(session: &Session, args: &mut Args<'_>) -> Result<()> {
    let library = args.word("LIB-NAME");
    if !library && !args.word("LIB-VER") {
        return Err(Error::invalid("unknown option of CLIENT SETINFO: LIB-NAME or LIB-VER"));
    }
    let value = valid_name(args.next_arg()?)?;
    let mut names = session.client.names.lock();
    if library {
        names.library = value;
    } else {
        names.library_version = value;
    }
    Ok(())
}

fn list(session: &Session, args: &mut Args<'_>, out: &mut ReplyBuf) -> Result<()> {
    let mut wanted = Vec::new();
    if args.word("ID") {
        for id in args.all() {
            wanted.push(id.int()?);
        }
    } else if args.word("TYPE") && !args.word("NORMAL") {
        // Every connection is a normal one.
        args.next_arg()?;
        wanted.push(-1);
    }
    let mut text = String::new();
    for client in session.shared.clients.list() {
        let id = i64::try_from(client.id).unwrap_or(i64::MAX);
        if wanted.is_empty() || wanted.contains(&id) {
            text.push_str(&describe_client(session, &client));
            text.push('\n');
        }
    }
    out.value(ValueRef::text(&text));
    Ok(())
}

/// `CLIENT KILL ID id` and `CLIENT KILL address:port`.
fn kill(session: &Session, args: &mut Args<'_>, out: &mut ReplyBuf) -> Result<Effect> {
    let all = session.shared.clients.list();
    let (victims, old_form): (Vec<_>, bool) = if args.word("ID") {
        let id = args.next_arg()?.int()?;
        (all.into_iter().filter(|client| i64::try_from(client.id) == Ok(id)).collect(), false)
    } else if args.word("ADDR") {
        let address = args.next_arg()?.text()?;
        (all.into_iter().filter(|client| client.address.to_string() == address).collect(), false)
    } else {
        let address = args.next_arg()?.text()?;
        (all.into_iter().filter(|client| client.address.to_string() == address).collect(), true)
    };
    let mut skip_me = true;
    if args.word("SKIPME") {
        skip_me = !args.word("NO");
        if skip_me && !args.word("YES") {
            return Err(Error::syntax());
        }
    }
    args.finish()?;
    let (mut killed, mut myself) = (0, false);
    for client in victims {
        if client.id != session.client.id {
            client.mailbox.signal(END);
            killed += 1;
        } else if !skip_me || old_form {
            myself = true;
            killed += 1;
        }
    }
    match (old_form, killed) {
        (true, 0) => return Err(Error::invalid("No such client")),
        (true, _) => out.ok(),
        (false, killed) => out.integer(killed),
    }
    Ok(if myself { Effect::End } else { Effect::None })
}

/// One line about a connection, in Redis's words.
pub fn describe_client(session: &Session, client: &Client) -> String {
    let now = session.shared.seconds();
    let names = client.names.lock().clone();
    let opcode = client.last_opcode.load(Relaxed);
    let last =
        table::by_opcode(opcode).map_or_else(|| "NULL".to_owned(), |spec| spec.name.to_ascii_lowercase());
    let own = client.id == session.client.id;
    let queued =
        session.transaction.as_ref().filter(|_| own).map_or(-1, |transaction| transaction.count_shown());
    format!(
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi={queued} watch={} \
         qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 obl=0 oll=0 omem={} tot-mem={} events=r cmd={last} user=default \
         redir=-1 resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
        client.id,
        client.address,
        client.local,
        names.name,
        client.since.elapsed().as_secs(),
        now.saturating_sub(client.active_at.load(Relaxed)),
        if queued >= 0 { "x" } else { "N" },
        client.namespace.load(Relaxed),
        if own { session.watched.len() } else { 0 },
        client.input_bytes.load(Relaxed),
        client.output_bytes.load(Relaxed),
        client.input_bytes.load(Relaxed).saturating_add(client.output_bytes.load(Relaxed)),
        client.protocol.load(Relaxed),
        names.library,
        names.library_version,
        client.received.load(Relaxed),
        client.sent.load(Relaxed),
        client.commands.load(Relaxed),
    )
}
