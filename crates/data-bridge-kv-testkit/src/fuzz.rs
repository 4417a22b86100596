//! What must hold for any bytes, as plain functions: tests call them with random and mutated bytes on stable Rust, the
//! targets in `fuzz/` call them under libFuzzer. A body panics if a promise is broken and answers whether the input was
//! accepted.

mod inputs;

pub use inputs::Inputs;

use data_bridge_kv_model::codec::element_count;
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::identity::{exact_eq, identity_hash, same_identity};
use data_bridge_kv_model::show::{matches_untyped, show, typed_readings};
use data_bridge_kv_model::{
    Arg, Decimal, Glob, Items, Kind, Reply, ReplyBuf, ReplyReader, Shape, Value, ValueRef, frame,
};

/// The value codec: what is accepted has no other encoding, can be walked, compared, shown and read back.
pub fn value(bytes: &[u8]) -> bool {
    let Ok(value) = ValueRef::decode(bytes) else { return false };
    let mut again = Vec::new();
    value.encode_into(&mut again);
    assert_eq!(again, bytes, "encoded again it differs");
    assert_eq!(value.encoded_len(), bytes.len());
    assert_eq!(Value::from_ref(value).encode(), bytes, "as a tree it differs");
    assert!(exact_eq(value, value), "it does not equal itself");
    walk(value);
    if value.is_member() {
        assert!(same_identity(value, value));
        assert_eq!(identity_hash(value), identity_hash(value));
    }
    shown(value);
    if bytes.len() <= 256 {
        for cut in 0..bytes.len() {
            assert!(ValueRef::decode(&bytes[..cut]).is_err(), "cut at {cut} it is accepted");
        }
    }
    true
}

/// Every item is there, and they are as many as the count says.
fn walk(value: ValueRef<'_>) {
    let found = Items::of(value).inspect(|item| walk(*item)).count();
    let pairs = matches!(value.kind(), Kind::Hash | Kind::SortedSet);
    if let Some(count) = element_count(value) {
        assert_eq!(found, if pairs { count * 2 } else { count });
    }
}

/// The shown text names the value again, and as a literal of its kind it is the value, where names do not hold brackets.
fn shown(value: ValueRef<'_>) {
    let mut text = Vec::new();
    if !show(value, &mut text) {
        return;
    }
    assert!(matches_untyped(value, &text) || text.len() > data_bridge_kv_model::show::UNTYPED_BYTES);
    let bracketed = matches!(value.kind(), Kind::Timestamp | Kind::Time)
        && text.iter().filter(|byte| matches!(byte, b'[' | b']')).count() > 2;
    let nan = value.as_float().is_some_and(f64::is_nan);
    if matches!(value.kind(), Kind::Opaque) || bracketed || nan {
        return;
    }
    let mut scratch = Vec::new();
    let read = Arg::Literal(value.kind(), &text).value(&mut scratch);
    assert_eq!(read, Ok(value), "{:?}", String::from_utf8_lossy(&text));
}

/// Frames of both directions: what is accepted is written again to the same bytes; any arguments build a command or
/// are refused. Bytes that are no whole frame are taken as a body, so that a wrong length hides nothing.
pub fn frame(bytes: &[u8]) -> bool {
    let body = match frame::split(bytes, 1 << 20) {
        Ok(Some((body, used))) => {
            assert_eq!(body.len() + 4, used);
            body
        }
        Ok(None) | Err(_) => bytes,
    };
    let (request, response) = (request(body), frame::read_response(body));
    if let Ok((id, flags, item)) = response {
        let mut again = Vec::new();
        let at = frame::start_response(id, flags, &mut again);
        again.extend_from_slice(item);
        frame::finish(at, &mut again);
        assert_eq!(frame::split(&again, again.len()), Ok(Some((body, again.len()))));
        reply(item);
    }
    request
}

