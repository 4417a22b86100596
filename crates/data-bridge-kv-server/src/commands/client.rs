//! CLIENT: about this and the other connections.

use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv_model::command::table;
use data_bridge_kv_model::error::{Error, Result};
use data_bridge_kv_model::{Arg, Args, ReplyBuf, ValueRef};

use super::{Effect, shown, unknown_subcommand};
use crate::clients::Client;
use crate::mailbox::KILL;
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
        if args.is_empty() {
            return Err(Error::syntax());
        }
        for id in args.all() {
            wanted.push(id.int()?);
        }
    } else if args.word("TYPE") && !is_normal(args)? {
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

/// What CLIENT KILL looks for; all that is given must fit.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    address: Option<&'a str>,
    local: Option<&'a str>,
    /// Whether the connections of this kind and user are ours at all.
    is_ours: bool,
    skips_me: bool,
}

impl<'a> Filter<'a> {
    /// Reads `[ID id] [ADDR a] [LADDR a] [TYPE t] [USER u] [SKIPME YES|NO]`, in any order.
    fn read(args: &mut Args<'a>) -> Result<Filter<'a>> {
        let mut filter = Filter { is_ours: true, skips_me: true, ..Filter::default() };
        while !args.is_empty() {
            if args.word("ID") {
                let id = u64::try_from(args.next_arg()?.int()?).ok().filter(|id| *id > 0);
                filter.id = Some(id.ok_or_else(|| Error::invalid("client-id should be greater than 0"))?);
            } else if args.word("ADDR") {
                filter.address = Some(args.next_arg()?.text()?);
            } else if args.word("LADDR") {
                filter.local = Some(args.next_arg()?.text()?);
            } else if args.word("TYPE") {
                filter.is_ours &= is_normal(args)?;
            } else if args.word("USER") {
                filter.is_ours &= args.next_arg()?.text()? == "default";
            } else if args.word("SKIPME") {
                filter.skips_me = args.word("YES");
                if !filter.skips_me && !args.word("NO") {
                    return Err(Error::syntax());
                }
            } else {
                return Err(Error::syntax());
            }
        }
        Ok(filter)
    }

    fn fits(&self, client: &Client) -> bool {
        self.is_ours
            && self.id.is_none_or(|id| id == client.id)
            && self.address.is_none_or(|address| client.address.to_string() == address)
            && self.local.is_none_or(|local| client.local.to_string() == local)
    }
}

/// Reads one of Redis's types of connections. Every connection is a normal one.
fn is_normal(args: &mut Args<'_>) -> Result<bool> {
    let kind = args.next_arg()?.text()?;
    match kind.to_ascii_lowercase().as_str() {
        "normal" => Ok(true),
        "master" | "replica" | "slave" | "pubsub" => Ok(false),
        _ => Err(Error::invalid(format!("Unknown client type '{}'", shown(kind)))),
    }
}

/// `CLIENT KILL filter…` and `CLIENT KILL address:port`.
fn kill(session: &Session, args: &mut Args<'_>, out: &mut ReplyBuf) -> Result<Effect> {
    let is_old_form = args.len() == 1;
    let filter = if is_old_form {
        let address = Some(args.next_arg()?.text()?);
        Filter { address, is_ours: true, ..Filter::default() }
    } else if args.is_empty() {
        return Err(Error::invalid("wrong number of arguments for 'client|kill' command"));
    } else {
        Filter::read(args)?
    };
    let (mut killed, mut myself) = (0, false);
    for client in session.shared.clients.list() {
        let is_me = client.id == session.client.id;
        if !filter.fits(&client) || is_me && filter.skips_me {
            continue;
        }
        killed += 1;
        if is_me {
            myself = true;
        } else {
            client.mailbox.signal(KILL);
        }
    }
    match (is_old_form, killed) {
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
