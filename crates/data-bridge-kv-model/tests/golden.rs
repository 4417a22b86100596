//! Bytes that must never change: value codec, frames, reply items, opcodes, error codes, one line a case in `golden/`.
//!
//! A case that is new here is printed as the line to add. A line that is there already is a promise to data and
//! clients that exist: it may not be edited.

use std::fmt::Write;

use data_bridge_kv_model::command::table::COMMANDS;
use data_bridge_kv_model::error::{ErrorKind, Found};
use data_bridge_kv_model::frame::{self, RequestHead};
use data_bridge_kv_model::value::{BigInt, Moment, SortedSet};
use data_bridge_kv_model::{Error, Kind, ReplyBuf, ReplyReader, Shape, Value, ValueRef};

/// The lines of a golden file, without comments.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The file holds exactly these lines in this order.
fn assert_lines(file: &str, golden: &str, wanted: &[String]) {
    let golden = lines(golden);
    for (line, wanted) in golden.iter().zip(wanted) {
        assert_eq!(line, wanted, "golden/{file}: bytes that exist somewhere have changed");
    }
    let more = wanted.get(golden.len()..).unwrap_or_default().join("\n");
    assert_eq!(golden.len(), wanted.len(), "golden/{file} lacks or has lines too many; to add:\n{more}");
    assert!(!wanted.is_empty());
}

fn text(content: &str) -> Value {
    Value::Text(content.into())
}

fn decimal(content: &str) -> Value {
    Value::Decimal(content.parse().unwrap())
}

fn moment(local_us: i64, offset_us: Option<i64>, fold: bool, zone: Option<&str>) -> Box<Moment> {
    Box::new(Moment { local_us, offset_us, fold, zone: zone.map(Box::from) })
}

fn scalars() -> Vec<(&'static str, Value)> {
    let noon = 1_795_348_800_000_000;
    let big = |negative, magnitude: &[u8]| {
        Value::BigInt(Box::new(BigInt { negative, magnitude: magnitude.into() }))
    };
    vec![
        ("null", Value::Null),
        ("false", Value::Bool(false)),
        ("true", Value::Bool(true)),
        ("int_0", Value::Int(0)),
        ("int_-2", Value::Int(-2)),
        ("int_min", Value::Int(i64::MIN)),
        ("int_max", Value::Int(i64::MAX)),
        ("float_1.5", Value::Float(1.5)),
        ("float_-0", Value::Float(-0.0)),
        ("float_nan", Value::Float(f64::from_bits(0x7ff8_0000_0000_0001))),
        ("float_inf", Value::Float(f64::INFINITY)),
        ("decimal_1.10", decimal("1.10")),
        ("decimal_-0", decimal("-0")),
        ("decimal_1E+5", decimal("1E+5")),
        ("decimal_longest", decimal("-99999999999999999999999999999999999999E-32768")),
        ("text_empty", text("")),
        ("text_utf8", text("aé\u{1F600}")),
        ("text_127", text(&"x".repeat(127))),
        ("text_128", text(&"x".repeat(128))),
        ("bytes_empty", Value::Bytes(Box::from([]))),
        ("bytes_0_255", Value::Bytes(Box::from([0u8, 255]))),
        ("bigint_2^63", big(false, &(1u64 << 63).to_le_bytes())),
        ("bigint_-2^63-1", big(true, &((1u64 << 63) + 1).to_le_bytes())),
        ("bigint_2^64", big(false, &[0, 0, 0, 0, 0, 0, 0, 0, 1])),
        ("timestamp_naive", Value::Timestamp(moment(noon, None, false, None))),
        ("timestamp_first", Value::Timestamp(moment(-62_135_596_800_000_000, None, false, None))),
        ("timestamp_last", Value::Timestamp(moment(253_402_300_799_999_999, None, false, None))),
        ("timestamp_offset", Value::Timestamp(moment(noon, Some(-5_400_000_000), false, None))),
        (
            "timestamp_zone_fold",
            Value::Timestamp(moment(noon, Some(3_600_000_000), true, Some("Europe/Berlin"))),
        ),
        ("date_1970", Value::Date(0)),
        ("date_first", Value::Date(-719_162)),
        ("date_last", Value::Date(2_932_896)),
        ("time_naive", Value::Time(moment(43_200_000_001, None, false, None))),
        ("time_offset", Value::Time(moment(86_399_999_999, Some(0), false, None))),
        ("time_zone", Value::Time(moment(0, None, true, Some("Europe/Berlin")))),
        ("duration_0", Value::Duration(0, 0)),
        ("duration_-1us", Value::Duration(-1, 86_399_999_999)),
        ("duration_longest", Value::Duration(999_999_999, 86_399_999_999)),
        ("uuid", Value::Uuid(std::array::from_fn(|at| at as u8))),
        ("opaque", Value::Opaque(Box::new(("pickle".into(), Box::from([0x80u8, 5]))))),
    ]
}

