//! Runs the General Decimal Arithmetic test vectors against [`Decimal`].
//!
//! The vectors are not in this repository, because their copyright notice grants no licence. They are taken from the
//! directory in `DECTEST_DIR`, or from the test suite of the `python3` on the path (Debian:
//! `libpython3.11-testsuite`). Without either the test says so and passes. It fails if an operation ran no case.

use data_bridge_kv_model::{Decimal, DecimalError};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The operations of the vectors that have a counterpart here.
const OPERATIONS: [&str; 7] = ["tosci", "compare", "comparetotal", "add", "subtract", "minus", "reduce"];

/// What became of a case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    /// The result was compared and is the same.
    Same,
    /// The text is malformed in the vectors, and was refused here.
    Malformed,
    /// An operand is a NaN, an infinity or beyond 38 digits or `i16`, and was refused for just that.
    Refused,
    /// The expected result is rounded, clamped or an error of the vector's narrower context.
    Rounded,
    /// An operand is given as the bits of an IEEE format, or the result follows from directed rounding or the largest
    /// exponent of an IEEE format.
    Foreign,
}

struct Case<'a> {
    id: &'a str,
    operation: String,
    operands: Vec<String>,
    result: String,
    conditions: Vec<String>,
    rounds_down: bool,
    clamps: bool,
}

#[test]
fn decimal_agrees_with_the_published_vectors() {
    let Some(directory) = find_vectors() else {
        println!(
            "skipped: no DECTEST_DIR, and python3 has no test/decimaltestdata (Debian: libpython3.11-testsuite)"
        );
        return;
    };
    let mut counts: BTreeMap<(&str, Fate), u32> = BTreeMap::new();
    let mut elsewhere = 0;
    let mut failures = Vec::new();
    for file in vector_files(&directory) {
        let text =
            String::from_utf8_lossy(&std::fs::read(&file).expect("a vector file is readable")).into_owned();
        for case in cases(&text) {
            let Some(operation) = OPERATIONS.into_iter().find(|name| *name == case.operation) else {
                elsewhere += 1;
                continue;
            };
            match judge(&case) {
                Ok(fate) => *counts.entry((operation, fate)).or_default() += 1,
                Err(why) => failures.push(format!("{} {operation} {:?}: {why}", case.id, case.operands)),
            }
        }
    }
    println!("vectors from {}", directory.display());
    for ((operation, fate), count) in &counts {
        println!("{operation:>12} {fate:<10?} {count:>6}");
    }
    println!("{elsewhere} cases of operations that Decimal does not offer");
    assert!(
        failures.is_empty(),
        "{} cases differ, such as\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    for operation in OPERATIONS {
        assert!(counts.contains_key(&(operation, Fate::Same)), "no case of {operation} ran");
    }
}

fn find_vectors() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("DECTEST_DIR") {
        return Some(PathBuf::from(directory));
    }
    let script = "import os, test; print(os.path.join(os.path.dirname(test.__file__), 'decimaltestdata'))";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let directory = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    (output.status.success() && directory.is_dir()).then_some(directory)
}

fn vector_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory of the vectors is readable");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a directory entry is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "decTest"))
        .collect();
    files.sort();
    files
}

/// The cases of one file: `id operation operand.. -> result condition..`, between lines of `directive: value`.
fn cases(text: &str) -> Vec<Case<'_>> {
    let (mut rounds_down, mut clamps) = (false, false);
    let mut cases = Vec::new();
    for line in text.lines() {
        let words = words(line);
        let Some((id, rest)) = words.split_first() else { continue };
        if let Some(directive) = id.strip_suffix(':') {
            let setting = rest.first().map(|word| word.to_lowercase()).unwrap_or_default();
            match directive.to_lowercase().as_str() {
                "rounding" => rounds_down = setting == "floor",
                "clamp" => clamps = setting == "1",
                _ => {}
            }
            continue;
        }
        let Some(arrow) = rest.iter().position(|word| word == "->").filter(|arrow| *arrow > 0) else {
            continue;
        };
        let start = line.find(id.as_str()).unwrap_or(0);
        cases.push(Case {
            id: &line[start..start + id.len()],
            operation: rest[0].to_lowercase(),
            operands: rest[1..arrow].to_vec(),
            result: rest.get(arrow + 1).cloned().unwrap_or_default(),
            conditions: rest.iter().skip(arrow + 2).map(|word| word.to_lowercase()).collect(),
            rounds_down,
            clamps,
        });
    }
    cases
}

/// Splits a line at blanks; a word may stand in single or double quotes, doubled inside. A word that begins with two
/// dashes begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("--") {
            break;
        }
        let mut word = String::new();
        if first == '\'' || first == '"' {
            let mut chars = rest[1..].char_indices().peekable();
            let mut end = rest.len();
            while let Some((at, char)) = chars.next() {
                if char != first {
                    word.push(char);
                } else if chars.next_if(|(_, next)| *next == first).is_some() {
                    word.push(first);
                } else {
                    end = at + 2;
                    break;
                }
            }
            rest = &rest[end..];
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            word.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        words.push(word);
        rest = rest.trim_start();
    }
    words
}

