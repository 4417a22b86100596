//! The native protocol over a real connection, byte by byte where `docs/PROTOCOL.md` shows bytes.

mod served;

use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::frame::{self, PUSH, REQUEST_HEAD, RequestHead};
use data_bridge_kv_model::limits::ARGUMENTS;
use data_bridge_kv_model::{ErrorKind, Reply, ReplyReader, Shape, Value};
use data_bridge_kv_server::Server;
use served::{Raw, start};

/// Appends a request.
fn put(out: &mut Vec<u8>, id: u32, opcode: u16, args: &[Value]) {
    let at = frame::start_request(RequestHead { id, opcode, flags: 0 }, out);
    args.iter().for_each(|value| out.extend_from_slice(&value.encode()));
    frame::finish(at, out);
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

struct Native(Raw);

impl Native {
    async fn connect(server: &Server) -> Native {
        let mut raw = Raw::connect(server.addresses()[0]).await;
        raw.send(&frame::PREFACE).await;
        assert_eq!(raw.read_bytes(4).await, frame::PREFACE);
        Native(raw)
    }

    async fn response(&mut self) -> (u32, u8, Reply) {
        let length = self.0.read_bytes(4).await.try_into().map(u32::from_le_bytes).unwrap();
        let body = self.0.read_bytes(length as usize).await;
        let (id, flags, item) = frame::read_response(&body).unwrap();
        let mut reader = ReplyReader::new(item);
        let reply = reader.reply().unwrap();
        assert!(reader.is_done());
        (id, flags, reply)
    }

    async fn ask(&mut self, opcode: u16, args: &[Value]) -> Reply {
        let mut request = Vec::new();
        put(&mut request, 77, opcode, args);
        self.0.send(&request).await;
        let (id, flags, reply) = self.response().await;
        assert_eq!((id, flags), (77, 0));
        reply
    }
}

fn kind_of(reply: &Reply) -> ErrorKind {
    let Reply::Error(error) = reply else { panic!("no error: {reply:?}") };
    error.kind()
}

/// The next request went by a connection that was about to be closed.
#[tokio::test]
async fn a_request_with_too_many_arguments_is_refused_and_the_next_one_answered() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    let many = vec![text("k"); ARGUMENTS + 1];
    for _ in 0..2 {
        let refused = native.ask(opcode::DEL, &many).await;
        assert!(matches!(&refused, Reply::Error(error) if error.kind() == ErrorKind::Limit), "{refused:?}");
        assert_eq!(native.ask(opcode::DEL, &many[..2]).await, Reply::Integer(0));
    }
}

#[tokio::test]
async fn the_worked_example_of_the_documentation() {
    let server = start(&[], &[]).await;
    let page = include_str!("../../../docs/PROTOCOL.md");
    let mut raw = Raw::connect(server.addresses()[0]).await;
    let mut exchanges = 0;
    for line in page.lines() {
        let bytes = |hex: &str| -> Vec<u8> {
            hex.split('#')
                .next()
                .unwrap()
                .split_whitespace()
                .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                .collect()
        };
        if let Some(hex) = line.strip_prefix("C: ") {
            raw.send(&bytes(hex)).await;
        } else if let Some(hex) = line.strip_prefix("S: ") {
            let expected = bytes(hex);
            assert_eq!(raw.read_bytes(expected.len()).await, expected, "{line}");
            exchanges += 1;
        }
    }
    assert!(exchanges >= 4, "only {exchanges} answers in the example");
}

#[tokio::test]
async fn a_pipeline_cut_anywhere_is_answered_by_id() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    let mut request = Vec::new();
    for id in 0..500u32 {
        put(&mut request, id * 2, opcode::SET, &[text(&id.to_string()), Value::Int(i64::from(id))]);
        put(&mut request, id * 2 + 1, opcode::KV_GET, &[text(&id.to_string())]);
    }
    for piece in request.chunks(REQUEST_HEAD + 6) {
        native.0.send(piece).await;
    }
    for id in 0..500u32 {
        assert_eq!(native.response().await, (id * 2, 0, Reply::Ok));
        assert_eq!(native.response().await, (id * 2 + 1, 0, Reply::Value(Value::Int(i64::from(id)))));
    }
}

#[tokio::test]
async fn errors_name_their_kind_and_leave_the_connection_usable() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    assert_eq!(kind_of(&native.ask(9999, &[]).await), ErrorKind::UnknownCommand);
    assert_eq!(kind_of(&native.ask(opcode::GET, &[]).await), ErrorKind::InvalidArgument);
    assert_eq!(kind_of(&native.ask(opcode::GET, &[text("")]).await), ErrorKind::InvalidKey);
    assert_eq!(kind_of(&native.ask(opcode::MULTI, &[]).await), ErrorKind::Unavailable);
    assert_eq!(native.ask(opcode::LPUSH, &[text("l"), Value::Int(1)]).await, Reply::Integer(1));
    assert_eq!(kind_of(&native.ask(opcode::GET, &[text("l")]).await), ErrorKind::WrongType);
    for sum in 1..=2 {
        assert_eq!(native.ask(opcode::INCR, &[text("sum")]).await, Reply::Integer(sum));
    }
    assert_eq!(native.ask(opcode::INCRBY, &[text("sum"), Value::Int(40)]).await, Reply::Integer(42));
    assert_eq!(native.ask(opcode::PING, &[]).await, Reply::Status("PONG".into()));
    assert_eq!(native.ask(opcode::SELECT, &[text("cache")]).await, Reply::Ok);
    assert_eq!(native.ask(opcode::DBSIZE, &[]).await, Reply::Integer(0));
}

