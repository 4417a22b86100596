//! HELLO, AUTH and SELECT: what clients send first.

use data_bridge_kv_model::error::{Error, ErrorKind, Result};
use data_bridge_kv_model::{Arg, Args, Kind, ReplyBuf, Shape, ValueRef};

use super::Effect;
use crate::auth::{FAILURE_DELAY, Verdict};
use crate::session::Session;

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
pub fn hello(session: &mut Session, mut args: Args<'_>, out: &mut ReplyBuf) -> Result<Effect> {
    let mut resp3 = session.skin.resp3;
    if !args.is_empty() {
        resp3 = match args.next_arg()?.int() {
            Ok(2) => false,
            Ok(3) => true,
            Ok(_) => {
                return Err(Error::new(ErrorKind::Protocol, "unsupported protocol version"));
            }
            Err(_) => return Err(Error::invalid("Protocol version is not an integer or out of range")),
        };
    }
    let mut name = None;
    while !args.is_empty() {
        if args.word("AUTH") {
            let (user, password) = (args.next_arg()?, args.next_arg()?);
            let user = user.content().unwrap_or_default();
            let mark = out.len();
            let effect = authenticate(session, Some(user), password.content().unwrap_or_default(), out)?;
            if effect != Effect::None || !session.authenticated {
                return Ok(effect);
            }
            out.truncate(mark);
        } else if args.word("SETNAME") {
            name = Some(super::client::valid_name(args.next_arg()?)?);
        } else {
            return Err(Error::syntax());
        }
    }
    if !session.authenticated {
        let text = "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";
        return Err(Error::new(ErrorKind::Auth, text));
    }
    if let Some(name) = name {
        session.client.names.lock().name = name;
    }
    session.speak(resp3);
    greet(session, resp3, out);
    Ok(Effect::None)
}

fn greet(session: &Session, resp3: bool, out: &mut ReplyBuf) {
    let text = |out: &mut ReplyBuf, key: &str, value: &str| {
        out.value(ValueRef::text(key));
        out.value(ValueRef::text(value));
    };
    out.container(Shape::Map, 8);
    // Clients look for this name to know whom they talk to; ours stands beside it.
    text(out, "server", "redis");
    text(out, "version", crate::REDIS_VERSION);
    out.value(ValueRef::text("proto"));
    out.integer(if resp3 { 3 } else { 2 });
    out.value(ValueRef::text("id"));
    out.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    text(out, "mode", "standalone");
    text(out, "role", "master");
    out.value(ValueRef::text("modules"));
    out.container(Shape::Array, 0);
    text(out, "data_bridge_kv", crate::VERSION);
}

/// `AUTH [user] password`. A wrong one is answered late, so that guessing is slow.
pub fn authenticate(
    session: &mut Session,
    user: Option<&[u8]>,
    password: &[u8],
    out: &mut ReplyBuf,
) -> Result<Effect> {
    if !session.shared.gate.is_closed() {
        if user.is_some_and(|user| user == b"default") {
            out.ok();
            return Ok(Effect::None);
        }
        return Err(Error::invalid(
            "AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        ));
    }
    let verdict = session.shared.gate.check(user, password, session.client.address.ip());
    if verdict == Verdict::Welcome {
        session.welcome();
        out.ok();
        return Ok(Effect::None);
    }
    let text = "invalid username-password pair or user is disabled.";
    out.error(&Error::new(ErrorKind::WrongPassword, text));
    if session.shared.repeated.allows() {
        tracing::warn!(address = %session.client.address.ip(), "failed authentication");
    }
    Ok(if verdict == Verdict::Wrong { Effect::Pause(FAILURE_DELAY) } else { Effect::Refuse })
}

/// `SELECT namespace`, a number or a name.
pub fn select(session: &mut Session, namespace: Arg<'_>, out: &mut ReplyBuf) -> Result<()> {
    let number;
    let name = match namespace {
        Arg::Value(value) if value.kind() == Kind::Int => {
            number = value.as_int().unwrap_or(-1).to_string();
            number.as_str()
        }
        other => other.text()?,
    };
    let out_of_range = |_| {
        let is_number = name.parse::<i64>().is_ok();
        let text =
            if is_number { "DB index is out of range".into() } else { format!("unknown namespace '{name}'") };
        Error::invalid(text)
    };
    let found = session.shared.engine.namespace(name).map_err(out_of_range)?;
    session.select(found);
    out.ok();
    Ok(())
}
