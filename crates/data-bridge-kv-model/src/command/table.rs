//! The one list of commands: name, opcode, arity, flags, key positions, parser, summary.
//!
//! Opcodes are persistent: the native protocol sends them, so none is reused or renumbered. Adding a command =
//! one row here, one variant in its family's enum with a parser, one executor arm (the compiler asks for it).

use std::sync::OnceLock;

use super::{Command, connection, hash, key, list, number, scalar, set, state, zset};
use crate::arg::Args;
use crate::error::Result;

/// Properties of a command, as bits.
pub type Flags = u16;
/// Changes data.
pub const WRITE: Flags = 1;
/// Only reads.
pub const READ: Flags = 2;
/// Takes constant or logarithmic time.
pub const FAST: Flags = 4;
/// May need more memory: refused when the budget is full.
pub const GROWS: Flags = 8;
/// May be sent again after a lost connection without a different outcome; reads always may.
pub const REPEATABLE: Flags = 16;
/// Needs an administrator.
pub const ADMIN: Flags = 32;
/// Belongs to the connection, not the engine.
pub const CONNECTION: Flags = 64;
/// Allowed before authentication.
pub const NO_AUTH: Flags = 128;
/// Waits for a change.
pub const BLOCKING: Flags = 256;
/// Starts or ends a stream of events.
pub const STREAM: Flags = 512;
/// Names an element of the key's collection, a member or field, by the argument behind the key.
pub const ELEMENT: Flags = 1024;
/// The same, by the second argument behind the key: a score or an amount stands between.
pub const LATER_ELEMENT: Flags = 2048;
/// With its fewest arguments it reads or writes the value of one key, and nothing else: see [`Spec::direct`].
pub const DIRECT: Flags = 4096;
/// What it writes is a sum: of the number that is there and its second argument, or 1.
pub const ADDS: Flags = 8192;

/// Behind its keys at fixed places it has the number of others, and then those.
pub const COUNTED: Flags = 16384;

/// Where a command's keys stand among its arguments, counted from 1 as Redis's `COMMAND` does; `last` counts
/// from the end if negative; `first` 0 = no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPositions {
    /// First key.
    pub first: i8,
    /// Last key.
    pub last: i8,
    /// Distance between keys.
    pub step: i8,
}

const NONE: KeyPositions = KeyPositions { first: 0, last: 0, step: 0 };
const ONE: KeyPositions = KeyPositions { first: 1, last: 1, step: 1 };
const TWO: KeyPositions = KeyPositions { first: 1, last: 2, step: 1 };
const SECOND: KeyPositions = KeyPositions { first: 2, last: 2, step: 1 };
const ALL_BUT_ONE: KeyPositions = KeyPositions { first: 1, last: -2, step: 1 };
const ALL: KeyPositions = KeyPositions { first: 1, last: -1, step: 1 };
const PAIRS: KeyPositions = KeyPositions { first: 1, last: -1, step: 2 };
const PAIRS_AFTER_ONE: KeyPositions = KeyPositions { first: 2, last: -1, step: 2 };
/// No upper limit of the number of arguments beyond the protocol's.
const MANY: usize = crate::limits::ARGUMENTS;

/// Reads a command's arguments.
pub type Parser = for<'a> fn(&mut Args<'a>) -> Result<Command<'a>>;

/// One command.
#[derive(Debug)]
pub struct Spec {
    /// Number on the native wire.
    pub opcode: u16,
    /// Name in upper case.
    pub name: &'static str,
    pub(super) parse: Parser,
    /// Fewest arguments, without the name.
    pub min_args: usize,
    /// Most arguments, without the name.
    pub max_args: usize,
    /// Properties.
    pub flags: Flags,
    /// Where the keys are.
    pub keys: KeyPositions,
    /// One line for people.
    pub summary: &'static str,
}

impl Spec {
    /// Whether all of these flags are set.
    #[inline]
    pub fn has(&self, flags: Flags) -> bool {
        self.flags & flags == flags
    }

    /// Whether a client may send it again after a lost connection: the outcome is the same.
    pub fn is_repeatable(&self) -> bool {
        self.has(READ) && !self.has(STREAM) || self.has(REPEATABLE) || self.has(CONNECTION)
    }

    /// Arity as Redis's `COMMAND` tells it: with the name, negative if there may be more.
    pub fn redis_arity(&self) -> i64 {
        let fewest = i64::try_from(self.min_args).unwrap_or(i64::MAX).saturating_add(1);
        if self.min_args == self.max_args { fewest } else { -fewest }
    }
}

