//! Who may import whom inside the engine: the layers of `docs/ARCHITECTURE.md` as data. A family is a top-level module
//! with the folder of its name. A family imports families of lower layers, and of its own layer only leaves: those
//! that import nothing of that layer themselves.

use crate::rule::{Outcome, Rule, Sample, one_file};
use crate::tree::{File, Tree};

const ENGINE: &str = "crates/data-bridge-kv/src/";

/// The layers from the outside world up to the engine.
const LAYERS: &[(u8, &[&str])] = &[
    (1, &["clock", "disk", "footprint", "hash", "poison", "settings", "stats"]),
    (2, &["cold", "manifest", "record", "snapshot", "wal"]),
    (3, &["collections", "evict", "expire", "mutation", "table"]),
    (4, &["commit", "shard", "tiering"]),
    (5, &["engine", "pending", "recovery", "router"]),
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
            chain("use crate::shard::Shard;"),
        ],
        clean: vec![
            one_file(&format!("{ENGINE}shard/txn.rs"), "use crate::table::Table;\nuse super::exec::list;"),
            one_file(&format!("{ENGINE}lib.rs"), "pub use crate::engine::Engine;"),
            one_file(
                &format!("{ENGINE}disk.rs"),
                "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}",
            ),
            chain("use crate::table::Table;"),
        ],
    }]
}

/// `commit` imports `shard` (same layer): fine while `shard` is a leaf of that layer.
fn chain(import_of_shard: &str) -> Sample {
    vec![
        (format!("{ENGINE}tiering.rs"), "use crate::commit::Commit;".to_owned()),
        (format!("{ENGINE}commit.rs"), import_of_shard.to_owned()),
        (format!("{ENGINE}shard.rs"), String::new()),
    ]
}

fn check(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let imports: Vec<Import<'_>> = tree.rust_files().flat_map(|(file, _)| imports_of(file)).collect();
    let leaf = |family: &str| !imports.iter().any(|import| import.from == family && import.is_sideways());
    for (file, _) in tree.rust_files() {
        outcome.checked += usize::from(file.path.starts_with(ENGINE));
        let Some(family) = family_of(file) else { continue };
        if layer_of(family).is_none() {
            outcome.find(&file.path, 1, "in no layer: add its family to tests/tidy/layers.rs");
        }
    }
    for import in &imports {
        let (Some(own), to) = (layer_of(import.from), import.to.as_str()) else { continue };
        outcome.checked += 1;
        match layer_of(to) {
            None => outcome.find(
                import.path,
                import.line,
                format!("`crate::{to}` hides the layer: import its module"),
            ),
            Some(other) if other > own => {
                let what = format!("layer {own} (`{}`) imports layer {other} (`{to}`)", import.from);
                outcome.find(import.path, import.line, what);
            }
            Some(_) if import.is_sideways() && !leaf(to) => {
                let what =
                    format!("`{}` imports `{to}` of its own layer {own}, which is no leaf", import.from);
                outcome.find(import.path, import.line, what);
            }
            Some(_) => {}
        }
    }
    outcome
}

/// One path of an engine file that leads to another module of the crate.
struct Import<'a> {
    path: &'a str,
    line: usize,
    from: &'a str,
    to: String,
}

impl Import<'_> {
    /// To another family of the same layer.
    fn is_sideways(&self) -> bool {
        self.from != self.to && layer_of(self.from) == layer_of(&self.to)
    }
}

fn imports_of(file: &File) -> Vec<Import<'_>> {
    let (Some(from), Some(source)) = (family_of(file), file.rust.as_ref()) else { return Vec::new() };
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
    let found = source.paths_outside_tests().filter_map(|(line, path)| {
        let to = target(path)?;
        Some(Import { path: &file.path, line: *line, from, to })
    });
    found.collect()
}

/// Top-level module of an engine file; None for the crate's root, test files and other crates.
fn family_of(file: &File) -> Option<&str> {
    let inside = file.path.strip_prefix(ENGINE)?;
    let first = inside.split('/').next()?;
    let family = first.strip_suffix(".rs").unwrap_or(first);
    (family != "lib" && !file.is_test()).then_some(family)
}

fn layer_of(family: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, families)| families.contains(&family)).map(|(layer, _)| *layer)
}
