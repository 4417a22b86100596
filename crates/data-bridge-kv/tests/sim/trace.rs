//! What happened in a run, as lines: a hash of all, and the last ones for people.

use std::hash::{DefaultHasher, Hasher};

use data_bridge_kv_model::Reply;

/// Lines that are told of a run that failed.
const TOLD: usize = 40;
/// Versions are counted from a base up to here.
const SEQUENCES: u64 = 1 << 44;

#[derive(Default)]
pub struct Trace {
    lines: Vec<String>,
    failure: Option<String>,
}

impl Trace {
    pub fn add(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Of every line; the same in every process.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.iter().for_each(|line| hasher.write(line.as_bytes()));
        hasher.finish()
    }

    /// The first line that another run has not.
    pub fn difference(&self, other: &Trace) -> Option<String> {
        let differ = self.lines.iter().zip(&other.lines).position(|(one, other)| one != other)?;
        Some(format!("{:?} is not {:?}", self.lines[differ], other.lines[differ]))
    }

    /// A command with its answer; versions as they are counted from this base, which is another one in every process.
    pub fn reply(&mut self, request: &str, reply: &Reply, base: u64) {
        self.add(format!("{request} -> {}", shown(reply, base)));
    }

    /// What went wrong where it can't be answered.
    pub fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
    }

    pub fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    pub fn told(&self, why: &str) -> String {
        let from = self.lines.len().saturating_sub(TOLD);
        format!("{why}\nafter\n  {}", self.lines[from..].join("\n  "))
    }
}

fn shown(reply: &Reply, base: u64) -> String {
    match reply {
        Reply::Integer(number) if (base..base + SEQUENCES).contains(&number.cast_unsigned()) => {
            format!("version {}", number.cast_unsigned() - base)
        }
        Reply::Container(shape, items) => {
            let items: Vec<String> = items.iter().map(|item| shown(item, base)).collect();
            format!("{shape:?}{items:?}")
        }
        Reply::Error(error) => format!("{:?}", error.kind()),
        other => format!("{other:?}"),
    }
}
