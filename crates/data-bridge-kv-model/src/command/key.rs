//! Commands on keys of any kind: delete, expire, rename, scan, clear.

use super::{Command, Keys};
use crate::arg::{Arg, Args};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::kind::Kind;
use crate::limits::{DEADLINE_MS, PATTERN_BYTES, SCAN_COUNT};

/// Longest piece of an unknown option that an error repeats.
const SHOWN_CHARS: usize = 64;

/// Condition of an EXPIRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpireCondition {
    /// Always.
    Always,
    /// Only where no deadline is (NX).
    IfNone,
    /// Only where a deadline is (XX).
    IfSome,
    /// Only if later; none counts as never (GT).
    IfLater,
    /// Only if earlier; none counts as never (LT).
    IfEarlier,
    /// Only where a deadline is, and if earlier (XX LT).
    IfSomeAndEarlier,
}

/// What a TTL query answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds left, rounded as Redis does.
    Seconds,
    /// Milliseconds left.
    Milliseconds,
    /// Deadline in unix seconds.
    UnixSeconds,
    /// Deadline in unix milliseconds.
    UnixMilliseconds,
}

/// What a scan returns.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions<'a> {
    /// Glob pattern.
    pub pattern: Option<&'a [u8]>,
    /// Literal prefix.
    pub prefix: Option<&'a [u8]>,
    /// About how many keys to look at.
    pub count: usize,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only this Redis type word.
    pub redis_type: Option<&'a str>,
    /// Answer key and value pairs instead of keys.
    pub values: bool,
    /// Answer [value, deadline] in place of the value; a deadline is unix ms, -1 where there is none.
    pub deadlines: bool,
}

impl ScanOptions<'_> {
    /// Everything, in steps of Redis's size.
    pub(super) const ALL: ScanOptions<'static> = ScanOptions {
        pattern: None,
        prefix: None,
        count: 10,
        kind: None,
        redis_type: None,
        values: false,
        deadlines: false,
    };
}

