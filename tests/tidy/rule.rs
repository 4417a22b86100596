//! What a rule is: a name, a check over a tree, and samples that prove the check fires. Used by every file of `tidy/`.

use std::fmt;

use crate::tree::Tree;

/// A small made-up tree: (path, text) of each file.
pub type Sample = Vec<(String, String)>;

/// One row of the checker.
pub struct Rule {
    /// What is demanded, in words that read well in front of a finding.
    pub name: String,
    /// The check itself.
    pub check: Box<dyn Fn(&Tree) -> Outcome>,
    /// Trees in which the check must find something.
    pub breaking: Vec<Sample>,
    /// Trees in which it must look at something and find nothing.
    pub clean: Vec<Sample>,
}

/// What a check looked at and what it found.
#[derive(Default)]
pub struct Outcome {
    /// Number of items (files, functions, imports) that were looked at.
    pub checked: usize,
    /// Breaches that say why they are right (`// long: ...`).
    pub waived: usize,
    /// What breaks the rule.
    pub findings: Vec<Finding>,
}

/// One place that breaks a rule.
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Outcome {
    /// Notes a breach at `path:line` (lines count from 1).
    pub fn find(&mut self, path: &str, line: usize, what: impl Into<String>) {
        self.findings.push(Finding { path: path.to_owned(), line, what: what.into() });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A sample of one file.
pub fn one_file(path: &str, text: &str) -> Sample {
    vec![(path.to_owned(), text.to_owned())]
}
