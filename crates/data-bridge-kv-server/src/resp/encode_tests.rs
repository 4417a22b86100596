//! What replies look like in each skin.

use super::*;
use data_bridge_kv_model::{ErrorKind, ReplyBuf, Value};

const RESP2: Skin = Skin { resp3: false, typed: false };
const RESP3: Skin = Skin { resp3: true, typed: false };
const TYPED: Skin = Skin { resp3: true, typed: true };

fn shown(skin: Skin, form: Form, write: impl Fn(&mut ReplyBuf)) -> String {
    let mut reply = ReplyBuf::new();
    write(&mut reply);
    let mut out = Vec::new();
    Encoder::default().reply(reply.as_bytes(), skin, form, &mut out);
    String::from_utf8(out).unwrap().replace("\r\n", "|")
}

fn value(skin: Skin, value: Value) -> String {
    shown(skin, PLAIN, |out| out.value(ValueRef::decode(&value.encode()).unwrap()))
}

#[test]
fn plain_items() {
    for skin in [RESP2, RESP3] {
        assert_eq!(shown(skin, PLAIN, ReplyBuf::ok), "+OK|");
        assert_eq!(shown(skin, PLAIN, |out| out.integer(-1234)), ":-1234|");
        assert_eq!(shown(skin, PLAIN, |out| out.boolean(true)), ":1|");
        assert_eq!(shown(skin, PLAIN, |out| out.value(ValueRef::bytes(b"0123456789"))), "$10|0123456789|");
        assert_eq!(shown(skin, PLAIN, |out| out.status("string")), "+string|");
        assert_eq!(value(skin, Value::Int(42)), "$2|42|");
    }
    assert_eq!(shown(RESP2, PLAIN, ReplyBuf::missing), "$-1|");
    assert_eq!(shown(RESP2, NULL_ARRAY, ReplyBuf::missing), "*-1|");
    assert_eq!(shown(RESP3, NULL_ARRAY, ReplyBuf::missing), "_|");
    assert_eq!(shown(TYPED, PLAIN, |out| out.boolean(false)), "#f|");
}

#[test]
fn containers_take_the_shape_of_the_protocol() {
    let scored = |out: &mut ReplyBuf| {
        out.container(Shape::Scored, 2);
        out.value(ValueRef::bytes(b"a"));
        out.float(1.0);
        out.value(ValueRef::bytes(b"b"));
        out.float(2.5);
    };
    assert_eq!(shown(RESP2, SCORES, scored), "*4|$1|a|$1|1|$1|b|$3|2.5|");
    assert_eq!(shown(RESP3, SCORES, scored), "*2|*2|$1|a|,1|*2|$1|b|,2.5|");
    assert_eq!(shown(RESP3, SCORES | FLAT, scored), "*4|$1|a|,1|$1|b|,2.5|");
    let scan = |out: &mut ReplyBuf| {
        out.container(Shape::Array, 2);
        out.integer(-1);
        scored(out);
    };
    assert_eq!(shown(RESP3, SCAN, scan), "*2|$20|18446744073709551615|*4|$1|a|$1|1|$1|b|$3|2.5|");
    let map = |out: &mut ReplyBuf| {
        out.container(Shape::Map, 1);
        out.value(ValueRef::text("f"));
        out.container(Shape::Members, 1);
        out.missing();
    };
    assert_eq!(shown(RESP2, PLAIN, map), "*2|$1|f|*1|$-1|");
    assert_eq!(shown(RESP3, PLAIN, map), "%1|$1|f|~1|_|");
    assert_eq!(shown(RESP3, PAIRS, map), "*1|*2|$1|f|~1|_|");
}

#[test]
fn stored_collections_and_typed_scalars() {
    let list = Value::List(vec![Value::Int(1), Value::Null, Value::Text("x".into())]);
    assert_eq!(value(RESP2, list.clone()), "*3|$1|1|$-1|$1|x|");
    assert_eq!(value(TYPED, list), "*3|:1|_|=5|txt:x|");
    assert_eq!(value(TYPED, Value::Decimal("1.10".parse().unwrap())), "=8|dec:1.10|");
    assert_eq!(value(RESP3, Value::Decimal("1.10".parse().unwrap())), "$4|1.10|");
    assert_eq!(value(TYPED, Value::Float(0.5)), ",0.5|");
    assert_eq!(value(TYPED, Value::Bool(true)), "#t|");
    assert_eq!(value(TYPED, Value::Bytes(b"b"[..].into())), "$1|b|");
}

#[test]
fn an_error_is_one_line() {
    let error = Error::new(ErrorKind::WrongType, "a\r\nb");
    assert_eq!(shown(RESP2, PLAIN, |out| out.error(&error)), "-WRONGTYPE a  b|");
}
