//! The fuzz bodies of this crate over random and mutated bytes, on stable Rust.

use data_bridge_kv_model::Value;
use data_bridge_kv_model::command::table::COMMANDS;
use data_bridge_kv_model::frame::{self, PREFACE, RequestHead};
use data_bridge_kv_server::fuzz;
use data_bridge_kv_testkit::fuzz::Inputs;

/// Inputs of each body: a few seconds without optimisation.
const INPUTS: usize = 200_000;

/// Requests of every command with arguments that some take, in arrays, inline, and with typed elements.
fn requests() -> Vec<Vec<u8>> {
    let args = ["k", "1", "2", "f"];
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for spec in COMMANDS {
        let count = spec.min_args.min(args.len());
        let mut array = format!("*{}\r\n${}\r\n{}\r\n", count + 1, spec.name.len(), spec.name);
        args[..count].iter().for_each(|arg| array += &format!("${}\r\n{arg}\r\n", arg.len()));
        corpus.push(array.into_bytes());
        corpus.push(format!("{} {}\r\n", spec.name, args[..count].join(" ")).into_bytes());
    }
    corpus.push(
        b"*3\r\n$6\r\nKV.SET\r\n$1\r\nt\r\n*4\r\n:1\r\n,1.5\r\n%1\r\n#t\r\n_\r\n=7\r\ndec:1.1\r\n".to_vec(),
    );
    corpus.push(b"HELLO 3\r\nKV.TYPED ON\r\nKV.SET d 1.10 AS decimal\r\nKV.GET d\r\n".to_vec());
    corpus.push(b"MULTI\r\nSET a \"b c\"\r\nINCR a\r\nEXEC\r\n".to_vec());
    corpus
}

/// The same over the native protocol, the preface in front.
fn frames() -> Vec<Vec<u8>> {
    let frame = |opcode: u16, count: usize| {
        let mut out = PREFACE.to_vec();
        let at = frame::start_request(RequestHead { id: 1, opcode, flags: 0 }, &mut out);
        let args =
            [Value::Text("k".into()), Value::Int(1), Value::Text("v".into()), Value::List(vec![Value::Null])];
        args[..count.min(args.len())].iter().for_each(|arg| out.extend_from_slice(&arg.encode()));
        frame::finish(at, &mut out);
        out
    };
    COMMANDS.iter().map(|spec| frame(spec.opcode, spec.min_args)).collect()
}

#[test]
fn any_requests_are_read_or_refused() {
    let accepted = Inputs::new(1, requests()).run(INPUTS, fuzz::resp);
    assert!(accepted > INPUTS / 10, "only {accepted} of {INPUTS} inputs held a request");
}

#[test]
fn any_dialogue_goes_on_or_ends() {
    let corpus = [requests(), frames()].concat();
    let answered = Inputs::new(2, corpus).run(INPUTS, fuzz::dialogue);
    assert!(answered > INPUTS / 10, "only {answered} of {INPUTS} inputs were answered");
}
