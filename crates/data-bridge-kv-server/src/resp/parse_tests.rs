//! What requests look like, and what is refused.

use super::*;
use data_bridge_kv_model::Value;

const LIMITS: Limits = Limits { arguments: 1000, bulk_bytes: 1000, inline_bytes: 200 };

/// Parses one request and shows its arguments.
fn parsed(input: &[u8]) -> Result<Option<(Vec<String>, usize)>, ProtocolError> {
    let (mut args, mut scratch, mut placed) = (Vec::new(), Vec::new(), Vec::new());
    let mut intake = Intake::new(&mut args, &mut scratch, &mut placed);
    let Some(rest) = request(input, &LIMITS, &mut intake)? else { return Ok(None) };
    if let Some(error) = intake.fault {
        return Ok(Some((vec![format!("fault: {error}")], rest.len())));
    }
    let rest = rest.len();
    place(&mut args, &scratch, &placed);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = args.iter().map(|arg| match arg {
        Arg::Untyped(bytes) => text(bytes),
        Arg::Literal(kind, bytes) => format!("{}:{}", kind.name(), text(bytes)),
        Arg::Value(value) => format!("{:?}", Value::from_ref(*value)),
    });
    Ok(Some((shown.collect(), rest)))
}

fn words(input: &[u8]) -> Vec<String> {
    parsed(input).unwrap().unwrap().0
}

#[test]
fn an_array_of_bulk_strings_in_any_cut() {
    let whole = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\n\0\r\n45678901\xff\r\n*1";
    for end in 0..whole.len() - 2 {
        assert_eq!(parsed(&whole[..end]), Ok(None), "{end}");
    }
    assert_eq!(words(&whole[..whole.len() - 2]), ["SET", "k", "\0\r\n45678901\u{fffd}"]);
    assert_eq!(parsed(whole).unwrap().unwrap().1, 2);
}

#[test]
fn typed_elements_are_arguments() {
    let scalars = b"*9\r\n$1\r\nX\r\n:-5\r\n,1e3\r\n#t\r\n_\r\n(12345678901234567890\r\n(7\r\n=8\r\ndec:1.10\r\n=6\r\ntxt:hi\r\n";
    assert_eq!(
        words(scalars),
        [
            "X",
            "int:-5",
            "float:1e3",
            "Bool(true)",
            "Null",
            "bigint:12345678901234567890",
            "int:7",
            "decimal:1.10",
            "text:hi"
        ]
    );
    let nested = b"*2\r\n$1\r\nX\r\n*3\r\n:1\r\n~1\r\n$1\r\na\r\n%1\r\n=5\r\ntxt:f\r\n=7\r\ndec:1.5\r\n";
    for end in 0..nested.len() {
        assert_eq!(parsed(&nested[..end]), Ok(None), "{end}");
    }
    let shown = words(nested);
    assert!(shown[1].starts_with("List([Int(1), Set(") && shown[1].contains("Hash("), "{}", shown[1]);
    let fault = words(b"*2\r\n$1\r\nX\r\n*1\r\n,abc\r\n");
    assert_eq!(fault, ["fault: value is not a valid float"]);
    let member = words(b"*2\r\n$1\r\nX\r\n~1\r\n*0\r\n");
    assert!(member[0].starts_with("fault: "), "{member:?}");
}

#[test]
fn hostile_lengths_are_refused_at_their_head() {
    for bad in [
        &b"*2147483647\r\n"[..],
        b"*99999999999999999999\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$1\r\nab\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"*1\r\n!3\r\nabc\r\n",
        b"*2\r\n$1\r\nX\r\n=3\r\nabc\r\n",
        b"*2\r\n$1\r\nX\r\n%2147483647\r\n",
        b"POST / HTTP/1.1\r\n",
    ] {
        assert!(parsed(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
    let deep = [b"*2\r\n$1\r\nX\r\n".to_vec(), b"*1\r\n".repeat(100), b":1\r\n".to_vec()].concat();
    assert!(parsed(&deep).is_err());
    assert!(parsed(&b"a".repeat(200)).is_err());
    assert_eq!(parsed(&b"a".repeat(199)), Ok(None));
    let line = [b"*2\r\n$1\r\nX\r\n(".to_vec(), b"1".repeat(LINE_BYTES)].concat();
    assert!(parsed(&line).is_err());
}

#[test]
fn nothing_is_asked_by_an_empty_line_or_array() {
    for empty in [&b"\r\n"[..], b"*0\r\n", b"*-1\r\n", b"   \r\n"] {
        assert!(words(empty).is_empty());
    }
}

#[test]
fn inline_words_are_split_as_redis_does() {
    assert_eq!(words(b"SET k  v\r\nrest"), ["SET", "k", "v"]);
    assert_eq!(words(b"SET \"a b\\n\\x41\\\"\" 'c\\'d'\n"), ["SET", "a b\nA\"", "c'd"]);
    assert!(parsed(b"SET \"a\r\n").is_err());
    assert!(parsed(b"SET \"a\"b\r\n").is_err());
    assert_eq!(parsed(b"PING"), Ok(None));
}
