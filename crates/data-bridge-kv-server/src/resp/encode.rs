//! Reply items as RESP2 or RESP3 bytes.
//!
//! | item | RESP2 | RESP3 | typed RESP3 (`KV.TYPED ON`) |
//! |---|---|---|---|
//! | scalar value | bulk, as `show` prints it | the same | `:` `,` `#` `(` `_` `=dec:` `=txt:` … |
//! | Missing, Null | `$-1` | `_` | `_` |
//! | Boolean | `:1` `:0` | `:1` `:0` | `#t` `#f` |
//! | Map | flat array | `%` | `%` |
//! | Members | array | `~` | `~` |
//! | Scored | flat array | array of pairs with `,` scores | the same |
//!
//! Where Redis answers a command in another shape, the command's [`Form`] says so.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::parse::VERBATIM;
use data_bridge_kv::table::Stored;
use data_bridge_kv_model::codec::{Items, element_count, tagged_parts};
use data_bridge_kv_model::command::{Command, HashCommand, KeyCommand, ListCommand, SetCommand, ZSetCommand};
use data_bridge_kv_model::error::Error;
use data_bridge_kv_model::reply::{OK_REPLY, content_of, integer_of, items_of};
use data_bridge_kv_model::show::{put_int, show};
use data_bridge_kv_model::{Item, Kind, ReplyReader, Shape, ValueRef};

/// What Redis does differently for a command's reply, as bits.
pub type Form = u8;
/// Nothing.
pub const PLAIN: Form = 0;
/// Floats are scores: doubles in RESP3.
pub const SCORES: Form = 1;
/// Pairs stand flat in RESP3 too.
pub const FLAT: Form = 2;
/// Pairs are arrays of two in RESP3, not a map.
pub const PAIRS: Form = 4;
/// Cursor and items of a scan: the cursor is text, the items are a flat array of text.
pub const SCAN: Form = 8;
/// Nothing there is a null array in RESP2.
pub const NULL_ARRAY: Form = 16;
/// Text is a verbatim string in RESP3.
pub const REPORT: Form = 32;

/// The form of a command's reply.
#[inline]
pub fn form_of(command: &Command<'_>) -> Form {
    match command {
        Command::Scalar(_) | Command::Number(_) | Command::State(_) | Command::Connection(_) => PLAIN,
        Command::Key(KeyCommand::Scan { .. })
        | Command::Set(SetCommand::Scan { .. })
        | Command::Hash(HashCommand::Scan { .. })
        | Command::ZSet(ZSetCommand::Scan { .. }) => SCAN,
        Command::ZSet(ZSetCommand::Pop { count: None, .. }) => SCORES | FLAT,
        Command::ZSet(ZSetCommand::Rank { with_score: true, .. } | ZSetCommand::PopFirst { .. }) => {
            SCORES | NULL_ARRAY
        }
        Command::ZSet(_) => SCORES,
        Command::Hash(HashCommand::Random { .. }) => PAIRS,
        Command::List(ListCommand::Pop { count: Some(_), .. } | ListCommand::PopFirst { .. }) => NULL_ARRAY,
        Command::Key(_) | Command::Set(_) | Command::Hash(_) | Command::List(_) => PLAIN,
    }
}

/// The form of an answer that came later: where a list has nothing until the time is up, that is a null array whatever the
/// command.
pub fn late_form_of(command: &Command<'_>) -> Form {
    match command {
        Command::List(_) => form_of(command) | NULL_ARRAY,
        _ => form_of(command),
    }
}

/// Which RESP a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skin {
    /// RESP3.
    pub resp3: bool,
    /// Typed replies; only with RESP3.
    pub typed: bool,
}

/// Writes replies; keeps the memory it needs to print scalars.
#[derive(Debug, Default)]
pub struct Encoder {
    text: Vec<u8>,
}

impl Encoder {
    /// Appends one reply. `reply` is exactly one item with everything inside it.
    #[inline]
    pub fn reply(&mut self, reply: &[u8], skin: Skin, form: Form, out: &mut Vec<u8>) {
        // The hot paths: content that the engine wrote needs no second validation.
        if reply == OK_REPLY {
            return out.extend_from_slice(b"+OK\r\n");
        }
        if form & SCAN == 0
            && let Some(number) = integer_of(reply)
        {
            return integer(number, out);
        }
        if !skin.typed
            && form & REPORT == 0
            && let Some(content) = content_of(reply)
        {
            return bulk(content, out);
        }
        let mut reader = ReplyReader::new(reply);
        self.items(&mut reader, 1, skin, form, out);
    }

    /// Appends an event of a watch as a push: `kv.watch`, the watch's number, change, key, version.
    pub fn push(&mut self, watch: u64, event: &[u8], skin: Skin, out: &mut Vec<u8>) {
        let mut reader = ReplyReader::new(event);
        let Ok(Item::Container(Shape::Array, count)) = reader.item() else { return };
        head(b'>', count.saturating_add(2), out);
        bulk(b"kv.watch", out);
        line(b':', i64::try_from(watch).unwrap_or(i64::MAX), out);
        self.items(&mut reader, count, skin, PLAIN, out);
    }

