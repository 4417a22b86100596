//! What requests look like: one row for each command, with a form of its arguments.
//!
//! A form is a row of tokens. `A|B` is one of them, `?A` is left out mostly, `A+` comes one to three times, `A_B` is A
//! followed by B. Upper-case words stand for themselves; a lower-case token is made by `words.rs`:
//!
//! ```text
//! key value member text state field    int index count picks offset float number score bound lex lexend weight bit
//! seconds ms at atms (absolute)        glob version kind redistype
//! ```

use data_bridge_kv_model::command::table::opcode;

/// A family of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// On scalar values.
    Scalar,
    /// On numbers.
    Number,
    /// On keys of any kind.
    Key,
    /// On all keys of a namespace.
    Namespace,
    /// On lists.
    List,
    /// On sets.
    Set,
    /// On hashes.
    Hash,
    /// On sorted sets.
    ZSet,
    /// On states and versions.
    State,
}

/// One row.
#[derive(Debug)]
pub struct Rule {
    /// The command.
    pub opcode: u16,
    /// Its family.
    pub family: Family,
    /// Whether a Redis 7 server knows it in this form.
    pub redis: bool,
    /// Its arguments.
    pub form: &'static str,
}

macro_rules! rules {
    ($($family:ident $redis:literal { $($name:ident $form:literal,)* })*) => {
        /// Every command that is generated; one that is listed twice comes twice as often.
        pub const GRAMMAR: &[Rule] = &[$($(Rule {
            opcode: opcode::$name, family: Family::$family, redis: $redis, form: $form,
        },)*)*];
    };
}

