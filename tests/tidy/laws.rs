//! What only one place may do, as a table: which words are banned in which part of the tree, and the files that are
//! their home. Two laws need more than words: the list of command names and the map of error kinds.

use std::collections::BTreeSet;

use crate::rule::{Outcome, Rule, Sample, one_file};
use crate::rust_source::{Call as Method, RustSource};
use crate::tree::{File, Tree};

const MODEL: &str = "crates/data-bridge-kv-model/src/";
const ENGINE: &str = "crates/data-bridge-kv/src/";
const BINDINGS: &str = "crates/data-bridge/src/";
const COMMANDS: &str = "crates/data-bridge-kv-model/src/command/table.rs";

/// A thing to look for in code (never in comments, strings or tests).
enum Word {
    /// A path that starts with these parts: `std::fs`.
    Path(&'static str),
    /// Any part of a path: `SystemTime`.
    Part(&'static str),
    /// A method or path call: `.detach(`.
    Call(&'static str),
    /// A method call on a variable or field of this name: `table.put(`.
    On(&'static str, &'static str),
}

use Word::{Call, On, Part, Path};

impl Word {
    /// Line and words of each place outside tests where it occurs.
    fn places(&self, source: &RustSource) -> Vec<(usize, String)> {
        let paths = |is_it: &dyn Fn(&str) -> bool| {
            source.paths_outside_tests().filter(|(_, path)| is_it(path)).cloned().collect::<Vec<_>>()
        };
        let calls = |receiver: Option<&str>, name: &str| {
            let is_it =
                |call: &&Method| call.name == name && receiver.is_none_or(|word| word == call.receiver);
            let found = source.calls_outside_tests().filter(is_it);
            found.map(|call| (call.line, format!("call of `{name}`"))).collect::<Vec<_>>()
        };
        match self {
            Path(start) => paths(&|path| {
                path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            }),
            Part(word) => paths(&|path| path.split("::").any(|part| part == *word)),
            Call(name) => calls(None, name),
            On(receiver, name) => calls(Some(receiver), name),
        }
    }
}

/// A law of words.
struct Law {
    says: &'static str,
    /// Folder the law holds in.
    scope: &'static str,
    banned: &'static [Word],
    /// Files (or folders, ending in `/`) below the scope that may do it.
    homes: &'static [&'static str],
    /// Code that breaks the law anywhere but at home.
    breaking: &'static [&'static str],
}

const LAWS: &[Law] = &[
    Law {
        says: "the model does no input or output and starts no threads",
        scope: MODEL,
        banned: &[
            Path("std::fs"),
            Path("std::net"),
            Path("std::thread"),
            Path("std::process"),
            Path("tokio"),
        ],
        homes: &[],
        breaking: &["use std::{fmt, fs};", "fn f() { std::thread::spawn(g); }", "use tokio::sync::Mutex;"],
    },
    Law {
        says: "the model reads no clock",
        scope: MODEL,
        banned: &[Part("SystemTime"), Part("Instant")],
        homes: &[],
        breaking: &["use std::time::SystemTime;"],
    },
    Law {
        says: "the engine knows no runtime, no Python and no network",
        scope: ENGINE,
        banned: &[Path("tokio"), Path("pyo3"), Path("std::net")],
        homes: &[],
        breaking: &["use pyo3::prelude::*;", "use std::{io, net::TcpStream};"],
    },
    Law {
        says: "only disk touches std::fs in the engine",
        scope: ENGINE,
        banned: &[Path("std::fs"), Path("std::os")],
        homes: &["disk.rs", "disk/"],
        breaking: &["use std::fs::File;", "fn f() { std::fs::read(p); }"],
    },
    Law {
        says: "only clock.rs reads time in the engine",
        scope: ENGINE,
        banned: &[Part("SystemTime"), Part("Instant")],
        homes: &["clock.rs"],
        breaking: &["use std::time::{Duration, Instant};", "fn f() { SystemTime::now(); }"],
    },
    Law {
        says: "only shard/txn.rs and the mutation it applies change an entry",
        scope: ENGINE,
        banned: &[
            Part("EntryMut"),
            Part("NewEntry"),
            Call("set_sequence"),
            Call("set_heat"),
            Call("collection_mut"),
            On("table", "clear"),
            On("table", "find_mut"),
            On("table", "put"),
            On("table", "remove"),
            On("table", "replace"),
            On("table", "restore"),
        ],
        homes: &["table.rs", "table/", "mutation.rs", "shard/txn.rs", "shard/txn/"],
        breaking: &[
            "use crate::table::{NewEntry, Table};",
            "fn f() { shard.table.put(hash, key, value); }",
            "fn f() { entry.set_heat(3); }",
        ],
    },
    Law {
        says: "only shard/direct.rs applies a mutation, for the transaction and for a plain write",
        scope: ENGINE,
        banned: &[Path("mutation::apply"), Path("crate::mutation::apply")],
        homes: &["shard/direct.rs"],
        breaking: &["use crate::mutation::{Mutation, apply};", "fn f() { mutation::apply(table, hash); }"],
    },
    Law {
        says: "only doorway.rs releases the GIL",
        scope: BINDINGS,
        banned: &[Call("detach"), Call("allow_threads"), Call("attach"), Call("with_gil")],
        homes: &["kv/doorway.rs"],
        breaking: &["fn f() { py.detach(|| g()); }", "fn f() { Python::attach(|py| g(py)); }"],
    },
    Law {
        says: "only convert and fastcall touch the insides of Python objects",
        scope: BINDINGS,
        banned: &[Path("pyo3::ffi"), Path("ffi")],
        homes: &["kv/convert.rs", "kv/convert/", "kv/fastcall.rs"],
        breaking: &[
            "use pyo3::ffi;",
            "use pyo3::{ffi, prelude::*};",
            "fn f() { unsafe { ffi::PyLong_AsLong(x) }; }",
        ],
    },
];

/// Every law of this file.
pub fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = LAWS.iter().map(rule_of).collect();
    rules.push(Rule {
        name: "only command/table.rs lists command names".to_owned(),
        check: Box::new(command_names),
        breaking: vec![
            commands_and("crates/data-bridge-kv-server/src/resp.rs", "const NAMES: &[&str] = &[\"ZADD\"];"),
            commands_and("python/data_bridge/kv/client.py", "call(b'ZADD')"),
        ],
        clean: vec![
            commands_and(
                "crates/data-bridge-kv-server/src/resp.rs",
                "// \"ZADD\"\nconst X: &str = \"zadded\";",
            ),
            commands_and("crates/data-bridge-kv-model/src/command/zset.rs", "if args.word(\"ZADD\") { f() }"),
            commands_and("crates/data-bridge-kv-server/tests/resp.rs", "const NAMES: &[&str] = &[\"ZADD\"];"),
        ],
    });
    rules.push(Rule {
        name: "only error.rs maps error kinds".to_owned(),
        check: Box::new(error_maps),
        breaking: vec![one_file(
            "crates/data-bridge-kv-server/src/resp.rs",
            "fn f() { match k { ErrorKind::WrongType => 1, ErrorKind::InvalidKey | ErrorKind::Closed => 2, _ => 3 } }",
        )],
        clean: vec![
            one_file("crates/data-bridge-kv-model/src/error.rs", "match k { ErrorKind::A => 1, ErrorKind::B => 2, }"),
            one_file("crates/x/src/y.rs", "match k { ErrorKind::A => 1, _ => 2 }; f(ErrorKind::B, ErrorKind::C)"),
        ],
    });
    rules.push(Rule {
        name: "crates keep what they may link".to_owned(),
        check: Box::new(manifests),
        breaking: vec![
            one_file("crates/data-bridge-kv/Cargo.toml", "[dependencies]\ntokio.workspace = true\n"),
            one_file("crates/data-bridge-kv-model/Cargo.toml", "[dependencies]\nserde = \"1\"\n"),
        ],
        clean: vec![one_file(
            "crates/data-bridge-kv/Cargo.toml",
            "[dependencies]\nparking_lot = \"1\"\n[dev-dependencies]\ntokio.workspace = true\n",
        )],
    });
    rules
}