fn containers() -> Vec<(&'static str, Value)> {
    let one = || Value::Int(1);
    vec![
        ("list_empty", Value::List(vec![])),
        ("list_mixed", Value::List(vec![one(), text("a"), Value::List(vec![Value::Null])])),
        ("set_empty", Value::Set(vec![])),
        ("set_mixed", Value::Set(vec![one(), text("1"), Value::Float(1.0), Value::Tuple(vec![one()])])),
        ("hash_empty", Value::Hash(vec![])),
        (
            "hash_mixed",
            Value::Hash(vec![(text("a"), one()), (one(), Value::Hash(vec![(text("b"), Value::Null)]))]),
        ),
        ("sortedset_empty", Value::SortedSet(SortedSet::Float(vec![]))),
        ("sortedset_float", Value::SortedSet(SortedSet::Float(vec![(-1.5, text("a")), (2.0, one())]))),
        (
            "sortedset_decimal",
            Value::SortedSet(SortedSet::Decimal(vec![("1.10".parse().unwrap(), text("a"))])),
        ),
        ("tuple_empty", Value::Tuple(vec![])),
        ("tuple_pair", Value::Tuple(vec![one(), text("a")])),
        ("frozenset_empty", Value::FrozenSet(vec![])),
        ("frozenset_nested", Value::FrozenSet(vec![one(), Value::FrozenSet(vec![text("a")])])),
        ("tagged", Value::Tagged(Box::new(("shop.Order".into(), Value::Hash(vec![(text("id"), one())]))))),
    ]
}

#[test]
fn values_keep_their_bytes() {
    let cases: Vec<(&str, Value)> = scalars().into_iter().chain(containers()).collect();
    let wanted: Vec<String> =
        cases.iter().map(|(name, value)| format!("{name} {}", hex(&value.encode()))).collect();
    let golden = include_str!("golden/value.hex");
    assert_lines("value.hex", golden, &wanted);
    for (line, (_, value)) in lines(golden).iter().zip(&cases) {
        let bytes = bytes_of(line.split_once(' ').unwrap().1);
        assert_eq!(Value::decode(&bytes).unwrap().encode(), bytes, "{line}");
        assert_eq!(Value::decode(&bytes).unwrap().kind(), value.kind(), "{line}");
    }
    for kind in Kind::ALL {
        assert!(cases.iter().any(|(_, value)| value.kind() == kind), "no case of {}", kind.name());
    }
}