macro_rules! commands {
    ($($constant:ident $opcode:literal $name:literal $parse:expr, $min:expr, $max:expr, $flags:expr, $keys:expr,
        $summary:literal;)*) => {
        /// Every command, by opcode.
        pub static COMMANDS: &[Spec] =
            &[$(Spec {
                opcode: $opcode, name: $name, parse: $parse, min_args: $min, max_args: $max, flags: $flags,
                keys: $keys, summary: $summary,
            }),*];

        /// The opcodes by name, for callers that build requests.
        pub mod opcode {
            $(#[doc = $summary] pub const $constant: u16 = $opcode;)*
        }
    };
}

#[rustfmt::skip]
commands! {
    GET 0x001 "GET" scalar::get, 1, 1, READ | FAST | DIRECT, ONE,
        "Value of a key that holds a Redis string";
    SET 0x002 "SET" scalar::set, 2, MANY, WRITE | GROWS | FAST | REPEATABLE | DIRECT, ONE,
        "Write a value; NX XX GET KEEPTTL EX PX EXAT PXAT";
    SETEX 0x003 "SETEX" scalar::setex, 3, 3, WRITE | GROWS | REPEATABLE, ONE,
        "Write with a TTL in seconds";
    PSETEX 0x004 "PSETEX" scalar::psetex, 3, 3, WRITE | GROWS | REPEATABLE, ONE,
        "Write with a TTL in milliseconds";
    SETNX 0x005 "SETNX" scalar::setnx, 2, 2, WRITE | GROWS | FAST, ONE,
        "Write where no key is";
    GETSET 0x006 "GETSET" scalar::getset, 2, 2, WRITE | GROWS | FAST, ONE,
        "Write and answer the old value";
    GETDEL 0x007 "GETDEL" scalar::getdel, 1, 1, WRITE | FAST, ONE,
        "Read and delete";
    GETEX 0x008 "GETEX" scalar::getex, 1, 3, WRITE | FAST, ONE,
        "Read and change the deadline";
    MGET 0x009 "MGET" scalar::mget, 1, MANY, READ | FAST, ALL,
        "Values of several keys";
    MSET 0x00A "MSET" scalar::mset, 2, MANY, WRITE | GROWS | REPEATABLE, PAIRS,
        "Write several values at once";
    MSETNX 0x00B "MSETNX" scalar::msetnx, 2, MANY, WRITE | GROWS, PAIRS,
        "Write several values if none of the keys exists";
    APPEND 0x00C "APPEND" scalar::append, 2, 2, WRITE | GROWS | FAST, ONE,
        "Append bytes";
    STRLEN 0x00D "STRLEN" scalar::strlen, 1, 1, READ | FAST, ONE,
        "Length in bytes";
    GETRANGE 0x00E "GETRANGE" scalar::getrange, 3, 3, READ, ONE,
        "Byte range, ends included";
    SETRANGE 0x00F "SETRANGE" scalar::setrange, 3, 3, WRITE | GROWS, ONE,
        "Overwrite bytes from an offset";
    SUBSTR 0x010 "SUBSTR" scalar::getrange, 3, 3, READ, ONE,
        "Old name of GETRANGE";
    KV_GET 0x011 "KV.GET" scalar::kv_get, 1, 1, READ | FAST | DIRECT, ONE,
        "Value of any kind";
    KV_SET 0x012 "KV.SET" scalar::kv_set, 2, MANY, WRITE | GROWS | FAST | REPEATABLE | DIRECT, ONE,
        "Write a typed value, options as SET";
    KV_MGET 0x013 "KV.MGET" scalar::kv_mget, 1, MANY, READ | FAST, ALL,
        "Values of any kind";
    KV_MSET 0x014 "KV.MSET" scalar::kv_mset, 3, MANY, WRITE | GROWS | REPEATABLE, PAIRS_AFTER_ONE,
        "Write several typed values with one TTL in ms (0 = default)";
    KV_POP 0x015 "KV.POP" scalar::kv_pop, 1, 1, WRITE | FAST, ONE,
        "Read a value of any kind and delete it";
    GETBIT 0x018 "GETBIT" scalar::getbit, 2, 2, READ | FAST, ONE,
        "One bit";
    SETBIT 0x019 "SETBIT" scalar::setbit, 3, 3, WRITE | GROWS, ONE,
        "Turn one bit on or off";
    BITCOUNT 0x01A "BITCOUNT" scalar::bitcount, 1, MANY, READ, ONE,
        "How many bits are on; BYTE BIT";
    BITPOS 0x01B "BITPOS" scalar::bitpos, 2, MANY, READ, ONE,
        "First bit that is on, or off; BYTE BIT";
    INCR 0x020 "INCR" number::incr, 1, 1, WRITE | GROWS | FAST | DIRECT | ADDS, ONE,
        "Add 1";
    DECR 0x021 "DECR" number::decr, 1, 1, WRITE | GROWS | FAST, ONE,
        "Subtract 1";
    INCRBY 0x022 "INCRBY" number::incrby, 2, 2, WRITE | GROWS | FAST | DIRECT | ADDS, ONE,
        "Add an integer";
    DECRBY 0x023 "DECRBY" number::decrby, 2, 2, WRITE | GROWS | FAST, ONE,
        "Subtract an integer";
    INCRBYFLOAT 0x024 "INCRBYFLOAT" number::incrbyfloat, 2, 2, WRITE | GROWS | FAST, ONE,
        "Add a fraction";
    KV_INCR 0x025 "KV.INCR" number::kv_incr, 1, MANY, WRITE | GROWS | FAST, ONE,
        "Add by the rules of the kind; INITIAL MIN MAX EX PX REFRESH CONVERT";
    KV_DECR 0x026 "KV.DECR" number::kv_decr, 1, MANY, WRITE | GROWS | FAST, ONE,
        "Subtract by the rules of the kind";
    DEL 0x030 "DEL" key::delete, 1, MANY, WRITE | REPEATABLE, ALL,
        "Delete keys";
    UNLINK 0x031 "UNLINK" key::delete, 1, MANY, WRITE | FAST | REPEATABLE, ALL,
        "Delete keys";
    EXISTS 0x032 "EXISTS" key::exists, 1, MANY, READ | FAST, ALL,
        "Count existing keys";
    EXPIRE 0x033 "EXPIRE" key::expire, 2, 4, WRITE | FAST | REPEATABLE, ONE,
        "Deadline in seconds from now";
    PEXPIRE 0x034 "PEXPIRE" key::pexpire, 2, 4, WRITE | FAST | REPEATABLE, ONE,
        "Deadline in milliseconds from now";
    EXPIREAT 0x035 "EXPIREAT" key::expireat, 2, 4, WRITE | FAST | REPEATABLE, ONE,
        "Deadline in unix seconds";
    PEXPIREAT 0x036 "PEXPIREAT" key::pexpireat, 2, 4, WRITE | FAST | REPEATABLE, ONE,
        "Deadline in unix milliseconds";
    TTL 0x037 "TTL" key::ttl, 1, 1, READ | FAST, ONE,
        "Seconds left";
    PTTL 0x038 "PTTL" key::pttl, 1, 1, READ | FAST, ONE,
        "Milliseconds left";
    EXPIRETIME 0x039 "EXPIRETIME" key::expiretime, 1, 1, READ | FAST, ONE,
        "Deadline in unix seconds";
    PEXPIRETIME 0x03A "PEXPIRETIME" key::pexpiretime, 1, 1, READ | FAST, ONE,
        "Deadline in unix milliseconds";
    PERSIST 0x03B "PERSIST" key::persist, 1, 1, WRITE | FAST | REPEATABLE, ONE,
        "Remove the deadline";
    TYPE 0x03C "TYPE" key::type_, 1, 1, READ | FAST, ONE,
        "Redis type word";
    KV_KIND 0x03D "KV.KIND" key::kind, 1, 1, READ | FAST, ONE,
        "Kind name";
    RENAME 0x03E "RENAME" key::rename, 2, 2, WRITE, TWO,
        "Rename a key";
    RENAMENX 0x03F "RENAMENX" key::renamenx, 2, 2, WRITE | FAST, TWO,
        "Rename a key where the new name is free";
    SCAN 0x040 "SCAN" key::scan, 1, MANY, READ, NONE,
        "Walk over keys; MATCH PREFIX COUNT TYPE KIND VALUES ENTRIES";
    KEYS 0x041 "KEYS" key::keys, 1, 1, READ, NONE,
        "All keys that match";
    RANDOMKEY 0x042 "RANDOMKEY" key::random, 0, 0, READ, NONE,
        "A random key";
    DBSIZE 0x043 "DBSIZE" key::dbsize, 0, 0, READ | FAST, NONE,
        "Number of keys";
    FLUSHDB 0x044 "FLUSHDB" key::flushdb, 0, 1, WRITE | ADMIN | REPEATABLE, NONE,
        "Remove every key of the namespace";
    FLUSHALL 0x045 "FLUSHALL" key::flushall, 0, 1, WRITE | ADMIN | REPEATABLE, NONE,
        "Remove every key of every namespace";
    KV_CLEAR 0x046 "KV.CLEAR" key::clear, 1, 1, WRITE | REPEATABLE, NONE,
        "Delete the keys with a prefix";
    MEMORY 0x047 "MEMORY" key::memory, 1, 4, READ, SECOND,
        "Bytes a key takes";
    KV_SYNC 0x048 "KV.SYNC" key::sync, 0, 0, READ, NONE,
        "Wait until everything done so far is on disk";
    WAITAOF 0x049 "WAITAOF" key::waitaof, 3, 3, READ, NONE,
        "The same in Redis's words";
    COPY 0x04A "COPY" key::copy, 2, MANY, WRITE | GROWS, TWO,
        "Copy a value with its deadline; REPLACE";
    TOUCH 0x04B "TOUCH" key::touch, 1, MANY, READ | FAST, ALL,
        "Count existing keys and use them";
    LPUSH 0x060 "LPUSH" list::lpush, 2, MANY, WRITE | GROWS | FAST, ONE,
        "Add elements at the head";
    RPUSH 0x061 "RPUSH" list::rpush, 2, MANY, WRITE | GROWS | FAST, ONE,
        "Add elements at the tail";
    LPUSHX 0x062 "LPUSHX" list::lpushx, 2, MANY, WRITE | GROWS | FAST, ONE,
        "LPUSH where the list exists";
    RPUSHX 0x063 "RPUSHX" list::rpushx, 2, MANY, WRITE | GROWS | FAST, ONE,
        "RPUSH where the list exists";
    LPOP 0x064 "LPOP" list::lpop, 1, 2, WRITE | FAST, ONE,
        "Take elements from the head";
    RPOP 0x065 "RPOP" list::rpop, 1, 2, WRITE | FAST, ONE,
        "Take elements from the tail";
    LINDEX 0x066 "LINDEX" list::lindex, 2, 2, READ | FAST, ONE,
        "One element";
    LRANGE 0x067 "LRANGE" list::lrange, 3, 3, READ, ONE,
        "A range of elements";
    LLEN 0x068 "LLEN" list::llen, 1, 1, READ | FAST, ONE,
        "Number of elements";
    LSET 0x069 "LSET" list::lset, 3, 3, WRITE | GROWS | REPEATABLE, ONE,
        "Replace one element";
    LREM 0x06A "LREM" list::lrem, 3, 3, WRITE, ONE,
        "Remove equal elements";
    LTRIM 0x06B "LTRIM" list::ltrim, 3, 3, WRITE, ONE,
        "Keep only a range";
    LINSERT 0x06C "LINSERT" list::linsert, 4, 4, WRITE | GROWS, ONE,
        "Insert beside an element";
    KV_LINSERT 0x06D "KV.LINSERT" list::kv_linsert, 3, 3, WRITE | GROWS, ONE,
        "Insert before an index";
    KV_LREMOVE 0x06E "KV.LREMOVE" list::kv_lremove, 2, 2, WRITE, ONE,
        "Remove one element by index";
    LPOS 0x06F "LPOS" list::lpos, 2, 8, READ, ONE,
        "Index of an element";
    LMOVE 0x070 "LMOVE" list::lmove, 4, 4, WRITE | GROWS, TWO,
        "Move an element between lists";
    RPOPLPUSH 0x071 "RPOPLPUSH" list::rpoplpush, 2, 2, WRITE | GROWS, TWO,
        "Move the tail of a list to the head of another";
    BLPOP 0x072 "BLPOP" list::blpop, 2, MANY, WRITE | BLOCKING, ALL_BUT_ONE,
        "LPOP of the first list that has an element; waits for one";
    BRPOP 0x073 "BRPOP" list::brpop, 2, MANY, WRITE | BLOCKING, ALL_BUT_ONE,
        "RPOP of the first list that has an element; waits for one";
    LMPOP 0x074 "LMPOP" list::lmpop, 3, MANY, WRITE, NONE,
        "Take elements from the first list that has some";
    BLMPOP 0x075 "BLMPOP" list::blmpop, 4, MANY, WRITE | BLOCKING, NONE,
        "LMPOP that waits for an element";
    BLMOVE 0x076 "BLMOVE" list::blmove, 5, 5, WRITE | GROWS | BLOCKING, TWO,
        "LMOVE that waits for an element";
    BRPOPLPUSH 0x077 "BRPOPLPUSH" list::brpoplpush, 3, 3, WRITE | GROWS | BLOCKING, TWO,
        "RPOPLPUSH that waits for an element";
    SADD 0x080 "SADD" set::sadd, 2, MANY, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Add members";
    SREM 0x081 "SREM" set::srem, 2, MANY, WRITE | FAST | ELEMENT, ONE,
        "Remove members";
    SISMEMBER 0x082 "SISMEMBER" set::sismember, 2, 2, READ | FAST | ELEMENT, ONE,
        "Whether it is a member";
    SMISMEMBER 0x083 "SMISMEMBER" set::smismember, 2, MANY, READ | FAST | ELEMENT, ONE,
        "Whether these are members";
    SMEMBERS 0x084 "SMEMBERS" set::smembers, 1, 1, READ, ONE,
        "All members";
    SCARD 0x085 "SCARD" set::scard, 1, 1, READ | FAST, ONE,
        "Number of members";
    SPOP 0x086 "SPOP" set::spop, 1, 2, WRITE | FAST, ONE,
        "Take random members";
    SRANDMEMBER 0x087 "SRANDMEMBER" set::srandmember, 1, 2, READ, ONE,
        "Random members";
    SSCAN 0x088 "SSCAN" set::sscan, 2, MANY, READ, ONE,
        "Walk over members";
    SMOVE 0x089 "SMOVE" set::smove, 3, 3, WRITE | GROWS | FAST, TWO,
        "Move a member between sets";
    SINTER 0x08A "SINTER" set::sinter, 1, MANY, READ, ALL,
        "Members of all sets";
    SUNION 0x08B "SUNION" set::sunion, 1, MANY, READ, ALL,
        "Members of any set";
    SDIFF 0x08C "SDIFF" set::sdiff, 1, MANY, READ, ALL,
        "Members of the first set only";
    SINTERSTORE 0x08D "SINTERSTORE" set::sinterstore, 2, MANY, WRITE | GROWS, ALL,
        "Store the intersection";
    SUNIONSTORE 0x08E "SUNIONSTORE" set::sunionstore, 2, MANY, WRITE | GROWS, ALL,
        "Store the union";
    SDIFFSTORE 0x08F "SDIFFSTORE" set::sdiffstore, 2, MANY, WRITE | GROWS, ALL,
        "Store the difference";
    SINTERCARD 0x090 "SINTERCARD" set::sintercard, 2, MANY, READ | COUNTED, NONE,
        "Number of members of all sets; LIMIT";
    HSET 0x0A0 "HSET" hash::hset, 3, MANY, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Set fields";
    HMSET 0x0A1 "HMSET" hash::hmset, 3, MANY, WRITE | GROWS | FAST | REPEATABLE | ELEMENT, ONE,
        "Set fields";
    HSETNX 0x0A2 "HSETNX" hash::hsetnx, 3, 3, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Set a field where it is missing";
    KV_HSETDEFAULT 0x0A3 "KV.HSETDEFAULT" hash::kv_hsetdefault, 3, 3, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Value of a field, set first where it is missing";
    HGET 0x0A4 "HGET" hash::hget, 2, 2, READ | FAST | ELEMENT, ONE,
        "One field";
    HMGET 0x0A5 "HMGET" hash::hmget, 2, MANY, READ | FAST | ELEMENT, ONE,
        "Several fields";
    HDEL 0x0A6 "HDEL" hash::hdel, 2, MANY, WRITE | FAST | ELEMENT, ONE,
        "Remove fields";
    KV_HPOP 0x0A7 "KV.HPOP" hash::kv_hpop, 2, 2, WRITE | FAST | ELEMENT, ONE,
        "Remove a field and answer its value";
    HGETALL 0x0A8 "HGETALL" hash::hgetall, 1, 1, READ, ONE,
        "All fields and values";
    HKEYS 0x0A9 "HKEYS" hash::hkeys, 1, 1, READ, ONE,
        "All fields";
    HVALS 0x0AA "HVALS" hash::hvals, 1, 1, READ, ONE,
        "All values";
    HLEN 0x0AB "HLEN" hash::hlen, 1, 1, READ | FAST, ONE,
        "Number of fields";
    HEXISTS 0x0AC "HEXISTS" hash::hexists, 2, 2, READ | FAST | ELEMENT, ONE,
        "Whether a field is there";
    HINCRBY 0x0AD "HINCRBY" hash::hincrby, 3, 3, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Add an integer to a field";
    HINCRBYFLOAT 0x0AE "HINCRBYFLOAT" hash::hincrbyfloat, 3, 3, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Add a fraction to a field";
    KV_HINCR 0x0AF "KV.HINCR" hash::kv_hincr, 3, 3, WRITE | GROWS | FAST | ELEMENT, ONE,
        "Add to a field by the rules of its kind";
    HSTRLEN 0x0B0 "HSTRLEN" hash::hstrlen, 2, 2, READ | FAST | ELEMENT, ONE,
        "Length of a field in bytes";
    HRANDFIELD 0x0B1 "HRANDFIELD" hash::hrandfield, 1, 3, READ, ONE,
        "Random fields";
    HSCAN 0x0B2 "HSCAN" hash::hscan, 2, MANY, READ, ONE,
        "Walk over fields";
    ZADD 0x0C0 "ZADD" zset::zadd, 3, MANY, WRITE | GROWS | FAST | LATER_ELEMENT, ONE,
        "Add members with scores; NX XX GT LT CH INCR";
    ZINCRBY 0x0C1 "ZINCRBY" zset::zincrby, 3, 3, WRITE | GROWS | FAST | LATER_ELEMENT, ONE,
        "Add to a score";
    ZREM 0x0C2 "ZREM" zset::zrem, 2, MANY, WRITE | FAST | ELEMENT, ONE,
        "Remove members";
    ZSCORE 0x0C3 "ZSCORE" zset::zscore, 2, 2, READ | FAST | ELEMENT, ONE,
        "Score of a member";
    ZMSCORE 0x0C4 "ZMSCORE" zset::zmscore, 2, MANY, READ | FAST | ELEMENT, ONE,
        "Scores of members";
    ZCARD 0x0C5 "ZCARD" zset::zcard, 1, 1, READ | FAST, ONE,
        "Number of members";
    ZCOUNT 0x0C6 "ZCOUNT" zset::zcount, 3, 3, READ | FAST, ONE,
        "Members in a score range";
    ZRANK 0x0C7 "ZRANK" zset::zrank, 2, 3, READ | FAST | ELEMENT, ONE,
        "Position from the lowest score";
    ZREVRANK 0x0C8 "ZREVRANK" zset::zrevrank, 2, 3, READ | FAST | ELEMENT, ONE,
        "Position from the highest score";
    ZRANGE 0x0C9 "ZRANGE" zset::zrange, 3, MANY, READ, ONE,
        "Members of a range; BYSCORE BYLEX REV LIMIT WITHSCORES";
    ZREVRANGE 0x0CA "ZREVRANGE" zset::zrevrange, 3, 4, READ, ONE,
        "Members from the highest score";
    ZRANGEBYSCORE 0x0CB "ZRANGEBYSCORE" zset::zrangebyscore, 3, MANY, READ, ONE,
        "Members of a score range";
    ZREVRANGEBYSCORE 0x0CC "ZREVRANGEBYSCORE" zset::zrevrangebyscore, 3, MANY, READ, ONE,
        "Members of a score range, from the highest";
    ZREMRANGEBYRANK 0x0CD "ZREMRANGEBYRANK" zset::zremrangebyrank, 3, 3, WRITE, ONE,
        "Remove members by position";
    ZREMRANGEBYSCORE 0x0CE "ZREMRANGEBYSCORE" zset::zremrangebyscore, 3, 3, WRITE, ONE,
        "Remove members by score";
    ZPOPMIN 0x0CF "ZPOPMIN" zset::zpopmin, 1, 2, WRITE | FAST, ONE,
        "Take the lowest members";
    ZPOPMAX 0x0D0 "ZPOPMAX" zset::zpopmax, 1, 2, WRITE | FAST, ONE,
        "Take the highest members";
    ZRANDMEMBER 0x0D1 "ZRANDMEMBER" zset::zrandmember, 1, 3, READ, ONE,
        "Random members";
    ZSCAN 0x0D2 "ZSCAN" zset::zscan, 2, MANY, READ, ONE,
        "Walk over members and scores";
    ZLEXCOUNT 0x0D3 "ZLEXCOUNT" zset::zlexcount, 3, 3, READ | FAST, ONE,
        "Members in a range of members";
    ZRANGEBYLEX 0x0D4 "ZRANGEBYLEX" zset::zrangebylex, 3, MANY, READ, ONE,
        "Members of a range of members";
    ZREVRANGEBYLEX 0x0D5 "ZREVRANGEBYLEX" zset::zrevrangebylex, 3, MANY, READ, ONE,
        "Members of a range of members, from the highest";
    ZREMRANGEBYLEX 0x0D6 "ZREMRANGEBYLEX" zset::zremrangebylex, 3, 3, WRITE, ONE,
        "Remove members by a range of members";
    ZRANGESTORE 0x0D7 "ZRANGESTORE" zset::zrangestore, 4, MANY, WRITE | GROWS, TWO,
        "Store the members of a range; BYSCORE BYLEX REV LIMIT";
    BZPOPMIN 0x0D8 "BZPOPMIN" zset::bzpopmin, 2, MANY, WRITE | FAST | BLOCKING, ALL_BUT_ONE,
        "ZPOPMIN of the first sorted set that has a member; waits for one";
    BZPOPMAX 0x0D9 "BZPOPMAX" zset::bzpopmax, 2, MANY, WRITE | FAST | BLOCKING, ALL_BUT_ONE,
        "ZPOPMAX of the first sorted set that has a member; waits for one";
    ZMPOP 0x0DA "ZMPOP" zset::zmpop, 3, MANY, WRITE, NONE,
        "Take members from the first sorted set that has some";
    BZMPOP 0x0DB "BZMPOP" zset::bzmpop, 4, MANY, WRITE | BLOCKING, NONE,
        "ZMPOP that waits for a member";
    KV_CAS 0x0E0 "KV.CAS" state::cas, 4, MANY, WRITE | GROWS | FAST, ONE,
        "Write where the value is what is expected";
    KV_CAD 0x0E1 "KV.CAD" state::cad, 2, 3, WRITE | FAST, ONE,
        "Delete where the value is what is expected";
    KV_GETV 0x0E2 "KV.GETV" state::getv, 1, 1, READ | FAST, ONE,
        "Value and version";
    KV_SETV 0x0E3 "KV.SETV" state::setv, 3, 5, WRITE | GROWS | FAST, ONE,
        "Write where the version matches; 0 = create";
    KV_DELV 0x0E4 "KV.DELV" state::delv, 2, 2, WRITE | FAST, ONE,
        "Delete where the version matches";
    KV_TRANSITION 0x0E5 "KV.TRANSITION" state::transition, 4, MANY, WRITE | GROWS | FAST, ONE,
        "One step of a state machine";
    KV_WAIT 0x0E6 "KV.WAIT" state::wait, 1, MANY, READ | BLOCKING, ONE,
        "Wait for a change";
    KV_WATCH 0x0E7 "KV.WATCH" state::watch, 2, 4, READ | STREAM, NONE,
        "Push changes of a key or prefix";
    KV_UNWATCH 0x0E8 "KV.UNWATCH" state::unwatch, 1, 1, READ | STREAM, NONE,
        "End a watch";
    ZUNION 0x0F0 "ZUNION" zset::zunion, 2, MANY, READ | COUNTED, NONE,
        "Members of any set; WEIGHTS AGGREGATE WITHSCORES";
    ZINTER 0x0F1 "ZINTER" zset::zinter, 2, MANY, READ | COUNTED, NONE,
        "Members of all sets; WEIGHTS AGGREGATE WITHSCORES";
    ZDIFF 0x0F2 "ZDIFF" zset::zdiff, 2, MANY, READ | COUNTED, NONE,
        "Members of the first set only; WITHSCORES";
    ZUNIONSTORE 0x0F3 "ZUNIONSTORE" zset::zunionstore, 3, MANY, WRITE | GROWS | COUNTED, ONE,
        "Store the union; WEIGHTS AGGREGATE";
    ZINTERSTORE 0x0F4 "ZINTERSTORE" zset::zinterstore, 3, MANY, WRITE | GROWS | COUNTED, ONE,
        "Store the intersection; WEIGHTS AGGREGATE";
    ZDIFFSTORE 0x0F5 "ZDIFFSTORE" zset::zdiffstore, 3, MANY, WRITE | GROWS | COUNTED, ONE,
        "Store the difference";
    ZINTERCARD 0x0F6 "ZINTERCARD" zset::zintercard, 2, MANY, READ | COUNTED, NONE,
        "Number of members of all sets; LIMIT";
    PING 0x100 "PING" connection::ping, 0, 1, CONNECTION | FAST, NONE,
        "Answer PONG or the text";
    ECHO 0x101 "ECHO" connection::echo, 1, 1, CONNECTION | FAST, NONE,
        "Answer the text";
    HELLO 0x102 "HELLO" connection::hello, 0, MANY, CONNECTION | NO_AUTH, NONE,
        "Choose the protocol";
    AUTH 0x103 "AUTH" connection::auth, 1, 2, CONNECTION | NO_AUTH, NONE,
        "Authenticate";
    SELECT 0x104 "SELECT" connection::select, 1, 1, CONNECTION | FAST, NONE,
        "Choose the namespace";
    CLIENT 0x105 "CLIENT" connection::client, 1, MANY, CONNECTION, NONE,
        "About this and other connections";
    COMMAND 0x106 "COMMAND" connection::describe, 0, MANY, CONNECTION, NONE,
        "About commands";
    INFO 0x107 "INFO" connection::info, 0, MANY, CONNECTION, NONE,
        "Facts about the server";
    CONFIG 0x108 "CONFIG" connection::config, 1, MANY, CONNECTION | ADMIN, NONE,
        "Settings";
    QUIT 0x109 "QUIT" connection::quit, 0, 0, CONNECTION | NO_AUTH, NONE,
        "End the connection";
    RESET 0x10A "RESET" connection::reset, 0, 0, CONNECTION | NO_AUTH, NONE,
        "Back to a new connection";
    TIME 0x10B "TIME" connection::time, 0, 0, CONNECTION | FAST, NONE,
        "Server time";
    MULTI 0x10C "MULTI" connection::multi, 0, 0, CONNECTION, NONE,
        "Start a transaction";
    EXEC 0x10D "EXEC" connection::exec, 0, 0, CONNECTION, NONE,
        "Run the transaction";
    DISCARD 0x10E "DISCARD" connection::discard, 0, 0, CONNECTION, NONE,
        "Drop the transaction";
    WATCH 0x10F "WATCH" connection::watch_keys, 1, MANY, CONNECTION, ALL,
        "Make the next transaction depend on keys";
    UNWATCH 0x110 "UNWATCH" connection::unwatch_keys, 0, 0, CONNECTION, NONE,
        "Forget watched keys";
    KV_TYPED 0x111 "KV.TYPED" connection::typed, 1, 1, CONNECTION, NONE,
        "Typed replies on this connection: ON or OFF";
    KV_ATOMIC 0x112 "KV.ATOMIC" connection::atomic, 0, MANY, CONNECTION, NONE,
        "Run several native commands as one step";
    KV_CANCEL 0x113 "KV.CANCEL" connection::cancel, 1, 1, CONNECTION, NONE,
        "End a wait of this connection, named by its request's id";
    KV_SNAPSHOT 0x114 "KV.SNAPSHOT" connection::snapshot, 0, 0, CONNECTION | ADMIN, NONE,
        "Make a snapshot of the task namespaces";
    KV_DURABLE 0x115 "KV.DURABLE" connection::durable, 1, MANY, CONNECTION, NONE,
        "Answer the write that follows, or EXEC, only once it is on disk";
}

/// Slots of the name index: a power of two, well above the number of commands.
const NAME_SLOTS: usize = 1024;
/// Longest command name.
const NAME_BYTES: usize = 24;

struct Index {
    by_name: Box<[u16; NAME_SLOTS]>,
    by_opcode: Vec<u16>,
}

/// The command with this name, in any letter case. Costs one hash of a short name and one comparison.
#[inline]
pub fn by_name(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > NAME_BYTES {
        return None;
    }
    let slots = &index().by_name;
    let mut slot = name_slot(name);
    loop {
        let position = *slots.get(slot)?;
        let spec = COMMANDS.get(usize::from(position.checked_sub(1)?))?;
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        slot = (slot + 1) % NAME_SLOTS;
    }
}

/// The command with this opcode.
#[inline]
pub fn by_opcode(opcode: u16) -> Option<&'static Spec> {
    let position = *index().by_opcode.get(usize::from(opcode))?;
    COMMANDS.get(usize::from(position.checked_sub(1)?))
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut by_name = Box::new([0u16; NAME_SLOTS]);
        let last = COMMANDS.iter().map(|spec| spec.opcode).max().unwrap_or(0);
        let mut by_opcode = vec![0u16; usize::from(last) + 1];
        for (position, spec) in (1u16..).zip(COMMANDS) {
            by_opcode[usize::from(spec.opcode)] = position;
            let mut slot = name_slot(spec.name.as_bytes());
            while by_name[slot] != 0 {
                slot = (slot + 1) % NAME_SLOTS;
            }
            by_name[slot] = position;
        }
        Index { by_name, by_opcode }
    })
}

