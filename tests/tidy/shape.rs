//! How files look: their names, their length, the length of their functions, and that each says what lives in it.

use crate::rule::{Outcome, Rule, one_file};
use crate::tree::{File, Tree};

/// Longest file, in lines, its trailing tests apart.
const FILE_LIMIT: usize = 600;
/// Longest function, in lines, from its signature to its closing brace.
const FUNCTION_LIMIT: usize = 70;
/// A line right above a function that waives the limit and says why.
const LONG_FUNCTION: &str = "// long: ";
/// The same for a file, anywhere in its first 40 lines.
const LONG_FILE: &str = "// long file: ";
/// Parts of file names that say nothing about what is inside.
const EMPTY_WORDS: &[&str] = &[
    "common", "glue", "helper", "helpers", "misc", "more", "new", "old", "p2", "stuff", "util", "utils", "v2",
];

/// Every rule of this file.
pub fn rules() -> Vec<Rule> {
    let rule = |name: &str,
                check: fn(&Tree) -> Outcome,
                breaking: Vec<(&str, String)>,
                clean: Vec<(&str, String)>| Rule {
        name: name.to_owned(),
        check: Box::new(check),
        breaking: breaking.iter().map(|(path, text)| one_file(path, text)).collect(),
        clean: clean.iter().map(|(path, text)| one_file(path, text)).collect(),
    };
    let lines = |count: usize| "x\n".repeat(count);
    let function = |count: usize| format!("fn f() {{\n{}}}\n", "x;\n".repeat(count));
    let python = |count: usize| format!("def f():\n{}", "    x\n".repeat(count));
    vec![
        rule(
            "files are named by nouns",
            names,
            vec![("crates/a/src/ops_p2.rs", String::new()), ("python/utils/x.py", String::new())],
            vec![("crates/a/src/newer.rs", String::new())],
        ),
        rule(
            "files stay under 600 lines",
            file_lengths,
            vec![("a/src/b.rs", lines(601)), ("a/b.py", lines(601))],
            vec![
                ("a/src/b.rs", format!("// long file: generated\n{}", lines(601))),
                ("a/src/b.rs", format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(590), lines(600))),
                (
                    "a/src/b.rs",
                    format!("{}#[cfg(test)]\n#[allow(x)]\nmod t {{\n{}}}\n", lines(590), lines(600)),
                ),
            ],
        ),
        rule(
            "functions stay under 70 lines",
            function_lengths,
            vec![("a/src/b.rs", function(70)), ("a/b.py", python(70))],
            vec![
                ("a/src/b.rs", format!("// long: one arm a kind\n#[inline]\npub {}", function(70))),
                ("a/b.py", format!("# long: a table\n{}", python(70))),
                ("a/src/b.rs", function(60).repeat(2)),
            ],
        ),
        rule(
            "every file says what lives in it",
            headers,
            vec![
                ("a/src/b.rs", "use x;\n//! late".to_owned()),
                ("python/data_bridge/kv/b.py", "import x".to_owned()),
                ("bench/b.py", "# no docstring".to_owned()),
            ],
            vec![
                ("a/src/b.rs", "//! What lives here.\n".to_owned()),
                (
                    "python/data_bridge/kv/b.py",
                    "#!/usr/bin/env python3\n\"\"\"What lives here.\"\"\"".to_owned(),
                ),
            ],
        ),
    ]
}

fn names(tree: &Tree) -> Outcome {
    let mut outcome = Outcome { checked: tree.files.len(), ..Outcome::default() };
    for file in &tree.files {
        for part in file.path.split(['/', '.', '_', '-']) {
            if EMPTY_WORDS.contains(&part) {
                outcome.find(&file.path, 1, format!("`{part}` names nothing: use a noun of the glossary"));
            }
        }
    }
    outcome
}

fn is_code(file: &File) -> bool {
    file.rust.is_some() || file.path.ends_with(".py") || file.path.ends_with(".pyi")
}

fn file_lengths(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for file in tree.files.iter().filter(|file| is_code(file)) {
        outcome.checked += 1;
        let length =
            file.rust.as_ref().map_or_else(|| file.text.lines().count(), |source| source.tests_from - 1);
        let waived = file
            .text
            .lines()
            .take(40)
            .any(|line| line.starts_with(LONG_FILE) || line.starts_with("# long file: "));
        if length > FILE_LIMIT && !waived {
            outcome.find(&file.path, FILE_LIMIT, format!("{length} lines: split it by responsibility"));
        }
    }
    outcome
}

fn function_lengths(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for file in tree.files.iter().filter(|file| is_code(file)) {
        let functions =
            file.rust.as_ref().map_or_else(|| python_functions(&file.text), |source| source.functions());
        let lines: Vec<&str> = file.text.lines().collect();
        outcome.checked += functions.len();
        for (first, last, name) in functions {
            let length = last + 1 - first;
            if length <= FUNCTION_LIMIT {
                continue;
            }
            if is_waived(&lines[..first - 1]) {
                outcome.waived += 1;
            } else {
                outcome.find(
                    &file.path,
                    first,
                    format!("`{name}` has {length} lines: split it, or `{LONG_FUNCTION}why`"),
                );
            }
        }
    }
    outcome
}

/// Whether the attributes and comments right above a function hold the waiver.
fn is_waived(above: &[&str]) -> bool {
    let attached = above
        .iter()
        .rev()
        .map(|line| line.trim())
        .take_while(|line| ["//", "#[", "#", "@", ")]"].iter().any(|start| line.starts_with(start)));
    attached.into_iter().any(|line| line.starts_with(LONG_FUNCTION) || line.starts_with("# long: "))
}

/// First and last line and name of each function, by indentation.
fn python_functions(text: &str) -> Vec<(usize, usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(name) = code.strip_prefix("def ").or_else(|| code.strip_prefix("async def ")) else {
            continue;
        };
        let mut last = at;
        for (below, inner) in lines.iter().enumerate().skip(at + 1) {
            let closes_signature = inner.trim_start().starts_with(')');
            if !inner.trim().is_empty() && indent(inner) <= indent(line) && !closes_signature {
                break;
            }
            if !inner.trim().is_empty() {
                last = below;
            }
        }
        let name = name.split('(').next().unwrap_or(name);
        found.push((at + 1, last + 1, name.to_owned()));
    }
    found
}

fn headers(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for file in &tree.files {
        let first = |skips: &[&str]| {
            file.text
                .lines()
                .find(|line| !line.trim().is_empty() && !skips.iter().any(|skip| line.starts_with(skip)))
        };
        let (says, wants) = if file.rust.is_some() {
            (first(&["#!["]).is_some_and(|line| line.starts_with("//!")), "a `//!` line")
        } else if file.path.ends_with(".py") {
            let opens = |line: &str| line.starts_with("\"\"\"") || line.starts_with("r\"\"\"");
            (first(&["#"]).is_some_and(opens), "a docstring")
        } else {
            continue;
        };
        outcome.checked += 1;
        if !says {
            outcome.find(&file.path, 1, format!("starts without {wants} that says what lives here"));
        }
    }
    outcome
}