#[test]
fn frames_keep_their_bytes() {
    let request = |head: RequestHead, args: &[Value]| {
        let mut out = Vec::new();
        let at = frame::start_request(head, &mut out);
        args.iter().for_each(|arg| arg.encode_into(&mut out));
        frame::finish(at, &mut out);
        out
    };
    let response = |id: u32, flags: u8, write: fn(&mut ReplyBuf)| {
        let (mut out, mut item) = (Vec::new(), ReplyBuf::new());
        let at = frame::start_response(id, flags, &mut out);
        write(&mut item);
        out.extend_from_slice(item.as_bytes());
        frame::finish(at, &mut out);
        out
    };
    let head = |id, opcode, flags| RequestHead { id, opcode, flags };
    let cases = [
        ("preface", frame::PREFACE.to_vec()),
        ("request_ping", request(head(1, 0x100, 0), &[])),
        ("request_kv_set", request(head(0x0102_0304, 0x012, 0), &[text("k"), decimal("1.10")])),
        ("request_last_id", request(head(u32::MAX, 0x011, 0), &[text("k")])),
        ("response_ok", response(1, 0, ReplyBuf::ok)),
        ("response_value", response(0x0102_0304, 0, |out| out.value(ValueRef::text("v")))),
        ("response_push", response(9, frame::PUSH, |out| out.integer(5))),
    ];
    let wanted: Vec<String> = cases.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes))).collect();
    assert_lines("frame.hex", include_str!("golden/frame.hex"), &wanted);
}

#[test]
fn reply_items_keep_their_bytes() {
    let found = |current: Option<&str>| {
        let current = current.map(|content| text(content).encode().into());
        Error::conflict("differs", Found { current, version: 0x0102_0304 })
    };
    let item = |write: &dyn Fn(&mut ReplyBuf)| {
        let mut out = ReplyBuf::new();
        write(&mut out);
        out.as_bytes().to_vec()
    };
    let container = |shape: Shape| {
        move |out: &mut ReplyBuf| {
            let open = out.open(shape);
            let pairs = matches!(shape, Shape::Map | Shape::Scored);
            for at in 0..if pairs { 4 } else { 2 } {
                out.integer(at);
            }
            out.close(open, 2);
        }
    };
    let cases = [
        ("missing", item(&|out| out.missing())),
        ("ok", item(&|out| out.ok())),
        ("integer", item(&|out| out.integer(-2))),
        ("boolean", item(&|out| out.boolean(true))),
        ("value", item(&|out| out.value(ValueRef::bytes(b"v")))),
        ("array", item(&container(Shape::Array))),
        ("map", item(&container(Shape::Map))),
        ("members", item(&container(Shape::Members))),
        ("scored", item(&container(Shape::Scored))),
        ("error", item(&|out| out.error(&Error::syntax()))),
        ("conflict_value", item(&|out| out.error(&found(Some("v"))))),
        ("conflict_missing", item(&|out| out.error(&found(None)))),
        ("status", item(&|out| out.status("QUEUED"))),
    ];
    let wanted: Vec<String> = cases.iter().map(|(name, bytes)| format!("{name} {}", hex(bytes))).collect();
    assert_lines("reply.hex", include_str!("golden/reply.hex"), &wanted);
    for (name, bytes) in &cases {
        let mut reader = ReplyReader::new(bytes);
        assert!(reader.reply().is_ok() && reader.is_done(), "{name}");
    }
}

#[test]
fn opcodes_and_error_codes_keep_their_numbers() {
    let wanted: Vec<String> =
        COMMANDS.iter().map(|spec| format!("{:#05x} {}", spec.opcode, spec.name)).collect();
    // A new command may stand between two others, so these lines are compared as a set.
    let golden = lines(include_str!("golden/opcodes.txt"));
    for line in &golden {
        assert!(wanted.iter().any(|wanted| wanted == line), "opcode was changed or removed: {line}");
    }
    let new: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|wanted| !golden.contains(wanted)).collect();
    assert!(new.is_empty(), "golden/opcodes.txt lacks lines; to add:\n{}", new.join("\n"));

    let wanted: Vec<String> = (1..=u8::MAX)
        .map_while(ErrorKind::from_code)
        .map(|kind| format!("{} {kind:?} {}", kind.code(), kind.resp_prefix()))
        .collect();
    assert_lines("errors.txt", include_str!("golden/errors.txt"), &wanted);
}