fn rule_of(law: &'static Law) -> Rule {
    let at = |file: &str, code: &str| one_file(&format!("{}{file}", law.scope), code);
    let home = |home: &str| if home.ends_with('/') { format!("{home}inner.rs") } else { home.to_owned() };
    let mut clean: Vec<Sample> = Vec::new();
    for code in law.breaking {
        clean.extend(law.homes.iter().map(|place| at(&home(place), code)));
        clean.push(at("stranger.rs", &format!("//! {code}\n#[cfg(test)]\nmod tests {{\n    {code}\n}}\n")));
    }
    Rule {
        name: law.says.to_owned(),
        check: Box::new(|tree| words(law, tree)),
        breaking: law.breaking.iter().map(|code| at("stranger.rs", code)).collect(),
        clean,
    }
}

fn words(law: &Law, tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for (file, source) in tree.rust_files() {
        let Some(inside) = file.path.strip_prefix(law.scope).filter(|_| !file.is_test()) else { continue };
        outcome.checked += 1;
        if law.homes.iter().any(|home| inside == *home || home.ends_with('/') && inside.starts_with(home)) {
            continue;
        }
        for (line, what) in law.banned.iter().flat_map(|word| word.places(source)) {
            outcome.find(&file.path, line, what);
        }
    }
    outcome
}