/// A command on keys.
#[expect(missing_docs, reason = "fields are named as the command's arguments")]
#[derive(Clone, Copy, Debug)]
pub enum KeyCommand<'a> {
    /// Deletes keys; answers how many there were.
    Delete { keys: Keys<'a> },
    /// Counts the keys that exist, repeated ones each time.
    Exists { keys: Keys<'a> },
    /// Sets a deadline: `time` is in ms, from now or absolute; one that has passed deletes the key.
    Expire { key: Key<'a>, time: i64, absolute: bool, condition: ExpireCondition },
    /// The time left: -1 without a deadline, -2 without a key.
    Ttl { key: Key<'a>, unit: TimeUnit },
    /// Removes the deadline.
    Persist { key: Key<'a> },
    /// The Redis type word.
    Type { key: Key<'a> },
    /// Our kind name, or Missing.
    Kind { key: Key<'a> },
    /// Renames, over an existing key unless `only_if_absent`.
    Rename { from: Key<'a>, to: Key<'a>, only_if_absent: bool },
    /// Copies a value with its deadline, over an existing key only if `replace`.
    Copy { from: Key<'a>, to: Key<'a>, replace: bool },
    /// Counts the keys that exist as `Exists` does, and uses them.
    Touch { keys: Keys<'a> },
    /// One step of a walk over all keys; 0 starts, 0 is answered at the end.
    Scan { cursor: u64, options: ScanOptions<'a> },
    /// All keys that match, in namespaces of at most 100,000 keys.
    Keys { pattern: &'a [u8] },
    /// A key picked at random.
    Random,
    /// Number of keys.
    Size,
    /// Answers once everything that was done so far is on disk: OK, or for `redis` [logs, replicas].
    Sync { redis: bool },
    /// Removes every key of the namespace, or of all.
    Flush { all: bool },
    /// Deletes the keys with a prefix; answers how many. Not atomic.
    Clear { prefix: &'a [u8] },
    /// Bytes that the key takes in memory.
    Memory { key: Key<'a> },
}

type Parsed<'a> = Result<Command<'a>>;

fn wrap(command: KeyCommand<'_>) -> Result<Command<'_>> {
    Ok(Command::Key(command))
}

pub(super) fn delete<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Delete { keys: Keys::new(args.all(), 1)? })
}

pub(super) fn exists<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Exists { keys: Keys::new(args.all(), 1)? })
}

pub(super) fn expire<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    expire_with(args, 1000, false, "expire")
}

pub(super) fn pexpire<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    expire_with(args, 1, false, "pexpire")
}

pub(super) fn expireat<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    expire_with(args, 1000, true, "expireat")
}

pub(super) fn pexpireat<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    expire_with(args, 1, true, "pexpireat")
}

fn expire_with<'a>(args: &mut Args<'a>, scale: i64, absolute: bool, command: &str) -> Parsed<'a> {
    let (key, number) = (args.key()?, args.next_arg()?.int()?);
    let limit = DEADLINE_MS.cast_signed();
    let time = number.checked_mul(scale).filter(|ms| *ms <= limit);
    let time = time.ok_or_else(|| Error::invalid(format!("invalid expire time in '{command}' command")))?;
    let condition = expire_condition(args)?;
    wrap(KeyCommand::Expire { key, time, absolute, condition })
}

/// `[NX | XX | GT | LT | XX GT | XX LT]`, in any order.
fn expire_condition(args: &mut Args<'_>) -> Result<ExpireCondition> {
    let (mut none, mut some, mut later, mut earlier) = (false, false, false, false);
    while let Some(option) = args.peek() {
        if args.word("NX") {
            none = true;
        } else if args.word("XX") {
            some = true;
        } else if args.word("GT") {
            later = true;
        } else if args.word("LT") {
            earlier = true;
        } else {
            let option = String::from_utf8_lossy(option.content().unwrap_or_default());
            let shown: String = option.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
            return Err(Error::invalid(format!("Unsupported option {shown}")));
        }
    }
    match (none, some, later, earlier) {
        (false, false, false, false) => Ok(ExpireCondition::Always),
        (true, false, false, false) => Ok(ExpireCondition::IfNone),
        (false, true, false, false) => Ok(ExpireCondition::IfSome),
        // Without a deadline nothing is later.
        (false, _, true, false) => Ok(ExpireCondition::IfLater),
        (false, false, false, true) => Ok(ExpireCondition::IfEarlier),
        (false, true, false, true) => Ok(ExpireCondition::IfSomeAndEarlier),
        (false, _, true, true) => {
            Err(Error::invalid("GT and LT options at the same time are not compatible"))
        }
        (true, ..) => Err(Error::invalid("NX and XX, GT or LT options at the same time are not compatible")),
    }
}

pub(super) fn ttl<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Ttl { key: args.key()?, unit: TimeUnit::Seconds })
}

pub(super) fn pttl<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Ttl { key: args.key()?, unit: TimeUnit::Milliseconds })
}

pub(super) fn expiretime<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Ttl { key: args.key()?, unit: TimeUnit::UnixSeconds })
}

pub(super) fn pexpiretime<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Ttl { key: args.key()?, unit: TimeUnit::UnixMilliseconds })
}

pub(super) fn persist<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Persist { key: args.key()? })
}

pub(super) fn type_<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Type { key: args.key()? })
}

pub(super) fn kind<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Kind { key: args.key()? })
}

pub(super) fn rename<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Rename { from: args.key()?, to: args.key()?, only_if_absent: false })
}

pub(super) fn renamenx<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Rename { from: args.key()?, to: args.key()?, only_if_absent: true })
}

/// `from to [REPLACE]`. Each namespace has locks and a log of its own, so that nothing is copied into another as one step.
pub(super) fn copy<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (from, to) = (args.key()?, args.key()?);
    let mut replace = false;
    while !args.is_empty() {
        if args.word("REPLACE") {
            replace = true;
        } else if args.word("DB") {
            return Err(Error::new(ErrorKind::Unavailable, "COPY has no DB: a copy stays in its namespace"));
        } else {
            return Err(Error::syntax());
        }
    }
    wrap(KeyCommand::Copy { from, to, replace })
}

pub(super) fn touch<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Touch { keys: Keys::new(args.all(), 1)? })
}

pub(super) fn scan<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let cursor = scan_cursor(args.next_arg()?)?;
    wrap(KeyCommand::Scan { cursor, options: scan_options(args)? })
}

/// Reads the cursor of any SCAN-like command.
pub(super) fn scan_cursor(arg: Arg<'_>) -> Result<u64> {
    let text = match arg {
        Arg::Value(value) if value.kind() == Kind::Int => {
            return value.as_int().map(i64::cast_unsigned).ok_or_else(invalid_cursor);
        }
        other => other.text().map_err(|_| invalid_cursor())?,
    };
    text.parse().map_err(|_| invalid_cursor())
}

