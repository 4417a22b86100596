//! Compares [`Decimal`] with CPython's `decimal.Decimal` on random texts, sums, differences, negatives, comparisons
//! and integers. One `python3` answers line by line; without it the test says so and passes.

use data_bridge_kv_model::{Decimal, DecimalError};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{ChildStdin, Command, Stdio};

const PAIRS: usize = 200_000;
const TEXTS: usize = 50_000;

/// Answers `N a b` with the canonical text of a, a + b, a - b, the sign of the comparison, -a and a as an i64, and
/// `T text` with what the text is. The context has our precision and refuses to round.
const ORACLE: &str = r#"
import sys, _pydecimal
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Underflow, setcontext
setcontext(Context(prec=38, Emin=-999999, Emax=999999, traps=[InvalidOperation, Inexact, Overflow, Underflow]))
def exact(operation, a, b):
    try:
        return str(operation(a, b))
    except Inexact:
        return "overflow"
def judge(text):
    try:
        number = Decimal(text)
    except InvalidOperation:
        # Either the shape is wrong or the exponent is beyond libmpdec's; the Python twin knows no such bound.
        try:
            number = _pydecimal.Decimal(text)
        except _pydecimal.InvalidOperation:
            return "syntax"
    if not number.is_finite():
        return "special"
    _, digits, exponent = number.as_tuple()
    return f"{len(digits)} {exponent} {number}"
for line in sys.stdin:
    kind, _, rest = line.rstrip("\n").partition(" ")
    if kind == "T":
        print(judge(rest))
        continue
    a, b = map(Decimal, rest.split())
    whole = a == a.to_integral_value() and -2**63 <= a < 2**63
    print(a, exact(Decimal.__add__, a, b), exact(Decimal.__sub__, a, b), (a > b) - (a < b), -a, int(a) if whole else None)
"#;

/// A small seeded generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    /// The next number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// A coefficient of 0 to 38 digits, often with a run of zeros or nines at its end.
    fn coefficient(&mut self) -> u128 {
        let digits = self.below(39) as u32;
        let wide = (u128::from(self.below(u64::MAX)) << 64) | u128::from(self.below(u64::MAX));
        let coefficient = wide % 10u128.pow(digits);
        let unit = 10u128.pow(self.below(u64::from(digits) + 1) as u32);
        match self.below(6) {
            0 => coefficient - coefficient % unit,
            1 => coefficient - coefficient % unit + (unit - 1),
            2 => unit % 10u128.pow(38),
            _ => coefficient,
        }
    }

    /// A pair of numbers whose exponents are often close enough for an exact sum.
    fn pair(&mut self) -> (Decimal, Decimal) {
        let exponent = match self.below(3) {
            0 => self.below(65_536) as i64 - 32_768,
            1 => self.below(100) as i64 - 50,
            _ => -(self.below(8) as i64),
        };
        let other = match self.below(4) {
            0 => self.below(65_536) as i64 - 32_768,
            1 => exponent,
            _ => exponent + self.below(80) as i64 - 40,
        };
        let mut number = |exponent: i64| {
            let exponent = exponent.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16;
            Decimal::new(self.below(2) == 0, self.coefficient(), exponent)
                .expect("the coefficient is in range")
        };
        (number(exponent), number(other))
    }

    /// A short text of the characters that numbers are made of.
    fn text(&mut self) -> String {
        let words = [
            "0",
            "1",
            "5",
            "00",
            "99999999",
            "12345678901234567890",
            ".",
            "-",
            "+",
            "e",
            "E",
            "nan",
            "Inf",
            "s",
            "x",
        ];
        (0..1 + self.below(6)).map(|_| words[self.below(words.len() as u64) as usize]).collect()
    }

    /// A number's text in another spelling than the canonical one.
    fn respelled(&mut self, number: Decimal) -> String {
        let mut digits = format!("{}{}", "0".repeat(self.below(3) as usize), number.coefficient());
        let mut exponent = i64::from(number.exponent());
        let sign = if number.is_negative() { "-" } else { ["", "+"][self.below(2) as usize] };
        let point = self.below(digits.len() as u64 + 1) as usize;
        if self.below(3) > 0 {
            exponent += (digits.len() - point) as i64;
            digits.insert(point, '.');
        }
        format!(
            "{sign}{digits}{}{exponent:0width$}",
            ["e", "E"][self.below(2) as usize],
            width = self.below(5) as usize
        )
    }
}