/// Words that are a command's name and also an option that parsers and clients have to name: `SET k v GET`.
const ALSO_OPTIONS: &[&str] = &["GET"];

fn command_names(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let table = tree.rust_files().find(|(file, _)| file.path == COMMANDS);
    let is_name = |text: &str| {
        text.len() > 2 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'.' || b.is_ascii_digit())
    };
    let names: BTreeSet<&str> = table
        .iter()
        .flat_map(|(_, source)| source.literals_outside_tests())
        .map(|literal| literal.text.as_str())
        .filter(|text| is_name(text) && !ALSO_OPTIONS.contains(text))
        .collect();
    outcome.checked = names.len();
    for (file, source) in tree.rust_files() {
        if file.path == COMMANDS || file.is_test() {
            continue;
        }
        for literal in source.literals_outside_tests().filter(|literal| !literal.is_option) {
            if names.contains(literal.text.as_str()) {
                outcome.find(&file.path, literal.line, format!("command name \"{}\"", literal.text));
            }
        }
    }
    for file in tree.python_files().filter(|file| file.path.starts_with("python/data_bridge/")) {
        for (number, line) in file.text.lines().enumerate() {
            let quoted = line.split(['"', '\'']).skip(1).step_by(2);
            for text in quoted.filter(|text| names.contains(text)) {
                outcome.find(&file.path, number + 1, format!("command name \"{text}\""));
            }
        }
    }
    outcome
}

fn commands_and(path: &str, text: &str) -> Sample {
    vec![(COMMANDS.to_owned(), "row(\"ZADD\", 3)".to_owned()), (path.to_owned(), text.to_owned())]
}

/// More arms on `ErrorKind` than this in one file are a map.
const ARMS_LIMIT: usize = 2;

fn error_maps(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let is_source = |file: &File| file.path.contains("/src/") && !file.is_test();
    for (file, source) in tree.rust_files().filter(|(file, _)| is_source(file)) {
        outcome.checked += 1;
        let lines = source.code.lines().take(source.tests_from - 1);
        let code: String = lines.flat_map(|line| [line, "\n"]).collect();
        let arms = code.match_indices("ErrorKind::").filter(|(at, _)| {
            let rest = code[at + "ErrorKind::".len()..]
                .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            let rest = rest.trim_start();
            rest.starts_with("=>") || rest.starts_with('|') && !rest.starts_with("||")
        });
        let arms: Vec<usize> = arms.map(|(at, _)| at).collect();
        if arms.len() > ARMS_LIMIT && !file.path.ends_with("/error.rs") {
            let line = code[..arms[0]].lines().count();
            outcome.find(
                &file.path,
                line,
                format!("{} arms on ErrorKind: the map belongs to error.rs", arms.len()),
            );
        }
    }
    outcome
}

/// Crates and what their artifacts must never link.
const NOT_LINKED: &[(&str, &[&str])] = &[
    ("data-bridge-kv-model", &["tokio", "pyo3", "serde", "bincode", "parking_lot", "mio"]),
    ("data-bridge-kv", &["tokio", "pyo3", "serde", "bincode", "mio", "async-trait"]),
    ("data-bridge-kv-client", &["pyo3", "serde", "data-bridge-kv"]),
    ("data-bridge-kv-server", &["pyo3"]),
];

fn manifests(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for (name, banned) in NOT_LINKED {
        let path = format!("crates/{name}/Cargo.toml");
        let Some(text) = tree.text_of(&path) else { continue };
        outcome.checked += 1;
        let mut linked = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                linked = line == "[dependencies]" || line.ends_with(".dependencies]");
            }
            let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if linked && banned.contains(&dependency) {
                outcome.find(&path, number + 1, format!("{name} must not link {dependency}"));
            }
        }
    }
    outcome
}