fn invalid_cursor() -> Error {
    Error::invalid("invalid cursor")
}

/// Reads `[MATCH pattern] [PREFIX text] [COUNT n] [TYPE word] [KIND name] [VALUES|ENTRIES]`.
fn scan_options<'a>(args: &mut Args<'a>) -> Result<ScanOptions<'a>> {
    let mut options = ScanOptions::ALL;
    while !args.is_empty() {
        if walk_option(args, &mut options)? {
            continue;
        }
        if args.word("PREFIX") {
            options.prefix = Some(args.next_arg()?.content().ok_or_else(Error::syntax)?);
        } else if args.word("TYPE") {
            options.redis_type = Some(args.next_arg()?.text()?);
        } else if args.word("KIND") {
            let kind = Kind::from_name(args.next_arg()?.text()?);
            options.kind = Some(kind.ok_or_else(|| Error::invalid("unknown kind"))?);
        } else if args.word("VALUES") {
            options.values = true;
        } else if args.word("ENTRIES") {
            (options.values, options.deadlines) = (true, true);
        } else {
            return Err(Error::syntax());
        }
    }
    Ok(options)
}

/// Reads `[MATCH pattern] [COUNT n]` of a walk over the members of one key.
pub(super) fn member_options<'a>(args: &mut Args<'a>) -> Result<ScanOptions<'a>> {
    let mut options = ScanOptions::ALL;
    while !args.is_empty() {
        if !walk_option(args, &mut options)? {
            return Err(Error::syntax());
        }
    }
    Ok(options)
}

/// Reads one of the options that every walk has; answers whether there was one.
pub(super) fn walk_option<'a>(args: &mut Args<'a>, options: &mut ScanOptions<'a>) -> Result<bool> {
    if args.word("MATCH") {
        options.pattern = Some(pattern(args.next_arg()?)?);
    } else if args.word("COUNT") {
        options.count = match args.next_arg()?.int()? {
            count @ 1.. => usize::try_from(count).unwrap_or(SCAN_COUNT).min(SCAN_COUNT),
            _ => return Err(Error::syntax()),
        };
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn pattern(arg: Arg<'_>) -> Result<&[u8]> {
    let pattern = arg.content().ok_or_else(Error::syntax)?;
    if pattern.len() > PATTERN_BYTES {
        return Err(Error::new(ErrorKind::Limit, "pattern is longer than 1024 bytes"));
    }
    Ok(pattern)
}

pub(super) fn keys<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Keys { pattern: pattern(args.next_arg()?)? })
}

pub(super) fn random<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Random)
}

pub(super) fn dbsize<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Size)
}

pub(super) fn sync<'a>(_args: &mut Args<'a>) -> Parsed<'a> {
    wrap(KeyCommand::Sync { redis: false })
}

/// WAITAOF numlocal numreplicas timeout. It waits as long as it takes: a sync ends, or the log has failed.
pub(super) fn waitaof<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let (local, replicas, timeout) =
        (args.next_arg()?.int()?, args.next_arg()?.int()?, args.next_arg()?.int()?);
    if !(0..=1).contains(&local) || replicas < 0 || timeout < 0 {
        return Err(Error::new(ErrorKind::OutOfRange, "numlocal is 0 or 1, and no number may be negative"));
    }
    wrap(KeyCommand::Sync { redis: true })
}

pub(super) fn flushdb<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    flush(args, false)
}

pub(super) fn flushall<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    flush(args, true)
}

fn flush<'a>(args: &mut Args<'a>, all: bool) -> Parsed<'a> {
    if !args.word("ASYNC") {
        args.word("SYNC");
    }
    wrap(KeyCommand::Flush { all })
}

pub(super) fn clear<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    let prefix = args.next_arg()?.content().ok_or_else(Error::syntax)?;
    wrap(KeyCommand::Clear { prefix })
}

pub(super) fn memory<'a>(args: &mut Args<'a>) -> Parsed<'a> {
    if !args.word("USAGE") {
        return Err(Error::invalid("unknown subcommand; the only one is USAGE"));
    }
    let key = args.key()?;
    if args.word("SAMPLES") {
        args.next_arg()?.int()?;
    }
    wrap(KeyCommand::Memory { key })
}
