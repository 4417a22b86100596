//! Dead files: a Rust file no `mod` reaches, a Python file nothing imports or starts, a script nobody calls.

use std::collections::BTreeSet;

use crate::rule::{Outcome, Rule, Sample, one_file};
use crate::tree::{File, Tree};

/// Every rule of this file.
pub fn rules() -> Vec<Rule> {
    let files = |list: &[(&str, &str)]| -> Sample {
        list.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    vec![
        Rule {
            name: "every Rust file is reached by a mod".to_owned(),
            check: Box::new(rust_files),
            breaking: vec![
                files(&[("crates/a/src/lib.rs", "mod b;"), ("crates/a/src/c.rs", "")]),
                files(&[
                    ("crates/a/src/lib.rs", "mod b;"),
                    ("crates/a/src/b.rs", ""),
                    ("crates/a/src/b/d.rs", ""),
                ]),
                files(&[("crates/a/src/lib.rs", "// mod b;"), ("crates/a/src/b.rs", "")]),
            ],
            clean: vec![
                files(&[
                    ("crates/a/src/lib.rs", "pub mod b;"),
                    ("crates/a/src/b.rs", "mod d;"),
                    ("crates/a/src/b/d.rs", ""),
                ]),
                files(&[("tests/tidy.rs", "#[path = \"tidy/x.rs\"]\nmod x;"), ("tests/tidy/x.rs", "")]),
            ],
        },
        Rule {
            name: "every Python file is imported or started".to_owned(),
            check: Box::new(python_files),
            breaking: vec![one_file("python/data_bridge/kv/lost.py", "")],
            clean: vec![files(&[
                ("python/data_bridge/kv/__init__.py", "from .client import (\n    Client,\n)"),
                ("python/data_bridge/kv/client.py", ""),
                ("crates/data-bridge/src/kv/errors.rs", "fn f() { py.import(\"data_bridge.kv.errors\") }"),
                ("python/data_bridge/kv/errors.py", ""),
            ])],
        },
        Rule {
            name: "every script is called".to_owned(),
            check: Box::new(scripts),
            breaking: vec![one_file("scripts/lost", "")],
            clean: vec![files(&[("Makefile", "test:\n\tscripts/found"), ("scripts/found", "")])],
        },
    ]
}

fn rust_files(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut waiting: Vec<&File> =
        tree.rust_files().map(|(file, _)| file).filter(|file| is_root(file)).collect();
    while let Some(file) = waiting.pop() {
        if !reached.insert(file.path.clone()) {
            continue;
        }
        let targets = modules_of(file);
        waiting.extend(tree.files.iter().filter(|other| targets.contains(&other.path)));
    }
    for (file, _) in tree.rust_files() {
        outcome.checked += 1;
        if !reached.contains(&file.path) {
            outcome.find(&file.path, 1, "no `mod` leads here");
        }
    }
    outcome
}

/// Whether cargo finds the file by itself: crate roots, and the direct files of tests, benches, examples and bin.
fn is_root(file: &File) -> bool {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let last = folder.rsplit('/').next().unwrap_or(folder);
    let in_crate = name == "lib.rs" && last == "src";
    in_crate
        || ["main.rs", "build.rs"].contains(&name)
        || ["tests", "benches", "examples", "bin", "fuzz_targets"].contains(&last)
}

/// Paths at which the modules declared in a file may stand.
fn modules_of(file: &File) -> BTreeSet<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let code = file.rust.as_ref().map_or("", |source| source.code.as_str());
    let owns_folder = is_root(file) || name == "mod.rs";
    let base = if owns_folder { folder.to_owned() } else { format!("{folder}/{}", file.stem()) };
    let mut targets = BTreeSet::new();
    for (number, line) in code.lines().enumerate() {
        let Some(module) = declared_module(line) else { continue };
        let above = number.checked_sub(1).and_then(|above| file.text.lines().nth(above)).unwrap_or_default();
        if let Some(path) = above.trim().strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"))
        {
            targets.insert(format!("{folder}/{path}"));
        } else {
            targets.insert(format!("{base}/{module}.rs"));
            targets.insert(format!("{base}/{module}/mod.rs"));
        }
    }
    targets
}

/// The name in a line that declares a module with a file of its own.
fn declared_module(line: &str) -> Option<&str> {
    let words = line.trim().strip_suffix(';')?;
    let at = words.find("mod ")?;
    let (visibility, name) = (words[..at].trim(), words[at + 4..].trim());
    let declares = visibility.is_empty() || visibility.ends_with(']') || visibility.starts_with("pub");
    (declares && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}

fn python_files(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let starters: Vec<&File> = tree.files.iter().filter(|file| is_starter(file)).collect();
    for file in tree.python_files() {
        outcome.checked += 1;
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let found_by_name = name.starts_with("__") || name.starts_with("test_") || name == "conftest.py";
        let loaded_by_name = folder == "bench/parts";
        let started = starters.iter().any(|starter| starter.text.contains(&file.path));
        let module = file.path.trim_start_matches("python/").trim_end_matches(".py").replace('/', ".");
        let from_rust = || {
            let mut literals = tree.rust_files().flat_map(|(_, source)| &source.literals);
            literals.any(|literal| literal.text == module)
        };
        let imported = || {
            let others = tree.python_files().filter(|other| other.path != file.path);
            others.into_iter().any(|other| imports(&other.text, file.stem()))
        };
        if !(found_by_name || loaded_by_name || started || imported() || from_rust()) {
            outcome.find(&file.path, 1, "nothing imports or starts it");
        }
    }
    outcome
}

/// Whether a file may start programs: the Makefile, CI, scripts and the package's manifest.
fn is_starter(file: &File) -> bool {
    ["Makefile", ".ci/run", "pyproject.toml"].contains(&file.path.as_str())
        || file.path.starts_with("scripts/")
}

/// Whether a Python text has an import statement that names this module.
fn imports(text: &str, module: &str) -> bool {
    let mut open = false;
    text.lines().any(|line| {
        let code = line.trim();
        let statement = open || code.starts_with("import ") || code.starts_with("from ");
        open = statement && (open || code.contains('(')) && !code.contains(')');
        statement && code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == module)
    })
}

fn scripts(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let is_script =
        |file: &&File| file.path.starts_with("scripts/") && !file.path.starts_with("scripts/tests/");
    for script in tree.files.iter().filter(is_script) {
        outcome.checked += 1;
        let name = script.path.rsplit('/').next().unwrap_or(&script.path);
        let others = tree.files.iter().filter(|file| file.path != script.path);
        let mut callers = others.filter(|file| is_starter(file) || file.path == "CONTRIBUTING.md");
        if !callers
            .any(|caller| caller.text.contains(&script.path) || caller.text.contains(&format!("/{name}")))
        {
            outcome.find(&script.path, 1, "nothing calls it");
        }
    }
    outcome
}