    /// Appends the next `count` items of a reader, with everything inside them.
    pub fn items(
        &mut self,
        reader: &mut ReplyReader<'_>,
        count: usize,
        skin: Skin,
        form: Form,
        out: &mut Vec<u8>,
    ) {
        self.go_on(&mut Walk::over(count), reader, (skin, form), usize::MAX, out);
    }

    /// Goes on with a walk until `out` is longer than `room`; answers whether it came to its end. `reader` stands where it
    /// stood before.
    pub fn go_on(
        &mut self,
        walk: &mut Walk,
        reader: &mut ReplyReader<'_>,
        (skin, form): (Skin, Form),
        room: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        // Containers only announce how many items follow, so a walk needs no stack; pairs that become arrays of
        // two get their heads when their turn comes.
        let Walk { open, left } = walk;
        loop {
            while *left == 0 {
                let Some(outer) = open.pop() else { return true };
                *left = outer.left;
            }
            if out.len() > room {
                return false;
            }
            if open.last().is_some_and(|innermost| innermost.paired && left.is_multiple_of(2)) {
                out.extend_from_slice(b"*2\r\n");
            }
            *left = left.saturating_sub(1);
            let Ok(item) = reader.item() else { return true };
            if let Item::Container(shape, count) = item {
                let paired = container(shape, count, skin, form, out);
                open.push(Open { left: *left, paired });
                *left = items_of(shape, count);
            } else {
                self.leaf(item, skin, form, out);
            }
        }
    }