#[tokio::test]
async fn an_atomic_step_is_all_or_nothing() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    let op = |opcode: u16, args: &[Value]| {
        let count = i64::try_from(args.len()).unwrap();
        [&[Value::Int(i64::from(opcode)), Value::Int(count)], args].concat()
    };
    let good = [op(opcode::SET, &[text("a"), Value::Int(1)]), op(opcode::INCR, &[text("a")])].concat();
    let reply = native.ask(opcode::KV_ATOMIC, &good).await;
    assert_eq!(reply, Reply::Container(Shape::Array, vec![Reply::Ok, Reply::Integer(2)]));
    let bad =
        [op(opcode::SET, &[text("a"), Value::Int(9)]), op(opcode::LPUSH, &[text("a"), text("x")])].concat();
    assert_eq!(kind_of(&native.ask(opcode::KV_ATOMIC, &bad).await), ErrorKind::WrongType);
    assert_eq!(native.ask(opcode::KV_GET, &[text("a")]).await, Reply::Value(Value::Int(2)));
    for args in [vec![Value::Int(1)], op(opcode::PING, &[]), op(opcode::KEYS, &[text("*")]), op(9999, &[])] {
        assert!(matches!(native.ask(opcode::KV_ATOMIC, &args).await, Reply::Error(_)), "{args:?}");
    }
}

#[tokio::test]
async fn waits_answer_late_and_out_of_order_and_watches_push() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    let mut request = Vec::new();
    put(&mut request, 1, opcode::KV_WAIT, &[text("job"), text("PRESENT")]);
    put(&mut request, 2, opcode::KV_WATCH, &[text("PREFIX"), text("jo")]);
    put(&mut request, 3, opcode::SET, &[text("job"), Value::Bool(true)]);
    native.0.send(&request).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(native.response().await);
    }
    let of = |wanted: (u32, u8)| {
        let found = seen.iter().find(|(id, flags, _)| (*id, *flags) == wanted);
        &found.unwrap_or_else(|| panic!("no {wanted:?} in {seen:?}")).2
    };
    assert!(matches!(of((2, 0)), Reply::Integer(_)));
    assert_eq!(of((3, 0)), &Reply::Ok);
    let Reply::Container(Shape::Array, found) = of((1, 0)) else { panic!("{seen:?}") };
    assert_eq!(found[0], Reply::Value(Value::Bool(true)));
    let Reply::Container(Shape::Array, event) = of((2, PUSH)) else { panic!("{seen:?}") };
    assert_eq!(event[..2], [Reply::Status("set".into()), Reply::Value(text("job"))]);
}

#[tokio::test]
async fn a_wait_is_cancelled_by_its_id() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    let mut request = Vec::new();
    put(&mut request, 1, opcode::KV_WAIT, &[text("job"), text("PRESENT")]);
    put(&mut request, 2, opcode::KV_WAIT, &[text("job"), text("PRESENT")]);
    put(&mut request, 3, opcode::KV_CANCEL, &[Value::Int(1)]);
    put(&mut request, 4, opcode::KV_CANCEL, &[Value::Int(1)]);
    native.0.send(&request).await;
    let (id, _, reply) = native.response().await;
    assert_eq!((id, kind_of(&reply)), (1, ErrorKind::Timeout));
    assert_eq!(native.response().await, (3, 0, Reply::Boolean(true)));
    assert_eq!(native.response().await, (4, 0, Reply::Boolean(false)));
    assert_eq!(server.shared().engine.stats().waiting, 1);
    // Another connection's waits are its own.
    let mut other = Native::connect(&server).await;
    assert_eq!(other.ask(opcode::KV_CANCEL, &[Value::Int(2)]).await, Reply::Boolean(false));
    for wrong in [Value::Int(-1), text("x")] {
        assert!(matches!(other.ask(opcode::KV_CANCEL, &[wrong]).await, Reply::Error(_)));
    }
    request.clear();
    put(&mut request, 5, opcode::SET, &[text("job"), Value::Int(1)]);
    native.0.send(&request).await;
    let mut ids = [native.response().await.0, native.response().await.0];
    ids.sort_unstable();
    assert_eq!(ids, [2, 5]);
}

#[tokio::test]
async fn a_request_with_unknown_flags_ends_the_connection() {
    let server = start(&[], &[]).await;
    let mut native = Native::connect(&server).await;
    let mut request = Vec::new();
    let at = frame::start_request(RequestHead { id: 1, opcode: opcode::PING, flags: 2 }, &mut request);
    frame::finish(at, &mut request);
    native.0.send(&request).await;
    native.0.until_closed().await;
}

#[tokio::test]
async fn strangers_authenticate_over_native_too() {
    let server = start(&[], &[("KV_PASSWORD", "hush")]).await;
    let mut native = Native::connect(&server).await;
    assert_eq!(kind_of(&native.ask(opcode::GET, &[text("k")]).await), ErrorKind::Auth);
    assert_eq!(kind_of(&native.ask(opcode::AUTH, &[text("no")]).await), ErrorKind::WrongPassword);
    assert_eq!(native.ask(opcode::AUTH, &[text("hush")]).await, Reply::Ok);
    assert_eq!(native.ask(opcode::GET, &[text("k")]).await, Reply::Missing);
}