fn judge(case: &Case<'_>) -> Result<Fate, String> {
    if case.operands.iter().any(|operand| operand.contains('#')) {
        return Ok(Fate::Foreign);
    }
    if case.conditions.iter().any(|condition| condition == "conversion_syntax") {
        return match case.operands[0].parse::<Decimal>() {
            Err(DecimalError::Syntax) => Ok(Fate::Malformed),
            // A NaN whose diagnostic digits are too many for the vector's context.
            Err(DecimalError::NotFinite) if is_refusable(&case.operands[0], DecimalError::NotFinite) => {
                Ok(Fate::Refused)
            }
            other => Err(format!("malformed text gave {other:?}")),
        };
    }
    let mut numbers = Vec::new();
    for operand in &case.operands {
        match operand.parse::<Decimal>() {
            Ok(number) => numbers.push(number),
            Err(error) if is_refusable(operand, error) => return Ok(Fate::Refused),
            Err(error) => return Err(format!("{operand:?} was refused: {error}")),
        }
    }
    if case.conditions.iter().any(|condition| condition != "subnormal") {
        return Ok(Fate::Rounded);
    }
    let found = match (case.operation.as_str(), numbers.as_slice()) {
        ("tosci", [a]) => a.to_string(),
        ("add", [a, b]) => text_of(a.checked_add(*b)),
        ("subtract", [a, b]) => text_of(a.checked_sub(*b)),
        ("minus", [a]) => text_of(a.checked_neg()),
        ("compare", [a, b]) => (a.numeric_cmp(*b) as i8).to_string(),
        ("comparetotal", [a, b]) => return judge_total_order(case, *a, *b),
        ("reduce", [a]) => reduced(*a),
        (operation, _) => return Err(format!("{operation} with {} operands", numbers.len())),
    };
    if found == case.result {
        return Ok(Fate::Same);
    }
    // Exact results that still follow from the context: the sign of a zero, and zeros kept below the largest exponent.
    let zero_sign = case.rounds_down && case.result.strip_prefix('-') == Some(&found) && is_zero(&found);
    let kept_zeros = case.clamps && case.operation == "reduce" && is_same_number(&case.result, &found);
    if zero_sign || kept_zeros {
        return Ok(Fate::Foreign);
    }
    Err(format!("expected {}, found {found}", case.result))
}

fn text_of(result: Result<Decimal, DecimalError>) -> String {
    result.map_or_else(|error| error.to_string(), |number| number.to_string())
}

fn is_zero(text: &str) -> bool {
    text.parse::<Decimal>().is_ok_and(Decimal::is_zero)
}

fn is_same_number(a: &str, b: &str) -> bool {
    matches!((a.parse::<Decimal>(), b.parse::<Decimal>()), (Ok(a), Ok(b)) if a.numeric_eq(b))
}

/// The text of the normal form, with the sign of a zero, which the normal form drops and `reduce` keeps.
fn reduced(number: Decimal) -> String {
    let (negative, coefficient, exponent) = number.normalized();
    let exponent = i16::try_from(exponent).expect("the vectors stay within the exponents");
    text_of(Decimal::new(negative || (coefficient == 0 && number.is_negative()), coefficient, exponent))
}

/// The total order of the specification refines ours: it agrees where the numbers differ, and is equal only for equal
/// representations.
fn judge_total_order(case: &Case<'_>, a: Decimal, b: Decimal) -> Result<Fate, String> {
    let agrees = match a.numeric_cmp(b) {
        Ordering::Equal => (case.result == "0") == (a == b),
        order => case.result == (order as i8).to_string(),
    };
    if agrees {
        Ok(Fate::Same)
    } else {
        Err(format!("expected {}, found {:?}", case.result, a.numeric_cmp(b)))
    }
}

/// Whether an operand of the vectors really lies outside of what is stored, in the way that the error says.
fn is_refusable(operand: &str, error: DecimalError) -> bool {
    let text = operand.to_lowercase();
    match error {
        DecimalError::NotFinite => text.contains("nan") || text.contains("inf"),
        DecimalError::TooManyDigits => {
            let digits = text.split('e').next().unwrap_or_default().replace(['.', '-', '+'], "");
            digits.trim_start_matches('0').len() > 38
        }
        DecimalError::ExponentOutOfRange => {
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            exponent.parse::<i128>().is_ok_and(|exponent| i16::try_from(exponent - fraction as i128).is_err())
        }
        DecimalError::Syntax | DecimalError::Overflow => false,
    }
}