    fn leaf(&mut self, item: Item<'_>, skin: Skin, form: Form, out: &mut Vec<u8>) {
        match item {
            Item::Missing if skin.resp3 => out.extend_from_slice(b"_\r\n"),
            Item::Missing if form & NULL_ARRAY != 0 => out.extend_from_slice(b"*-1\r\n"),
            Item::Missing => out.extend_from_slice(b"$-1\r\n"),
            Item::Ok => out.extend_from_slice(b"+OK\r\n"),
            Item::Integer(number) if form & SCAN != 0 => {
                self.text.clear();
                // A cursor uses all 64 bits.
                put_int(number.cast_unsigned(), &mut self.text);
                bulk(&self.text, out);
            }
            Item::Integer(number) => integer(number, out),
            Item::Boolean(yes) if skin.typed => {
                out.extend_from_slice(if yes { b"#t\r\n" } else { b"#f\r\n" })
            }
            Item::Boolean(yes) => out.extend_from_slice(if yes { b":1\r\n" } else { b":0\r\n" }),
            Item::Value(value) => self.value(value, skin, form, out),
            Item::Status(text) => {
                out.push(b'+');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Item::Error(error) => put_error(&error, out),
            // Opened by `items`.
            Item::Container(..) => {}
        }
    }

    /// Appends a stored value.
    pub fn value(&mut self, value: ValueRef<'_>, skin: Skin, form: Form, out: &mut Vec<u8>) {
        match value.kind() {
            Kind::Bytes => bulk(value.payload(), out),
            Kind::Text if form & REPORT != 0 && skin.resp3 => verbatim(b"txt", value.payload(), out),
            Kind::Null if skin.resp3 => out.extend_from_slice(b"_\r\n"),
            Kind::Null => out.extend_from_slice(b"$-1\r\n"),
            Kind::Float if skin.resp3 && (skin.typed || form & SCORES != 0) => {
                out.push(b',');
                show(value, out);
                out.extend_from_slice(b"\r\n");
            }
            Kind::List | Kind::Tuple => self.nested(b'*', 1, value, skin, out),
            Kind::Set | Kind::FrozenSet if skin.resp3 => self.nested(b'~', 1, value, skin, out),
            Kind::Set | Kind::FrozenSet => self.nested(b'*', 1, value, skin, out),
            Kind::Hash if skin.resp3 => self.nested(b'%', 1, value, skin, out),
            Kind::Hash | Kind::SortedSet => self.nested(b'*', 2, value, skin, out),
            Kind::Tagged => self.tagged(value, skin, out),
            _ if skin.typed => self.typed(value, out),
            _ => {
                self.text.clear();
                show(value, &mut self.text);
                bulk(&self.text, out);
            }
        }
    }

    fn nested(&mut self, mark: u8, width: usize, value: ValueRef<'_>, skin: Skin, out: &mut Vec<u8>) {
        let count = element_count(value).unwrap_or(0).saturating_mul(width);
        head(mark, count, out);
        let form = if value.kind() == Kind::SortedSet { SCORES } else { PLAIN };
        if value.kind() != Kind::SortedSet {
            Items::of(value).for_each(|item| self.value(item, skin, form, out));
            return;
        }
        // Stored as score, member; shown as member, score.
        let mut items = Items::of(value);
        while let (Some(score), Some(member)) = (items.next(), items.next()) {
            self.value(member, skin, form, out);
            self.value(score, skin, form, out);
        }
    }

    /// A name and its value, as a map of one entry (flat in RESP2).
    fn tagged(&mut self, value: ValueRef<'_>, skin: Skin, out: &mut Vec<u8>) {
        out.extend_from_slice(if skin.resp3 { b"%1\r\n" } else { b"*2\r\n" });
        let name = tagged_parts(value).map_or("", |(name, _)| name);
        self.value(ValueRef::text(name), skin, PLAIN, out);
        match Items::of(value).next() {
            Some(inner) => self.value(inner, skin, PLAIN, out),
            None => out.extend_from_slice(if skin.resp3 { b"_\r\n" } else { b"$-1\r\n" }),
        }
    }

    /// A scalar with its type, RESP3 only.
    fn typed(&mut self, value: ValueRef<'_>, out: &mut Vec<u8>) {
        let mark = match value.kind() {
            Kind::Int => b':',
            Kind::BigInt => b'(',
            Kind::Bool => {
                out.extend_from_slice(if value.payload() == [1] { b"#t\r\n" } else { b"#f\r\n" });
                return;
            }
            kind => {
                self.text.clear();
                show(value, &mut self.text);
                return match VERBATIM.iter().find(|(_, known)| *known == kind) {
                    Some((code, _)) => verbatim(code, &self.text, out),
                    None => bulk(&self.text, out),
                };
            }
        };
        out.push(mark);
        show(value, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// How far reply items were written.
#[derive(Debug)]
pub struct Walk {
    /// Containers around the next item.
    open: Vec<Open>,
    /// Items of the innermost one that are still to come.
    left: usize,
}

impl Walk {
    /// A walk that begins in front of so many items.
    pub fn over(count: usize) -> Walk {
        Walk { open: Vec::new(), left: count }
    }
}

/// A container whose inside is being written.
#[derive(Debug)]
struct Open {
    /// Items of the container around it that are still to come.
    left: usize,
    /// Whether every two items of it get a head.
    paired: bool,
}

/// Writes a container's head; answers whether its pairs become arrays of two.
fn container(shape: Shape, count: usize, skin: Skin, form: Form, out: &mut Vec<u8>) -> bool {
    let flat = !skin.resp3 || form & (FLAT | SCAN) != 0;
    match shape {
        Shape::Array => head(b'*', count, out),
        Shape::Members if flat => head(b'*', count, out),
        Shape::Members => head(b'~', count, out),
        Shape::Map | Shape::Scored if flat => head(b'*', count.saturating_mul(2), out),
        Shape::Map if form & PAIRS == 0 => head(b'%', count, out),
        Shape::Map | Shape::Scored => {
            head(b'*', count, out);
            return true;
        }
    }
    false
}

/// Appends an error line. Line breaks inside the text would end it early, so they become blanks.
pub fn put_error(error: &Error, out: &mut Vec<u8>) {
    out.push(b'-');
    out.extend_from_slice(error.kind().resp_prefix().as_bytes());
    out.push(b' ');
    out.extend(error.message().bytes().map(|byte| if byte < b' ' { b' ' } else { byte }));
    if let Some(found) = error.found() {
        out.extend_from_slice(b" (found version ");
        put_int(found.version, out);
        out.push(b')');
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends what a GET answers, straight from where it is stored: content, or nothing there. `None`, having appended
/// nothing, for whatever has to be shown.
#[inline]
pub fn content(stored: Option<Stored<'_>>, skin: Skin, out: &mut Vec<u8>) -> Option<()> {
    match stored {
        Some(_) if skin.typed => return None,
        Some(stored) => bulk(stored.scalar()?.content()?, out),
        None if skin.resp3 => out.extend_from_slice(b"_\r\n"),
        None => out.extend_from_slice(b"$-1\r\n"),
    }
    Some(())
}

/// Appends a bulk string.
#[inline]
pub fn bulk(content: &[u8], out: &mut Vec<u8>) {
    out.reserve(content.len().saturating_add(32));
    head(b'$', content.len(), out);
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// Appends an integer.
#[inline]
pub fn integer(number: i64, out: &mut Vec<u8>) {
    line(b':', number, out);
}

/// Appends the head of an array or map.
#[inline]
pub fn head(mark: u8, count: usize, out: &mut Vec<u8>) {
    line(mark, i64::try_from(count).unwrap_or(i64::MAX), out);
}

#[inline]
fn line(mark: u8, number: i64, out: &mut Vec<u8>) {
    // Commands have few arguments, and values are short.
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => out.extend_from_slice(&[mark, digit | b'0', b'\r', b'\n']),
        Ok(two @ 10..=99) => {
            out.extend_from_slice(&[mark, (two / 10) | b'0', (two % 10) | b'0', b'\r', b'\n']);
        }
        _ => long_line(mark, number, out),
    }
}

#[inline(never)]
fn long_line(mark: u8, number: i64, out: &mut Vec<u8>) {
    out.push(mark);
    put_int(number, out);
    out.extend_from_slice(b"\r\n");
}

fn verbatim(code: &[u8; 3], text: &[u8], out: &mut Vec<u8>) {
    head(b'=', text.len().saturating_add(4), out);
    out.extend_from_slice(code);
    out.push(b':');
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
