//! Who may import whom inside the engine: the layers of `docs/ARCHITECTURE.md` as data. A family is a top-level module
//! with the folder of its name. A family imports families of lower layers and, of its own layer, those that stand to
//! its left in the table: so there is no cycle, and the table can be read as the order to learn the engine in.

use crate::rule::{Outcome, Rule, one_file};
use crate::tree::{File, Tree};

const ENGINE: &str = "crates/data-bridge-kv/src/";

/// The layers from the outside world up to the engine.
const LAYERS: &[(u8, &[&str])] = &[
    (1, &["poison", "sync", "clock", "disk", "footprint", "random", "hash", "budget", "opening", "settings"]),
    (2, &["record", "wal", "cold", "manifest", "snapshot"]),
    (3, &["collections", "table", "expire", "evict", "mutation"]),
    (4, &["shard", "commit", "tiering"]),
    (5, &["pending", "router", "recovery", "engine"]),
];

/// The one rule of this file.
pub fn rules() -> Vec<Rule> {
    vec![Rule {
        name: "engine layers".to_owned(),
        check: Box::new(check),
        breaking: vec![
            one_file(&format!("{ENGINE}table.rs"), "use crate::shard::Shard;"),
            one_file(&format!("{ENGINE}disk.rs"), "fn f() { crate::engine::open() }"),
            one_file(&format!("{ENGINE}shard/exec/list.rs"), "use super::super::super::router::{Route, of};"),
            one_file(&format!("{ENGINE}unknown.rs"), ""),
            one_file(&format!("{ENGINE}table.rs"), "use crate::Entry;"),
            one_file(&format!("{ENGINE}collections.rs"), "use crate::table::Table;"),
        ],
        clean: vec![
            one_file(&format!("{ENGINE}shard/txn.rs"), "use crate::table::Table;\nuse super::exec::list;"),
            one_file(&format!("{ENGINE}lib.rs"), "pub use crate::engine::Engine;"),
            one_file(
                &format!("{ENGINE}disk.rs"),
                "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}",
            ),
            one_file(&format!("{ENGINE}table.rs"), "use crate::collections::List;"),
        ],
    }]
}

fn check(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for (file, _) in tree.rust_files() {
        outcome.checked += usize::from(file.path.starts_with(ENGINE));
        let Some(family) = family_of(file) else { continue };
        let Some(own) = rank_of(family) else {
            outcome.find(&file.path, 1, "in no layer: add its family to tests/tidy/layers.rs");
            continue;
        };
        for (line, to) in imports_of(file) {
            outcome.checked += 1;
            match rank_of(&to) {
                None => outcome.find(
                    &file.path,
                    line,
                    format!("`crate::{to}` hides the layer: import its module"),
                ),
                Some(other) if other > own => {
                    outcome.find(
                        &file.path,
                        line,
                        format!("`{family}` imports `{to}`, which stands above it"),
                    );
                }
                Some(_) => {}
            }
        }
    }
    outcome
}

/// Line and family of each path of an engine file that leads to a module of the crate, tests apart.
fn imports_of(file: &File) -> Vec<(usize, String)> {
    let Some(source) = &file.rust else { return Vec::new() };
    let depth = file.path[ENGINE.len()..].split('/').count();
    let target = |path: &str| {
        let mut parts = path.split("::").peekable();
        if parts.next_if_eq(&"crate").is_none() {
            let mut supers = 0;
            while parts.next_if_eq(&"super").is_some() {
                supers += 1;
            }
            if supers < depth {
                return None;
            }
        }
        parts.next().map(str::to_owned)
    };
    source.paths_outside_tests().filter_map(|(line, path)| Some((*line, target(path)?))).collect()
}

/// Top-level module of an engine file; None for the crate's root, test files and other crates.
fn family_of(file: &File) -> Option<&str> {
    let inside = file.path.strip_prefix(ENGINE)?;
    let first = inside.split('/').next()?;
    let family = first.strip_suffix(".rs").unwrap_or(first);
    (family != "lib" && !file.is_test()).then_some(family)
}

/// Layer of a family and its place in it.
fn rank_of(family: &str) -> Option<(u8, usize)> {
    LAYERS.iter().find_map(|(layer, families)| {
        let place = families.iter().position(|known| *known == family)?;
        Some((*layer, place))
    })
}