fn request(body: &[u8]) -> bool {
    let mut args = Vec::new();
    let Ok(head) = frame::read_request(body, 1 << 16, &mut args) else { return false };
    let mut again = Vec::new();
    let at = frame::start_request(head, &mut again);
    for arg in &args {
        let Arg::Value(value) = arg else { panic!("a native argument is a value") };
        frame::put_arg(*value, &mut again);
    }
    frame::finish(at, &mut again);
    assert_eq!(frame::split(&again, again.len()), Ok(Some((body, again.len()))));
    if let Some(spec) = table::by_opcode(head.opcode) {
        let _ = spec.build(&args);
    }
    true
}

/// Reply items: reading, skipping and reading as one tree agree, and the tree written again is the same tree.
pub fn reply(bytes: &[u8]) -> bool {
    let mut items = ReplyReader::new(bytes);
    while !items.is_done() && items.item().is_ok() {}
    let mut whole = ReplyReader::new(bytes);
    let Ok(reply) = whole.reply() else { return false };
    let mut skipped = ReplyReader::new(bytes);
    assert!(skipped.skip().is_ok());
    assert_eq!(skipped.rest(), whole.rest());
    let mut again = ReplyBuf::new();
    write(&reply, &mut again);
    let mut second = ReplyBuf::new();
    let read = ReplyReader::new(again.as_bytes()).reply();
    write(&read.unwrap_or_else(|error| panic!("written again it is refused: {error}")), &mut second);
    assert_eq!(again.as_bytes(), second.as_bytes());
    true
}

fn write(reply: &Reply, out: &mut ReplyBuf) {
    match reply {
        Reply::Missing => out.missing(),
        Reply::Ok => out.ok(),
        Reply::Integer(number) => out.integer(*number),
        Reply::Boolean(yes) => out.boolean(*yes),
        Reply::Value(value) => value.encode_into(out.bytes_mut()),
        Reply::Error(error) => out.error(error),
        Reply::Status(text) => out.status(text),
        Reply::Container(shape, items) => {
            let pairs = matches!(shape, Shape::Map | Shape::Scored);
            out.container(*shape, if pairs { items.len() / 2 } else { items.len() });
            items.iter().for_each(|item| write(item, out));
        }
    }
}

/// Texts of Redis clients: read as every kind, as a number, and as what they may name.
pub fn text(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for kind in Kind::ALL {
        let mut scratch = Vec::new();
        let Ok(read) = Arg::Literal(kind, bytes).value(&mut scratch) else { continue };
        let mut encoded = Vec::new();
        read.encode_into(&mut encoded);
        assert!(value(&encoded), "the literal of a {} breaks the codec's rules", kind.name());
        accepted |= !matches!(kind, Kind::Text | Kind::Bytes);
    }
    typed_readings(bytes, |named| -> Option<()> {
        assert!(matches_untyped(named, bytes));
        None
    });
    let _ = (Arg::Untyped(bytes).int(), Arg::Untyped(bytes).float(), Arg::Untyped(bytes).key());
    accepted
}

/// Decimal text: what is accepted is shown as a text that is read as the same number.
pub fn decimal(bytes: &[u8]) -> bool {
    let Ok(number) = Decimal::parse_bytes(bytes) else { return false };
    assert_eq!(number.to_string().parse(), Ok(number));
    assert_eq!(Decimal::from_payload(&number.to_payload()), Ok(number));
    let doubled = number.checked_add(number);
    assert!(
        doubled.is_err()
            || doubled.and_then(|sum| sum.checked_sub(number)).is_ok_and(|one| one.numeric_eq(number))
    );
    true
}

/// Glob patterns: the first byte says where the pattern ends and the text begins.
pub fn glob(bytes: &[u8]) -> bool {
    let Some((&at, rest)) = bytes.split_first() else { return false };
    let (pattern, text) = rest.split_at(rest.len().min(usize::from(at)));
    let Ok(glob) = Glob::new(pattern) else { return false };
    let matches = glob.matches(text);
    assert!(!matches || text.starts_with(glob.literal_prefix()));
    matches
}
