//! What must not be committed: paths of one machine, hosts of registries, dead links, tests that are silently left out.

use crate::rule::{Outcome, Rule, one_file};
use crate::tree::Tree;

/// Folders that exist on one machine only. Taken apart so that this file passes its own rule.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/Us", "ers/"),
];

/// Hosts of package registries and their mirrors.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("npmjs", ".org"),
    concat!("deb.debian", ".org"),
];

/// Marks that leave a Python test out.
const SKIP_MARKS: &[&str] = &["mark.skip", "mark.xfail", "unittest.skip", "pytest.skip(", "pytest.xfail("];

/// Every rule of this file.
pub fn rules() -> Vec<Rule> {
    let rule =
        |name: &str, check: fn(&Tree) -> Outcome, breaking: &[(&str, &str)], clean: &[(&str, &str)]| Rule {
            name: name.to_owned(),
            check: Box::new(check),
            breaking: breaking.iter().map(|(path, text)| one_file(path, text)).collect(),
            clean: clean.iter().map(|(path, text)| one_file(path, text)).collect(),
        };
    vec![
        rule(
            "no machine paths",
            |tree| banned_words(tree, MACHINE_PATHS, &[]),
            &[("README.md", concat!("cd /ro", "ot/x")), ("scripts/a", concat!("/ho", "me/me/x"))],
            &[("README.md", "cd target/")],
        ),
        rule(
            "no registry hosts",
            |tree| banned_words(tree, REGISTRY_HOSTS, &["Cargo.lock", "fuzz/Cargo.lock"]),
            &[("README.md", concat!("from https://pypi", ".org/x"))],
            &[("README.md", "from the Python package registry")],
        ),
        rule(
            "documents link to what is there",
            links,
            &[("docs/a.md", "see [b](b.md)"), ("README.md", "[x](docs/a.md#top) and [y](lost)")],
            &[
                (
                    "docs/a.md",
                    "[itself](a.md#part) [its folder](../docs) [web](https://example.org/x) [here](#part)",
                ),
                ("README.md", "`[x](y)` in code\n```\nf[a](b)\n```\n[itself](README.md)"),
            ],
        ),
        rule(
            "no test is left out without a reason",
            left_out,
            &[
                ("crates/a/src/b.rs", "#[test]\n#[ignore]\nfn f() {}"),
                ("crates/a/src/b.rs", "#[ignore = \"slow\"]\nfn f() {}"),
                (
                    "python/tests/test_a.py",
                    "@pytest.mark.skipif(sys.version_info < (3, 12))\ndef test(): ...",
                ),
                ("python/tests/test_a.py", "pytest.skip()"),
            ],
            &[
                ("crates/a/src/b.rs", "// #[ignore]\nfn f() {}"),
                (
                    "python/tests/test_a.py",
                    "@pytest.mark.skipif(\n    True,\n    reason=\"why\",\n)\npytest.skip(\"why\")",
                ),
            ],
        ),
    ]
}

fn banned_words(tree: &Tree, words: &[&str], exempt: &[&str]) -> Outcome {
    let mut outcome = Outcome::default();
    for file in tree.files.iter().filter(|file| !exempt.contains(&file.path.as_str())) {
        outcome.checked += 1;
        for (number, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                outcome.find(&file.path, number + 1, format!("`{word}`"));
            }
        }
    }
    outcome
}

/// Links of Markdown files to other files of the tree; code is not read.
fn links(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    let exists = |path: &str| {
        let inside =
            |file: &str| file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        tree.files.iter().any(|file| inside(&file.path))
    };
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let mut in_code = false;
        for (number, line) in file.text.lines().enumerate() {
            in_code ^= line.starts_with("```");
            let text: String = line.split('`').step_by(2).collect();
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '#']).next());
            for target in targets.filter(|target| !in_code && !target.is_empty() && !target.contains(':')) {
                outcome.checked += 1;
                if !exists(&resolved(&file.path, target)) {
                    outcome.find(&file.path, number + 1, format!("links to `{target}`, which is not there"));
                }
            }
        }
    }
    outcome
}

/// The path from the root that a relative link in a file means.
fn resolved(file: &str, link: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn left_out(tree: &Tree) -> Outcome {
    let mut outcome = Outcome::default();
    for (file, source) in tree.rust_files() {
        outcome.checked += 1;
        for (number, line) in source.code.lines().enumerate() {
            if line.replace(' ', "").contains("#[ignore") {
                outcome.find(&file.path, number + 1, "an ignored test: run it or remove it");
            }
        }
    }
    for file in tree.python_files() {
        outcome.checked += 1;
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(mark) = SKIP_MARKS.iter().find(|mark| line.contains(**mark)) else { continue };
            let statement = lines[at..lines.len().min(at + 6)].join(" ");
            let called = statement.split_once(mark).map_or("", |(_, rest)| rest.trim_start());
            let says =
                called.contains("reason=") || mark.ends_with('(') && called.starts_with(['"', '\'', 'f']);
            if !says {
                outcome.find(&file.path, at + 1, format!("`{mark}` without a reason"));
            }
        }
    }
    outcome
}
