//! The files a check looks at: the workspace on disk, or a sample. Reading happens here and nowhere else in `tidy`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::rule::Sample;
use crate::rust_source::RustSource;

/// Folders (and git's link file in a worktree) that hold nothing written by hand.
const SKIPPED: &[&str] = &[
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "artifacts",
    "bench-results",
    "corpus",
    "node_modules",
    "target",
];

/// Longest file that is read as text, in bytes. What is longer is data.
const TEXT_LIMIT: u64 = 2 << 20;

/// All text files of a workspace, sorted by path.
pub struct Tree {
    /// The files, each once.
    pub files: Vec<File>,
}

/// One text file.
pub struct File {
    /// Path from the workspace root, with `/`.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// The text taken apart, where it is Rust.
    pub rust: Option<RustSource>,
}

impl Tree {
    /// The workspace this package belongs to.
    pub fn of_workspace() -> Self {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a folder of the workspace");
        let mut paths = Vec::new();
        collect(root, &mut paths);
        paths.sort();
        let files = paths.iter().filter_map(|path| {
            let text = String::from_utf8(fs::read(path).ok()?).ok()?;
            Some(File::new(path.strip_prefix(root).ok()?.to_str()?, text))
        });
        Self { files: files.collect() }
    }

    /// A made-up tree.
    pub fn of_sample(sample: &Sample) -> Self {
        Self { files: sample.iter().map(|(path, text)| File::new(path, text.clone())).collect() }
    }

    /// The Rust files, tests included.
    pub fn rust_files(&self) -> impl Iterator<Item = (&File, &RustSource)> {
        self.files.iter().filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    /// The Python files, stubs not included.
    pub fn python_files(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".py"))
    }

    /// The text of one file, if it is there.
    pub fn text_of(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }
}

impl File {
    fn new(path: &str, text: String) -> Self {
        let rust = path.ends_with(".rs").then(|| RustSource::new(&text));
        Self { path: path.to_owned(), text, rust }
    }

    /// The file name without its folder and ending.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.split_once('.').map_or(name, |(stem, _)| stem)
    }

    /// Whether the whole file is test, bench or example code.
    pub fn is_test(&self) -> bool {
        let folder = |name: &str| {
            self.path.starts_with(&format!("{name}/")) || self.path.contains(&format!("/{name}/"))
        };
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || ["tests", "benches", "examples", "fuzz"].into_iter().any(folder)
            || self.path.starts_with("crates/data-bridge-kv-testkit/")
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            continue;
        }
        if kind.is_dir() {
            collect(&path, into);
        } else if kind.is_file() && entry.metadata().is_ok_and(|data| data.len() <= TEXT_LIMIT) {
            into.push(path);
        }
    }
}
