//! The command list of `docs/PROTOCOL.md` is the command table's.

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
