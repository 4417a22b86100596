//! Every limit of the product in one place. Whoever checks a length, a count or a depth takes it from here.
//!
//! Sizes are bytes unless the name says otherwise. A limit that an operator may change is a default here and
//! a setting of the server; a hard limit may not be raised.

/// Longest key in Unicode scalar values.
pub const KEY_CHARS: usize = 256;
/// Longest key in bytes: 256 characters of at most four bytes.
pub const KEY_BYTES: usize = KEY_CHARS * 4;
/// Deepest nesting of a value: a scalar has depth 1, a list of scalars 2.
pub const VALUE_DEPTH: usize = 32;
/// Deepest nesting that a stored value is read back with: commands of an earlier version made collections deeper than
/// [`VALUE_DEPTH`].
pub const STORED_DEPTH: usize = VALUE_DEPTH + 8;
/// Largest encoded value (64 MiB), the default of the server's setting.
pub const VALUE_BYTES: usize = 64 << 20;
/// Largest encoded value an operator can allow (512 MiB).
pub const VALUE_BYTES_HARD: usize = 512 << 20;
/// Most elements in one encoded value, all levels together.
pub const VALUE_ELEMENTS: usize = 16 << 20;
/// Longest name of a codec, tag or time zone.
pub const NAME_BYTES: usize = 255;
/// Largest magnitude of a BigInt (32,768 bits).
pub const BIGINT_BYTES: usize = 4096;
/// Most arguments of one command.
pub const ARGUMENTS: usize = 1_048_576;
/// Longest inline command (a command typed as a plain line).
pub const INLINE_BYTES: usize = 64 << 10;
/// Largest request, and so the largest query buffer of a connection.
pub const REQUEST_BYTES: usize = 64 << 20;
/// Largest reply, in the native encoding: nothing larger is taken by a client.
pub const REPLY_BYTES: usize = VALUE_BYTES_HARD;
/// Output buffer of a connection beside one reply: closed at once above this.
pub const OUTPUT_BYTES_HARD: usize = 64 << 20;
/// Output buffer of a connection: closed when above this for [`OUTPUT_SOFT_SECONDS`].
pub const OUTPUT_BYTES_SOFT: usize = 16 << 20;
/// How long a connection may stay above [`OUTPUT_BYTES_SOFT`].
pub const OUTPUT_SOFT_SECONDS: u64 = 60;
/// A connection whose replies take memory that others wait for has so long until it must take [`OUTPUT_HELD_RATE`].
pub const OUTPUT_HELD_SECONDS: u64 = 10;
/// Bytes a second of its replies that such a connection has to take.
pub const OUTPUT_HELD_RATE: u64 = 64 << 10;
/// Before authentication: most arguments of a command.
pub const UNAUTHENTICATED_ARGUMENTS: usize = 16;
/// Before authentication: largest request.
pub const UNAUTHENTICATED_REQUEST_BYTES: usize = 64 << 10;
/// Before authentication: most output kept for the connection.
pub const UNAUTHENTICATED_OUTPUT_BYTES: usize = 16 << 10;
/// Before authentication: seconds to authenticate.
pub const UNAUTHENTICATED_SECONDS: u64 = 5;
/// Most connections that are not authenticated yet.
pub const UNAUTHENTICATED_CONNECTIONS: usize = 128;
/// Most connections.
pub const CONNECTIONS: usize = 10_000;
/// Most connections of one address.
pub const CONNECTIONS_PER_ADDRESS: usize = 1_000;
/// Largest COUNT of a scan.
pub const SCAN_COUNT: usize = 10_000;
/// KEYS is refused in a namespace with more keys than this.
pub const KEYS_COMMAND_KEYS: usize = 100_000;
/// Longest glob pattern.
pub const PATTERN_BYTES: usize = 1024;
/// Largest encoding made while a shard is locked; larger collections are encoded from a snapshot.
pub const LOCKED_ENCODE_BYTES: usize = 64 << 10;
/// Bytes gathered for one append to the cold tier; a larger value goes alone.
pub const COLD_BATCH_BYTES: usize = 4 << 20;
/// Largest payload of one record of the log (1 GiB): everything that one command or transaction changes.
pub const LOG_RECORD_BYTES: usize = 1 << 30;
/// What is kept of that for what is not reckoned before: versions, kinds, a number that grew.
pub const LOG_RECORD_SPARE_BYTES: usize = 64 << 10;
/// Number of namespaces.
pub const NAMESPACES: usize = 16;
/// Commands of one atomic pipeline.
pub const ATOMIC_COMMANDS: usize = 65_536;
/// Longest deadline, unix ms: 48 bits are stored (year 10889).
pub const DEADLINE_MS: u64 = (1 << 48) - 1;

const _: () = assert!(VALUE_BYTES <= VALUE_BYTES_HARD);
const _: () = assert!(UNAUTHENTICATED_REQUEST_BYTES < REQUEST_BYTES);
const _: () = assert!(KEY_BYTES == 1024);
const _: () = assert!(VALUE_BYTES_HARD < u32::MAX as usize);
const _: () = assert!(VALUE_BYTES_HARD < LOG_RECORD_BYTES && LOG_RECORD_BYTES < u32::MAX as usize);