#[inline]
fn name_slot(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in name {
        hash = (hash ^ u32::from(byte & 0xdf)).wrapping_mul(0x0100_0193);
    }
    (hash >> 12) as usize % NAME_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_opcodes_are_unique_and_found() {
        assert!(COMMANDS.len() > 100);
        for (index, spec) in COMMANDS.iter().enumerate() {
            assert!(spec.name.len() <= NAME_BYTES && spec.name == spec.name.to_uppercase());
            assert!(
                std::ptr::eq(by_name(spec.name.to_lowercase().as_bytes()).unwrap(), spec),
                "{}",
                spec.name
            );
            assert!(std::ptr::eq(by_opcode(spec.opcode).unwrap(), spec), "{}", spec.name);
            assert!(index == 0 || COMMANDS[index - 1].opcode < spec.opcode, "{} out of order", spec.name);
            let kinds = [READ, WRITE, CONNECTION].into_iter().filter(|flag| spec.has(*flag)).count();
            assert_eq!(kinds, 1, "{} reads, writes or is the connection's", spec.name);
        }
        assert!(by_name(b"NOSUCH").is_none() && by_name(&[b'X'; 100]).is_none() && by_name(b"").is_none());
        assert!(by_opcode(0).is_none() && by_opcode(u16::MAX).is_none());
    }
}
