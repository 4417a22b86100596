//! The tables of `docs/TYPES.md` that are marked as checked say what the code does.

use data_bridge_kv_model::identity::same_identity;
use data_bridge_kv_model::kind::{RESERVED_FROM, RESERVED_TO};
use data_bridge_kv_model::limits::{BIGINT_BYTES, NAME_BYTES, VALUE_BYTES, VALUE_DEPTH, VALUE_ELEMENTS};
use data_bridge_kv_model::show::{UNTYPED_BYTES, matches_untyped, show, typed_readings};
use data_bridge_kv_model::{Arg, Kind, ValueRef};

const DOCUMENT: &str = include_str!("../../../docs/TYPES.md");

/// The rows of the table behind `<!-- checked: name -->`, without its head, cells trimmed.
fn table(name: &str) -> Vec<Vec<&'static str>> {
    let mark = format!("<!-- checked: {name} -->\n");
    let (_, behind) = DOCUMENT.split_once(&mark).unwrap_or_else(|| panic!("TYPES.md has no table {name}"));
    let rows = behind.lines().take_while(|line| line.starts_with('|')).skip(2);
    let rows: Vec<Vec<&str>> =
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>()).collect();
    assert!(!rows.is_empty(), "the table {name} is empty");
    rows
}

/// A cell in backticks without them.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

fn literal<'a>(kind: Kind, text: &'a str, scratch: &'a mut Vec<u8>) -> ValueRef<'a> {
    let value = Arg::Literal(kind, text.as_bytes()).value(scratch);
    value.unwrap_or_else(|error| panic!("{} {text}: {error}", kind.name()))
}

#[test]
fn kinds_are_those_of_the_code() {
    let rows = table("kinds");
    assert_eq!(rows.len(), Kind::ALL.len());
    for (row, kind) in rows.iter().zip(Kind::ALL) {
        assert_eq!(row[0], kind.number().to_string());
        assert_eq!(row[1], kind.name());
        let variant = code(row[2]).unwrap().split('(').next().unwrap();
        assert_eq!(variant, format!("{kind:?}"));
        assert!(row[3].len() > 2 && row[4].len() > 2, "{row:?}");
    }
    for fact in [
        format!("Numbers {RESERVED_FROM} to {RESERVED_TO} are kept"),
        format!("nests at most {VALUE_DEPTH} deep"),
        format!("{} MiB encoded", VALUE_BYTES >> 20),
        format!("1 to {NAME_BYTES} bytes"),
        format!("longer than {UNTYPED_BYTES} match only"),
    ] {
        assert!(DOCUMENT.replace('\n', " ").contains(&fact), "TYPES.md does not say: {fact}");
    }
    assert_eq!((VALUE_ELEMENTS, BIGINT_BYTES * 8), (16_777_216, 32_768));
}

#[test]
fn scalars_are_shown_and_read_as_written() {
    let (mut kinds, mut shown) = (Vec::new(), 0);
    for row in table("doors") {
        let named: Vec<Kind> = row[0].split(", ").map(|name| Kind::from_name(name).unwrap()).collect();
        kinds.extend(&named);
        let Some(text) = code(row[1]) else { continue };
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        let value = literal(named[0], text, &mut scratch);
        assert!(show(value, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), text, "{row:?}");
        if let Some(other) = code(row[2]) {
            let mut scratch = Vec::new();
            assert_eq!(literal(named[0], other, &mut scratch), value, "{row:?}");
        }
        let typed = code(row[3]).unwrap();
        if let Some(verbatim) = typed.strip_prefix('=') {
            let (length, coded) = verbatim.split_once(' ').unwrap();
            assert_eq!(length, (text.len() + 4).to_string(), "{row:?}");
            assert!(coded[4..] == *text || &coded[4..] == "…", "{row:?}");
        } else if named[0] != Kind::Bool {
            assert_eq!(&typed[1..], text, "{row:?}");
        }
        shown += 1;
    }
    assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)), "a kind is missing: {kinds:?}");
    assert!(shown > 15);
}

#[test]
fn untyped_bytes_match_as_written() {
    for row in table("identity") {
        let (name, text) = row[0].split_once(' ').unwrap();
        let mut scratch = Vec::new();
        let stored = literal(Kind::from_name(name).unwrap(), code(text).unwrap(), &mut scratch);
        let bytes = code(row[1]).unwrap().as_bytes();
        let found = |reading: ValueRef<'_>| {
            (same_identity(reading, stored) && matches_untyped(stored, bytes)).then_some(())
        };
        let named = found(ValueRef::bytes(bytes)).is_some() || typed_readings(bytes, found).is_some();
        assert_eq!(if named { "yes" } else { "no" }, row[2], "as a member: {row:?}");
        assert_eq!(
            if matches_untyped(stored, bytes) { "yes" } else { "no" },
            row[2],
            "as an expected value: {row:?}"
        );
    }
}
