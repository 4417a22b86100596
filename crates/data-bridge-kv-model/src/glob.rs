//! Redis glob patterns over bytes: what KEYS, SCAN's MATCH and pattern subscriptions mean by a pattern. The pattern is
//! untrusted. Matching needs no memory and no recursion, and at most pattern times text steps.
//!
//! | in a pattern | matches |
//! |---|---|
//! | `*` | any bytes, none too |
//! | `?` | any one byte |
//! | `[abc]`, `[a-z]` | one byte of the class; a range may stand in either order |
//! | `[^abc]` | one byte that is not of the class |
//! | `\x` | the byte x, in a class too |
//!
//! Malformed patterns mean what they mean in Redis: a class ends with the pattern if no `]` closes it, `[]` matches
//! nothing and `[^]` any byte, the byte behind `-` ends a range even if it is `]` or `\`, and a backslash at the end
//! stands for itself. Two things differ on purpose: ranges compare bytes as unsigned (Redis takes the platform's
//! `char`), and a pattern of several stars matches the empty text, as one star does.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::fmt;

use crate::limits::PATTERN_BYTES;

/// A pattern to match texts against.
///
/// ```
/// use data_bridge_kv_model::Glob;
/// let users = Glob::new(b"user:[0-9]*")?;
/// assert!(users.matches(b"user:42"));
/// assert!(!users.matches(b"user:bob"));
/// # Ok::<(), data_bridge_kv_model::PatternTooLong>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Glob<'p> {
    /// The bytes before the first one that is special.
    prefix: &'p [u8],
    /// The rest of the pattern.
    rest: &'p [u8],
}

/// A pattern has more than [`PATTERN_BYTES`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternTooLong;

impl fmt::Display for PatternTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pattern is longer than {PATTERN_BYTES} bytes")
    }
}

impl std::error::Error for PatternTooLong {}

impl<'p> Glob<'p> {
    /// Takes any bytes up to [`PATTERN_BYTES`] as a pattern; there are no syntax errors.
    ///
    /// # Errors
    /// [`PatternTooLong`].
    ///
    /// ```
    /// use data_bridge_kv_model::{Glob, PatternTooLong};
    /// assert!(Glob::new(b"[a-").is_ok());
    /// assert_eq!(Glob::new(&[b'?'; 1025]).err(), Some(PatternTooLong));
    /// ```
    pub fn new(pattern: &'p [u8]) -> Result<Self, PatternTooLong> {
        if pattern.len() > PATTERN_BYTES {
            return Err(PatternTooLong);
        }
        let special = pattern.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
        let (prefix, rest) = pattern.split_at(special.unwrap_or(pattern.len()));
        Ok(Self { prefix, rest })
    }

    /// The bytes that every matching text begins with, as far as they stand in the pattern without an escape.
    ///
    /// ```
    /// use data_bridge_kv_model::Glob;
    /// assert_eq!(Glob::new(b"user:*")?.literal_prefix(), b"user:");
    /// assert_eq!(Glob::new(b"*")?.literal_prefix(), b"");
    /// # Ok::<(), data_bridge_kv_model::PatternTooLong>(())
    /// ```
    pub const fn literal_prefix(&self) -> &'p [u8] {
        self.prefix
    }

    /// Whether the pattern has no special byte, so that only [`literal_prefix`](Self::literal_prefix) itself matches.
    ///
    /// ```
    /// use data_bridge_kv_model::Glob;
    /// assert!(Glob::new(b"user:42")?.is_literal());
    /// assert!(!Glob::new(b"user:4?")?.is_literal());
    /// # Ok::<(), data_bridge_kv_model::PatternTooLong>(())
    /// ```
    pub const fn is_literal(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether the whole text matches.
    ///
    /// ```
    /// use data_bridge_kv_model::Glob;
    /// assert!(Glob::new(b"a*c")?.matches(b"abbc"));
    /// assert!(!Glob::new(b"a*c")?.matches(b"abcd"));
    /// # Ok::<(), data_bridge_kv_model::PatternTooLong>(())
    /// ```
    pub fn matches(&self, text: &[u8]) -> bool {
        let Some(mut text) = text.strip_prefix(self.prefix) else { return false };
        let mut pattern = self.rest;
        // What follows the last star, and the text it was last tried on. Earlier stars never need another try: if the
        // part between two stars matches at all, its first match leaves the later star the most text.
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            if let [b'*', after @ ..] = pattern {
                if after.is_empty() {
                    // Nothing can go wrong any more, and walking the text would cost.
                    return true;
                }
                pattern = after;
                retry = Some((after, text));
                continue;
            }
            let Some((byte, after)) = text.split_first() else { return pattern.is_empty() };
            if let Some(rest) = match_one(pattern, *byte) {
                (pattern, text) = (rest, after);
                continue;
            }
            let Some((after_star, [_, later @ ..])) = retry else { return false };
            (pattern, text) = (after_star, later);
            retry = Some((after_star, later));
        }
    }
}