#[test]
fn decimal_agrees_with_cpython() {
    let oracle =
        Command::new("python3").args(["-c", ORACLE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut oracle = match oracle {
        Ok(oracle) => oracle,
        Err(error) => return println!("skipped: python3 does not start: {error}"),
    };
    let mut random = Random(0x6461_7461);
    let pairs: Vec<(Decimal, Decimal, String)> = (0..PAIRS)
        .map(|_| {
            let (a, b) = random.pair();
            let spelling = random.respelled(a);
            (a, b, spelling)
        })
        .collect();
    let texts: Vec<String> = (0..TEXTS).map(|_| random.text()).collect();

    let questions = oracle.stdin.take().expect("stdin is piped");
    let answers = oracle.stdout.take().expect("stdout is piped");
    let (mut exact, mut accepted) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| ask(questions, &pairs, &texts));
        // Dropped when a check fails, which ends python3 and with it the asking thread.
        let mut answers = BufReader::new(answers).lines();
        let mut next = |question: &str| {
            answers.next().unwrap_or_else(|| panic!("no answer to {question}")).expect("UTF-8")
        };
        for (a, b, spelling) in &pairs {
            exact += u32::from(check_pair(*a, *b, spelling, &next(spelling)));
        }
        for text in &texts {
            accepted += u32::from(check_text(text, &next(text)));
        }
    });
    assert!(oracle.wait().expect("python3 ends").success());
    println!("{PAIRS} pairs, {exact} sums exact; {TEXTS} texts, {accepted} of them numbers");
    assert!(exact > PAIRS as u32 / 4 && accepted > TEXTS as u32 / 20, "the generator misses its aim");
}

fn ask(questions: ChildStdin, pairs: &[(Decimal, Decimal, String)], texts: &[String]) {
    let mut questions = BufWriter::new(questions);
    for (_, b, spelling) in pairs {
        writeln!(questions, "N {spelling} {b}").expect("python3 reads");
    }
    for text in texts {
        writeln!(questions, "T {text}").expect("python3 reads");
    }
    questions.flush().expect("python3 reads");
}

/// Checks one pair and tells whether its sum is exact.
fn check_pair(a: Decimal, b: Decimal, spelling: &str, answer: &str) -> bool {
    assert_eq!(spelling.parse(), Ok(a), "{spelling}");
    let sum = a.checked_add(b);
    let result = |result: Result<Decimal, DecimalError>, expected: &str| match result {
        Ok(number) => number.to_string(),
        // A sum may need more than 38 digits, or an exponent that only CPython has.
        Err(DecimalError::Overflow) if expected.parse::<Decimal>().is_err() => expected.to_string(),
        Err(error) => error.to_string(),
    };
    let expected: Vec<&str> = answer.split(' ').collect();
    let found = [
        a.to_string(),
        result(sum, expected[1]),
        result(a.checked_sub(b), expected[2]),
        (a.numeric_cmp(b) as i8).to_string(),
        result(a.checked_neg(), expected[4]),
        a.to_i64().map_or("None".to_string(), |integer| integer.to_string()),
    ];
    assert_eq!(found.as_slice(), expected, "{a} with {b}: text, sum, difference, order, negative, integer");
    sum.is_ok()
}

/// Checks one text and tells whether it is a number.
fn check_text(text: &str, answer: &str) -> bool {
    let found = text.parse::<Decimal>();
    let expected = match answer.split(' ').collect::<Vec<_>>().as_slice() {
        ["syntax"] => Err(DecimalError::Syntax),
        ["special"] => Err(DecimalError::NotFinite),
        [digits, ..] if digits.parse::<u32>().expect("a count") > 38 => Err(DecimalError::TooManyDigits),
        [_, exponent, _] if exponent.parse::<i16>().is_err() => Err(DecimalError::ExponentOutOfRange),
        [_, _, canonical] => Ok(canonical.to_string()),
        other => panic!("{text:?} was answered with {other:?}"),
    };
    assert_eq!(found.map(|number| number.to_string()), expected, "{text:?}");
    found.is_ok()
}
