//! What `docs/PROTOCOL.md` says of commands, values, reply items and errors is what the model crate says.

use data_bridge_kv_model::ErrorKind;
use data_bridge_kv_model::command::table::{COMMANDS, CONNECTION, WRITE};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/PROTOCOL.md");
const START: &str = "COMMANDS_UPDATE=1 rewrites it -->\n";
const END: &str = "<!-- end of commands -->";

fn table() -> String {
    let mut text = "| command | opcode | arguments | does |\n|---|---|---|---|\n".to_owned();
    for spec in COMMANDS {
        let arguments = match (spec.min_args, spec.max_args) {
            (fewest, most) if fewest == most => fewest.to_string(),
            (fewest, most) if most >= 100 => format!("{fewest}…"),
            (fewest, most) => format!("{fewest}-{most}"),
        };
        let kind = match (spec.has(WRITE), spec.has(CONNECTION)) {
            (true, _) => "writes: ",
            (_, true) => "",
            _ => "reads: ",
        };
        text +=
            &format!("| {} | 0x{:04X} | {arguments} | {kind}{} |\n", spec.name, spec.opcode, spec.summary);
    }
    text
}

#[test]
fn the_command_list_is_current() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (list, after) = rest.split_once(END).unwrap();
    if std::env::var_os("COMMANDS_UPDATE").is_some() {
        std::fs::write(PAGE, format!("{before}{START}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(list, table(), "run this test with COMMANDS_UPDATE=1 to rewrite the list");
    assert!(list.lines().count() > 100);
}

#[test]
fn each_command_of_our_own_has_its_grammar() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (_, rest) = page.split_once("and *→* tells what is answered:\n```text\n").unwrap();
    let (grammar, _) = rest.split_once("```").unwrap();
    let named: Vec<&str> = grammar.split([' ', ':', '\n']).collect();
    let ours: Vec<&str> =
        COMMANDS.iter().map(|spec| spec.name).filter(|name| name.starts_with("KV.")).collect();
    assert!(ours.len() > 20);
    for name in ours {
        assert!(named.contains(&name), "{name} is not in the grammar");
    }
}

#[test]
fn values_and_reply_items_have_the_layout_of_the_code() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    for file in ["codec.rs", "reply.rs"] {
        let path = format!("{}/../data-bridge-kv-model/src/{file}", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(path).unwrap();
        let (_, rest) = source.split_once("//! ```text\n").unwrap();
        let (block, _) = rest.split_once("//! ```\n").unwrap();
        let layout: String =
            block.lines().map(|line| format!("{}\n", line.strip_prefix("//! ").unwrap_or(""))).collect();
        assert!(
            layout.lines().count() >= 8 && page.contains(&layout),
            "{file} has another layout:\n{layout}"
        );
    }
}

#[test]
fn each_kind_of_error_is_listed_with_its_code() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let kinds: Vec<ErrorKind> = (0..=u8::MAX).filter_map(ErrorKind::from_code).collect();
    assert!(kinds.len() >= 23);
    for kind in kinds {
        let row = format!("| {} | {kind:?} | {} | ", kind.code(), kind.resp_prefix());
        assert!(page.contains(&row), "no row {row}");
    }
}