/// Matches one byte against the first element of a pattern that does not begin with a star, and returns the rest of
/// the pattern.
#[inline]
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => match_class(class, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// Matches one byte against a class, given from behind its `[`, and returns what follows the class.
fn match_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    loop {
        let (hit, after) = match rest {
            [b'\\', literal, after @ ..] => (*literal == byte, after),
            [b']', after @ ..] => return (found != negated).then_some(after),
            [] => return (found != negated).then_some(rest),
            [a, b'-', b, after @ ..] => ((*a.min(b)..=*a.max(b)).contains(&byte), after),
            [literal, after @ ..] => (*literal == byte, after),
        };
        found |= hit;
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes())
    }

    /// Each answer below is also that of redis-server 7.0.
    #[test]
    fn odd_patterns_mean_what_redis_takes_them_for() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("h?llo", &["hello", "h?llo"], &["hllo", "heello"]),
            ("h*llo", &["hllo", "heeello"], &["hell", "hllow"]),
            ("*", &["a", "\0\n"], &[]),
            ("a**b***", &["ab", "axbx"], &["a", "b"]),
            ("*a", &["a", "ba", "aaa"], &["ab"]),
            ("*ab*ab", &["abab", "xabyab", "ababab"], &["ab", "aba"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo", "hllo"]),
            ("h[^e]llo", &["hallo", "h^llo"], &["hello", "hllo"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo", "h-llo"]),
            ("[z-a]", &["a", "m", "z"], &["-", "A"]),
            ("[abc", &["a", "c"], &["d", "[", "[abc", "ab"]),
            ("[a-", &["a", "-"], &["b"]),
            ("[a-]", &["a", "]", "^"], &["-", "b", "a]"]),
            ("[a-]b]", &["a", "]", "b"], &["-", "c"]),
            ("[^a", &["b", "^"], &["a"]),
            ("[", &[], &["[", "a"]),
            ("[]", &[], &["]", "[]", "a"]),
            ("[]a]", &[], &["a", "]", "a]"]),
            ("[^]", &["a", "]", "^"], &["ab"]),
            ("[^", &["a", "^"], &["ab"]),
            ("[a^]", &["a", "^"], &["b"]),
            (r"[\]]", &["]"], &["\\", "a"]),
            (r"[\a-c]", &["a", "-", "c"], &["b", "\\"]),
            (r"[a-\]]", &["a]", "\\]", "^]", "]]"], &["a", "b]"]),
            (r"[a\", &["a", "\\"], &["b"]),
            (r"[\", &["\\"], &["["]),
            (r"a\", &["a\\"], &["a"]),
            (r"\*\?\[", &["*?["], &["a?[", r"\*\?\["]),
            (r"\a", &["a"], &[r"\a"]),
            (r"\\", &["\\"], &["\\\\"]),
            ("]", &["]"], &["a"]),
            ("a]-^", &["a]-^"], &["a"]),
            ("[--/]", &["-", ".", "/"], &[",", "0"]),
            ("[a-a-c]", &["a", "-", "c"], &["b"]),
            ("[?*]", &["?", "*"], &["a"]),
            ("?", &["\n"], &["é"]),
            ("??", &["é"], &["e"]),
        ];
        for (pattern, hits, misses) in cases {
            for text in *hits {
                assert!(matches(pattern, text), "{pattern} should match {text}");
            }
            for text in *misses {
                assert!(!matches(pattern, text), "{pattern} should not match {text}");
            }
        }
    }

    #[test]
    fn the_empty_text_matches_stars_and_nothing_else() {
        for (pattern, expected) in
            [("", true), ("*", true), ("**", true), ("?", false), ("*a", false), ("[^a]", false)]
        {
            assert_eq!(matches(pattern, ""), expected, "{pattern}");
        }
        assert!(!matches("", "a"));
    }

    #[test]
    fn ranges_are_of_unsigned_bytes() {
        let glob = Glob::new(b"[a-\xff]").unwrap();
        assert!(glob.matches(b"\x80") && glob.matches(b"\xff") && glob.matches(b"z"));
        assert!(!glob.matches(b"A"));
    }

    #[test]
    fn the_limit_is_of_bytes() {
        assert!(Glob::new(&[b'*'; PATTERN_BYTES]).is_ok());
        assert_eq!(Glob::new(&[b'*'; PATTERN_BYTES + 1]).err(), Some(PatternTooLong));
    }

    #[test]
    fn the_prefix_ends_before_the_first_special_byte() {
        for (pattern, prefix) in
            [("ab*c", "ab"), ("a?", "a"), ("a[b]", "a"), (r"a\*", "a"), ("a]b-^", "a]b-^"), ("", "")]
        {
            let glob = Glob::new(pattern.as_bytes()).unwrap();
            assert_eq!(glob.literal_prefix(), prefix.as_bytes(), "{pattern}");
            assert_eq!(glob.is_literal(), pattern == prefix, "{pattern}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "*a".repeat(400) + "*b";
        assert!(!matches(&pattern, &"a".repeat(2000)));
        assert!(matches(&pattern, &("a".repeat(2000) + "b")));
    }

    /// A class or a byte of a pattern, read by position as Redis does.
    enum Token {
        Star,
        One(Box<dyn Fn(u8) -> bool>),
    }

    fn tokens(pattern: &[u8]) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < pattern.len() {
            let byte = pattern[at];
            at += 1;
            tokens.push(match byte {
                b'*' => Token::Star,
                b'?' => Token::One(Box::new(|_| true)),
                b'[' => {
                    let (class, end) = class(pattern, at);
                    at = end;
                    Token::One(class)
                }
                b'\\' if at < pattern.len() => {
                    let literal = pattern[at];
                    at += 1;
                    Token::One(Box::new(move |byte| byte == literal))
                }
                literal => Token::One(Box::new(move |byte| byte == literal)),
            });
        }
        tokens
    }

    fn class(pattern: &[u8], mut at: usize) -> (Box<dyn Fn(u8) -> bool>, usize) {
        let negated = pattern.get(at) == Some(&b'^');
        at += usize::from(negated);
        let mut members = vec![false; 256];
        while at < pattern.len() && pattern[at] != b']' {
            let left = pattern.len() - at;
            if pattern[at] == b'\\' && left >= 2 {
                members[usize::from(pattern[at + 1])] = true;
                at += 2;
            } else if left >= 3 && pattern[at + 1] == b'-' {
                let mut ends = [pattern[at], pattern[at + 2]];
                ends.sort();
                (ends[0]..=ends[1]).for_each(|byte| members[usize::from(byte)] = true);
                at += 3;
            } else {
                members[usize::from(pattern[at])] = true;
                at += 1;
            }
        }
        (Box::new(move |byte| members[usize::from(byte)] != negated), (at + 1).min(pattern.len()))
    }

    /// Which beginnings of the text the tokens so far match, for one token after the other.
    fn matches_by_table(pattern: &[u8], text: &[u8]) -> bool {
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for token in tokens(pattern) {
            reached = match token {
                Token::Star => (0..=text.len()).map(|end| reached[..=end].contains(&true)).collect(),
                Token::One(accepts) => (0..=text.len())
                    .map(|end| end > 0 && reached[end - 1] && accepts(text[end - 1]))
                    .collect(),
            };
        }
        reached[text.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn agrees_with_a_table_of_all_beginnings(
            pattern in r"[abc*?\[\]^\\\-]{0,12}", text in r"[abc\]^\\\-]{0,10}",
        ) {
            let expected = matches_by_table(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(&pattern, &text), expected);
        }

        #[test]
        fn a_match_begins_with_the_literal_prefix(pattern in r"[ab*?\\]{0,6}", text in "[ab]{0,6}") {
            let glob = Glob::new(pattern.as_bytes()).unwrap();
            prop_assert!(!glob.matches(text.as_bytes()) || text.as_bytes().starts_with(glob.literal_prefix()));
        }
    }
}
