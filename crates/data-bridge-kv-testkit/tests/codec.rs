//! The codec's promises over arbitrary values, and the fuzz bodies over random and mutated bytes.

use data_bridge_kv_model::command::table::COMMANDS;
use data_bridge_kv_model::frame::{self, RequestHead};
use data_bridge_kv_model::identity::{exact_eq, identity_hash, same_identity};
use data_bridge_kv_model::{Error, ReplyBuf, Shape, Value, ValueRef};
use data_bridge_kv_testkit::fuzz::{self, Inputs};
use data_bridge_kv_testkit::values;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Inputs of each fuzz body: a few seconds without optimisation.
const INPUTS: usize = 300_000;

fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_value_comes_back(value in values::value()) {
        let bytes = value.encode();
        let read = Value::decode(&bytes);
        prop_assert!(read.is_ok(), "{value:?} is refused: {read:?}");
        prop_assert_eq!(read.unwrap().encode(), bytes.clone());
        prop_assert!(fuzz::value(&bytes));
    }

    #[test]
    fn a_part_or_more_of_a_value_is_refused(value in values::value(), more: u8) {
        let mut bytes = value.encode();
        for cut in 0..bytes.len() {
            prop_assert!(ValueRef::decode(&bytes[..cut]).is_err(), "cut at {}", cut);
        }
        bytes.push(more);
        prop_assert!(ValueRef::decode(&bytes).is_err());
    }

    #[test]
    fn order_inside_sets_and_hashes_does_not_count(value in values::value(), other in values::value()) {
        let (bytes, turned, other) = (value.encode(), values::reordered(&value).encode(), other.encode());
        let (one, turned) = (ValueRef::decode(&bytes).unwrap(), ValueRef::decode(&turned).unwrap());
        prop_assert!(exact_eq(one, turned) && exact_eq(turned, one));
        let other = ValueRef::decode(&other).unwrap();
        prop_assert_eq!(exact_eq(one, other), exact_eq(other, one));
    }

    #[test]
    fn one_identity_has_one_hash(one in values::member(), other in values::member()) {
        let turned = values::reordered(&one).encode();
        let (one, other) = (one.encode(), other.encode());
        let (one, other, turned) =
            (ValueRef::decode(&one).unwrap(), ValueRef::decode(&other).unwrap(), ValueRef::decode(&turned).unwrap());
        prop_assert!(one.is_member());
        prop_assert!(same_identity(one, turned) && identity_hash(one) == identity_hash(turned));
        prop_assert_eq!(same_identity(one, other), same_identity(other, one));
        prop_assert_eq!(same_identity(one, other), identity_hash(one) == identity_hash(other));
        prop_assert!(same_identity(one, other) || !exact_eq(one, other));
        if same_identity(one, other) {
            prop_assert_eq!(one.payload().len(), other.payload().len());
        }
    }
}

/// Values that are the same in every run.
fn some(strategy: BoxedStrategy<Value>, count: usize) -> Vec<Value> {
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).expect("the strategy rejects nothing").current())
        .collect()
}

#[expect(clippy::print_stdout, reason = "a checker prints how much it checked")]
fn run(name: &str, corpus: Vec<Vec<u8>>, body: fn(&[u8]) -> bool) {
    let seeds = corpus.len();
    let whole = corpus.iter().filter(|seed| body(seed)).count();
    let accepted = Inputs::new(0x6b76, corpus).run(INPUTS, body);
    println!("{name}: {whole} of {seeds} seeds and {accepted} of {INPUTS} inputs accepted");
    assert!(whole * 2 > seeds, "{name}: most seeds are valid");
    assert!(accepted > INPUTS / 100, "{name}: mutations must reach deep");
}

#[test]
fn any_bytes_as_a_value() {
    run("value", some(values::value(), 400).iter().map(Value::encode).collect(), fuzz::value);
}

#[test]
fn any_bytes_as_a_frame() {
    let values = some(values::value(), 400);
    let mut specs = COMMANDS.iter().cycle();
    let corpus = values.chunks(4).map(|args| {
        let mut out = Vec::new();
        let opcode = specs.next().map_or(0, |spec| spec.opcode);
        let at = frame::start_request(RequestHead { id: 7, opcode, flags: 0 }, &mut out);
        frame::put_arg(ValueRef::text("key"), &mut out);
        args.iter().for_each(|arg| arg.encode_into(&mut out));
        frame::finish(at, &mut out);
        out
    });
    run("frame", corpus.collect(), fuzz::frame);
}

#[test]
fn any_bytes_as_a_reply() {
    let values = some(values::value(), 400);
    let corpus = values.chunks(2).map(|pair| {
        let mut out = ReplyBuf::new();
        let open = out.open(Shape::Array);
        out.container(Shape::Map, 1);
        pair.iter().for_each(|value| value.encode_into(out.bytes_mut()));
        out.integer(5);
        out.missing();
        out.error(&Error::syntax());
        out.status("QUEUED");
        out.close(open, 5);
        out.as_bytes().to_vec()
    });
    run("reply", corpus.collect(), fuzz::reply);
}

#[test]
fn any_bytes_as_text() {
    let shown = some(values::scalar(), 400).into_iter().filter_map(|value| {
        let (bytes, mut text) = (value.encode(), Vec::new());
        let shown = data_bridge_kv_model::show::show(ValueRef::decode(&bytes).ok()?, &mut text);
        (shown && !matches!(value, Value::Text(_) | Value::Bytes(_))).then_some(text)
    });
    run("text", shown.collect(), fuzz::text);
}

#[test]
fn any_bytes_as_a_decimal() {
    let mut runner = TestRunner::deterministic();
    let texts = (0..200).map(|_| {
        let tree = values::decimal().new_tree(&mut runner).expect("the strategy rejects nothing");
        tree.current().to_string().into_bytes()
    });
    run("decimal", texts.collect(), fuzz::decimal);
}

#[test]
fn any_bytes_as_a_pattern() {
    let seeds = [&b"\x06user:*user:42"[..], b"\x04[a-z]b", b"\x03\\*a*a", b"\x05*a*b*xaxb", b"\x02??ab"];
    run("glob", seeds.iter().map(|seed| seed.to_vec()).collect(), fuzz::glob);
}