rules! {
    Scalar true {
        GET "key", GET "key", SET "key value", SET "key value",
        SET "key value ?NX|XX ?GET ?EX_seconds|PX_ms|EXAT_at|PXAT_atms|KEEPTTL",
        SETEX "key seconds value", PSETEX "key ms value", SETNX "key value", GETSET "key value", GETDEL "key",
        GETEX "key ?PERSIST|EX_seconds|PX_ms|PXAT_atms", MGET "key+", MSET "key_value+", MSETNX "key_value+",
        APPEND "key text", STRLEN "key", GETRANGE "key index index", SETRANGE "key offset text",
        SUBSTR "key index index", GETBIT "key offset", SETBIT "key offset bit", SETBIT "key offset bit",
        BITCOUNT "key", BITCOUNT "key index index ?BYTE|BIT", BITPOS "key bit ?index",
        BITPOS "key bit index index ?BYTE|BIT",
    }
    Scalar false {
        KV_GET "key", KV_SET "key value ?NX|XX ?GET ?EX_seconds|PX_ms|KEEPTTL", KV_MGET "key+",
        KV_MSET "ms key_value+", KV_POP "key", KV_SET "key value",
    }
    Number true {
        INCR "key", DECR "key", INCRBY "key int", DECRBY "key int", INCRBYFLOAT "key float",
    }
    Number false {
        KV_INCR "key number", KV_DECR "key number", KV_INCR "key",
        KV_INCR "key number ?INITIAL_number ?MIN_number ?MAX_number ?PX_ms|EX_seconds ?REFRESH ?CONVERT",
        KV_DECR "key number ?INITIAL_number ?MIN_number ?MAX_number ?CONVERT",
    }
    Key true {
        DEL "key+", UNLINK "key", EXISTS "key+", EXPIRE "key seconds ?NX|XX|GT|LT",
        PEXPIRE "key ms ?NX|XX|GT|LT", EXPIREAT "key at ?NX|XX|GT|LT", PEXPIREAT "key atms ?NX|XX|GT|LT",
        TTL "key", PTTL "key", EXPIRETIME "key", PEXPIRETIME "key", PERSIST "key", TYPE "key",
        RENAME "key key", RENAMENX "key key", COPY "key key ?REPLACE", COPY "key key REPLACE", TOUCH "key+",
    }
    Key false {
        KV_KIND "key", MEMORY "USAGE key",
    }
    Namespace true {
        SCAN "0 ?MATCH_glob ?COUNT_100 ?TYPE_redistype", KEYS "glob", DBSIZE "", RANDOMKEY "", DBSIZE "",
    }
    Namespace false {
        SCAN "0 ?PREFIX_text ?KIND_kind ?VALUES|ENTRIES", KV_CLEAR "prefix", FLUSHDB "", KV_SYNC "",
    }
    List true {
        LPUSH "key value+", RPUSH "key value+", LPUSHX "key value+", RPUSHX "key value", LPOP "key ?count",
        RPOP "key ?count", LINDEX "key index", LRANGE "key index index", LLEN "key", LSET "key index value",
        LREM "key index value", LTRIM "key index index", LINSERT "key BEFORE|AFTER value value",
        LPOS "key value ?RANK_index ?COUNT_count ?MAXLEN_count",
        LMOVE "key key LEFT|RIGHT LEFT|RIGHT", RPOPLPUSH "key key", LMPOP "1 key LEFT|RIGHT",
        LMPOP "2 key key LEFT|RIGHT COUNT_2",
    }
    List false {
        KV_LINSERT "key index value", KV_LREMOVE "key index",
    }
    Set true {
        SADD "key member+", SADD "key member+", SREM "key member+", SISMEMBER "key member",
        SMISMEMBER "key member+", SMEMBERS "key", SCARD "key", SPOP "key ?count", SRANDMEMBER "key ?picks",
        SSCAN "key 0 ?MATCH_glob ?COUNT_100", SMOVE "key key member", SINTER "key+", SUNION "key+", SDIFF "key+",
        SINTERSTORE "key key+", SUNIONSTORE "key key+", SDIFFSTORE "key key+",
        SINTERCARD "1|2 key ?LIMIT_count", SINTERCARD "2 key key ?LIMIT_count",
    }
    Hash true {
        HSET "key member_value+", HSET "key member_value+", HMSET "key member_value+", HSETNX "key member value",
        HGET "key member", HMGET "key member+", HDEL "key member+", HGETALL "key", HKEYS "key", HVALS "key",
        HLEN "key", HEXISTS "key member", HINCRBY "key member int", HINCRBYFLOAT "key member float",
        HSTRLEN "key member", HRANDFIELD "key ?picks", HRANDFIELD "key picks WITHVALUES",
        HSCAN "key 0 ?MATCH_glob ?COUNT_100",
    }
    Hash false {
        KV_HSETDEFAULT "key member value", KV_HPOP "key member", KV_HINCR "key member number",
        HSCAN "key 0 NOVALUES ?MATCH_glob",
    }
    ZSet true {
        ZADD "key score_member+", ZADD "key score_member+", ZADD "key ?NX|XX ?GT|LT ?CH score_member+",
        ZADD "key ?NX|XX ?GT|LT INCR score_member", ZINCRBY "key score member", ZREM "key member+",
        ZSCORE "key member", ZMSCORE "key member+", ZCARD "key", ZCOUNT "key bound bound", ZRANK "key member",
        ZREVRANK "key member", ZRANGE "key index index ?REV ?WITHSCORES",
        ZRANGE "key bound bound BYSCORE ?REV ?LIMIT_index_index ?WITHSCORES",
        ZREVRANGE "key index index ?WITHSCORES", ZRANGEBYSCORE "key bound bound ?WITHSCORES ?LIMIT_index_index",
        ZREVRANGEBYSCORE "key bound bound ?WITHSCORES ?LIMIT_index_index", ZREMRANGEBYRANK "key index index",
        ZREMRANGEBYSCORE "key bound bound", ZPOPMIN "key ?count", ZPOPMAX "key ?count",
        ZUNION "2 key key ?AGGREGATE_SUM|AGGREGATE_MIN|AGGREGATE_MAX ?WITHSCORES", ZDIFF "2 key key ?WITHSCORES",
        ZUNION "1 key ?WEIGHTS_weight ?WITHSCORES", ZINTER "1|2 key ?WITHSCORES",
        ZINTER "2 key key ?WEIGHTS_weight_weight ?AGGREGATE_MIN|AGGREGATE_MAX ?WITHSCORES",
        ZUNIONSTORE "key 2 key key ?WEIGHTS_weight_weight ?AGGREGATE_SUM|AGGREGATE_MIN|AGGREGATE_MAX",
        ZUNIONSTORE "key 3 key key key", ZINTERSTORE "key 2 key key ?WEIGHTS_weight_weight",
        ZINTERSTORE "key 3 key key key ?AGGREGATE_MIN|AGGREGATE_MAX", ZDIFFSTORE "key 2 key key",
        ZINTERCARD "2 key key ?LIMIT_count", ZINTERCARD "1 key ?LIMIT_count",
        ZLEXCOUNT "key lexend lexend", ZRANGEBYLEX "key lexend lexend ?LIMIT_index_index", ZREMRANGEBYLEX "key lexend lexend",
        ZREVRANGEBYLEX "key lexend lexend ?LIMIT_index_index", ZRANGE "key lexend lexend BYLEX ?REV ?LIMIT_index_index",
        ZRANGESTORE "key key index index ?REV", ZRANGESTORE "key key lexend lexend BYLEX ?REV ?LIMIT_index_index",
        ZRANGESTORE "key key bound bound BYSCORE ?REV ?LIMIT_index_index",
        ZMPOP "1 key MIN|MAX", ZMPOP "2 key key MIN|MAX COUNT_2",
        ZRANDMEMBER "key ?picks", ZRANDMEMBER "key picks WITHSCORES", ZSCAN "key 0 ?MATCH_glob ?COUNT_100",
    }
    // Between other ends Redis answers something else where the scores differ, and says so.
    ZSet false {
        ZLEXCOUNT "key lex lex", ZRANGEBYLEX "key lex lex ?LIMIT_index_index", ZREMRANGEBYLEX "key lex lex",
        ZREVRANGEBYLEX "key lex lex ?LIMIT_index_index", ZRANGE "key lex lex BYLEX ?REV ?LIMIT_index_index",
        ZRANGESTORE "key key lex lex BYLEX ?REV ?LIMIT_index_index",
        ZRANK "key member WITHSCORE", ZREVRANK "key member WITHSCORE",
    }
    State false {
        KV_CAS "key MISSING|VALUE_value TO value ?EX_seconds|PX_ms|KEEPTTL", KV_CAS "key VALUE_value TO value",
        KV_CAD "key MISSING|VALUE_value", KV_GETV "key", KV_GETV "key",
        KV_SETV "key value version ?PX_ms|KEEPTTL", KV_SETV "key value 0", KV_DELV "key version",
        HSET "key field_state", HSETNX "key field state", HDEL "key field ?member", KV_HPOP "key field",
        KV_TRANSITION "key field TO state MISSING|FROM_1_state|FROM_2_state_state|MISSING_FROM_1_state",
        KV_TRANSITION "key field TO state MISSING|FROM_2_state_state ?UPDATE_1_member_value ?PX_ms|KEEPTTL ?FENCE_version",
    }
}
