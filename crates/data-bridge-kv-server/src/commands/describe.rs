//! COMMAND: the table of commands for clients that ask.

use data_bridge_kv_model::command::table::{
    self, ADMIN, BLOCKING, COMMANDS, CONNECTION, COUNTED, FAST, GROWS, KeyPositions, NO_AUTH, READ, Spec,
    WRITE,
};
use data_bridge_kv_model::error::{Error, Result};
use data_bridge_kv_model::{Arg, Args, Glob, ReplyBuf, Shape, ValueRef};

use super::unknown_subcommand;

pub fn command(mut args: Args<'_>, out: &mut ReplyBuf) -> Result<()> {
    if args.is_empty() {
        out.container(Shape::Array, COMMANDS.len());
        COMMANDS.iter().for_each(|spec| entry(spec, out));
    } else if args.word("COUNT") {
        out.count(COMMANDS.len());
    } else if args.word("LIST") {
        list(&mut args, out)?;
    } else if args.word("INFO") {
        let names = args.all();
        if names.is_empty() {
            out.container(Shape::Array, COMMANDS.len());
            COMMANDS.iter().for_each(|spec| entry(spec, out));
            return Ok(());
        }
        out.container(Shape::Array, names.len());
        for name in names {
            match named(name) {
                Some(spec) => entry(spec, out),
                None => out.missing(),
            }
        }
    } else if args.word("DOCS") {
        let names = args.all();
        let picked: Vec<&Spec> = if names.is_empty() {
            COMMANDS.iter().collect()
        } else {
            names.iter().filter_map(named).collect()
        };
        out.container(Shape::Map, picked.len());
        picked.iter().for_each(|spec| documentation(spec, out));
    } else if args.word("GETKEYS") {
        keys(args.all(), out)?;
    } else {
        return Err(unknown_subcommand(&args));
    }
    args.finish()
}

fn named(name: &Arg<'_>) -> Option<&'static Spec> {
    name.content().and_then(table::by_name)
}

fn list(args: &mut Args<'_>, out: &mut ReplyBuf) -> Result<()> {
    let mut glob = None;
    let mut category = None;
    if args.word("FILTERBY") {
        if args.word("PATTERN") {
            glob = Some(Glob::new(args.next_arg()?.content().ok_or_else(Error::syntax)?)?);
        } else if args.word("ACLCAT") {
            category = Some(args.next_arg()?.text()?.to_ascii_lowercase());
        } else if args.word("MODULE") {
            args.next_arg()?;
            out.container(Shape::Array, 0);
            return Ok(());
        } else {
            return Err(Error::syntax());
        }
    }
    let open = out.open(Shape::Array);
    let mut count = 0;
    for spec in COMMANDS {
        let name = spec.name.to_ascii_lowercase();
        let fits = glob.as_ref().is_none_or(|glob| glob.matches(name.as_bytes()))
            && category.as_ref().is_none_or(|wanted| categories(spec).contains(&wanted.as_str()));
        if fits {
            out.value(ValueRef::text(&name));
            count += 1;
        }
    }
    out.close(open, count);
    Ok(())
}

fn flags(spec: &Spec) -> Vec<&'static str> {
    let all = [
        (WRITE, "write"),
        (READ, "readonly"),
        (GROWS, "denyoom"),
        (FAST, "fast"),
        (ADMIN, "admin"),
        (BLOCKING, "blocking"),
        (NO_AUTH, "no_auth"),
        (COUNTED, "movablekeys"),
    ];
    all.into_iter().filter(|(flag, _)| spec.has(*flag)).map(|(_, word)| word).collect()
}

/// Redis's ACL categories as far as the flags tell them.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let all = [
        (WRITE, "write"),
        (READ, "read"),
        (FAST, "fast"),
        (ADMIN, "admin"),
        (BLOCKING, "blocking"),
        (CONNECTION, "connection"),
    ];
    let mut words: Vec<&str> =
        all.into_iter().filter(|(flag, _)| spec.has(*flag)).map(|(_, word)| word).collect();
    if !spec.has(FAST) {
        words.push("slow");
    }
    words
}

/// The ten fields that Redis 7 answers for a command.
fn entry(spec: &Spec, out: &mut ReplyBuf) {
    out.container(Shape::Array, 10);
    out.value(ValueRef::text(&spec.name.to_ascii_lowercase()));
    out.integer(spec.redis_arity());
    let words = flags(spec);
    out.container(Shape::Members, words.len());
    words.iter().for_each(|word| out.status(word));
    let KeyPositions { first, last, step } = spec.keys;
    [first, last, step].into_iter().for_each(|position| out.integer(i64::from(position)));
    let words = categories(spec);
    out.container(Shape::Members, words.len());
    words.iter().for_each(|word| out.status(&format!("@{word}")));
    // Tips, key specifications, subcommands.
    (0..3).for_each(|_| out.container(Shape::Array, 0));
}

fn documentation(spec: &Spec, out: &mut ReplyBuf) {
    out.value(ValueRef::text(&spec.name.to_ascii_lowercase()));
    out.container(Shape::Map, 3);
    let group = if spec.name.starts_with("KV.") { "data-bridge" } else { "generic" };
    for (field, text) in [("summary", spec.summary), ("since", "1.0.0"), ("group", group)] {
        out.value(ValueRef::text(field));
        out.value(ValueRef::text(text));
    }
}

/// The keys of a whole command line.
fn keys(line: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let spec = line.first().and_then(named).ok_or_else(|| Error::invalid("Invalid command specified"))?;
    let args = line.get(1..).unwrap_or_default();
    if args.len() < spec.min_args || args.len() > spec.max_args {
        return Err(Error::invalid("Invalid number of arguments specified for command"));
    }
    let KeyPositions { first, last, step } = spec.keys;
    let (Ok(first), Ok(step)) = (usize::try_from(first), usize::try_from(step)) else {
        return Err(Error::syntax());
    };
    let is_counted = spec.has(COUNTED);
    if (first == 0 || step == 0) && !is_counted {
        return Err(Error::invalid("The command has no key arguments"));
    }
    let end = match usize::try_from(last) {
        Ok(last) => last,
        Err(_) => args.len().saturating_sub(usize::from(last.unsigned_abs()).saturating_sub(1)),
    };
    let fixed = args.get(first.saturating_sub(1)..end).unwrap_or_default();
    let mut picked: Vec<&Arg<'_>> = fixed.iter().step_by(step.max(1)).collect();
    if is_counted {
        let mut rest = Args::new(args.get(end..).unwrap_or_default());
        let keys = rest.next_arg().and_then(Arg::count).and_then(|count| rest.take(count));
        let keys = keys.ok().filter(|keys| !keys.is_empty());
        picked.extend(keys.ok_or_else(|| Error::invalid("Invalid arguments specified for command"))?);
    }
    out.container(Shape::Array, picked.len());
    picked.iter().for_each(|key| out.value(ValueRef::bytes(key.content().unwrap_or_default())));
    Ok(())
}
