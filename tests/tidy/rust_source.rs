//! A Rust file taken apart just far enough for the rules: code without comments and strings, string literals, the
//! paths and calls that occur, functions with their length. A lexer, not a parser; used by the rules of `tidy/`.

/// A word, a `::` or one punctuation character of code.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// The characters of the token.
    pub text: &'a str,
    /// Line it stands on, from 1.
    pub line: usize,
}

/// A method call (`table.put(`) or a path call (`Table::put(`).
pub struct Call {
    /// Line it stands on, from 1.
    pub line: usize,
    /// The word before the dot; empty for a path call and for a call on an expression.
    pub receiver: String,
    /// What is called.
    pub name: String,
}

/// A string or byte string literal.
pub struct Literal {
    /// Line it starts on, from 1.
    pub line: usize,
    /// What stands between the quotes, escapes as written.
    pub text: String,
    /// Whether it is the first argument of a method `word`: an option word that a parser asks for.
    pub is_option: bool,
}

/// What the rules want to know of a Rust file.
#[derive(Default)]
pub struct RustSource {
    /// The text with comments and the insides of literals blanked out; same lines as the text.
    pub code: String,
    /// Each string or byte string literal.
    pub literals: Vec<Literal>,
    /// Line and text of each path of two or more parts (`std::fs::read`), groups of `use` taken apart.
    pub paths: Vec<(usize, String)>,
    /// Each method or path call.
    pub calls: Vec<Call>,
    /// Line on which the trailing `#[cfg(test)] mod` starts, or one past the last line.
    pub tests_from: usize,
}

impl RustSource {
    /// Takes a text apart.
    pub fn new(text: &str) -> Self {
        let mut source = Self::default();
        source.blank(text);
        source.tests_from = tests_from(&source.code);
        let (paths, calls) = paths_and_calls(&tokens(&source.code));
        source.paths = paths;
        source.calls = calls;
        source
    }

    /// Paths outside the trailing test module.
    pub fn paths_outside_tests(&self) -> impl Iterator<Item = &(usize, String)> {
        self.paths.iter().filter(|(line, _)| *line < self.tests_from)
    }

    /// Calls outside the trailing test module.
    pub fn calls_outside_tests(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.line < self.tests_from)
    }

    /// Literals outside the trailing test module.
    pub fn literals_outside_tests(&self) -> impl Iterator<Item = &Literal> {
        self.literals.iter().filter(|literal| literal.line < self.tests_from)
    }

    /// First and last line and name of each function that has a body.
    pub fn functions(&self) -> Vec<(usize, usize, String)> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let Some(name) = tokens.get(at + 1).filter(|next| token.text == "fn" && is_word(next.text))
            else {
                continue;
            };
            if let Some(last) = end_of_body(&tokens[at..]) {
                found.push((token.line, last, name.text.to_owned()));
            }
        }
        found
    }

    /// Fills `code` and `literals`.
    fn blank(&mut self, text: &str) {
        let chars: Vec<char> = text.chars().collect();
        let (mut at, mut line) = (0, 1);
        while at < chars.len() {
            let end = match Lexeme::at(&chars, at) {
                Lexeme::Comment(end) => end,
                Lexeme::Literal { open, close, end } => {
                    let is_option = self.code.trim_end_matches('b').ends_with(".word(");
                    self.literals.push(Literal {
                        line,
                        text: chars[open..close].iter().collect(),
                        is_option,
                    });
                    end
                }
                Lexeme::Character(end) => end,
                Lexeme::Code(end) => {
                    self.code.extend(&chars[at..end]);
                    line += chars[at..end].iter().filter(|c| **c == '\n').count();
                    at = end;
                    continue;
                }
            };
            for c in &chars[at..end] {
                self.code.push(if *c == '\n' { '\n' } else { ' ' });
                line += usize::from(*c == '\n');
            }
            at = end;
        }
    }
}

enum Lexeme {
    Comment(usize),
    Literal { open: usize, close: usize, end: usize },
    Character(usize),
    Code(usize),
}

impl Lexeme {
    fn at(chars: &[char], at: usize) -> Self {
        let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
        match (next(0), next(1)) {
            ('/', '/') => Self::Comment(find(chars, at, |c| c == '\n')),
            ('/', '*') => Self::Comment(end_of_block_comment(chars, at)),
            ('"', _) => Self::string(chars, at),
            ('\'', '\\') => Self::Character(find(chars, at + 3, |c| c == '\'') + 1),
            ('\'', _) if next(2) == '\'' => Self::Character(at + 3),
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let end = find(chars, at, |c| !(c.is_alphanumeric() || c == '_'));
                let word: String = chars[at..end].iter().collect();
                let raw = ["r", "br", "cr"].contains(&word.as_str());
                match chars.get(end) {
                    Some('"' | '#') if raw => Self::raw_string(chars, end).unwrap_or(Self::Code(end)),
                    _ => Self::Code(end),
                }
            }
            _ => Self::Code(at + 1),
        }
    }

    fn string(chars: &[char], open: usize) -> Self {
        let mut at = open + 1;
        while at < chars.len() && chars[at] != '"' {
            at += if chars[at] == '\\' { 2 } else { 1 };
        }
        let close = at.min(chars.len());
        Self::Literal { open: open + 1, close, end: (close + 1).min(chars.len()) }
    }

    fn raw_string(chars: &[char], at: usize) -> Option<Self> {
        let quote = find(chars, at, |c| c != '#');
        let hashes = quote - at;
        if chars.get(quote) != Some(&'"') {
            return None;
        }
        let closes = |end: &usize| {
            chars[*end] == '"'
                && chars[*end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        };
        let close = (quote + 1..chars.len()).find(closes).unwrap_or(chars.len());
        Some(Self::Literal { open: quote + 1, close, end: (close + 1 + hashes).min(chars.len()) })
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|at| wanted(chars[*at])).unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    chars.len()
}

/// Splits blanked code into words, `::` and single characters.
pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                ':' if rest.starts_with("::") => 2,
                c if is_word_character(c) => rest.find(|c| !is_word_character(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            let (text, tail) = rest.split_at(length);
            found.push(Token { text, line: number + 1 });
            rest = tail.trim_start();
        }
    }
    found
}

fn is_word_character(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(text: &str) -> bool {
    text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

type Located = Vec<(usize, String)>;

fn paths_and_calls(tokens: &[Token<'_>]) -> (Located, Vec<Call>) {
    let (mut paths, mut calls) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at];
        if token.text == "use" {
            at = use_tree(tokens, at + 1, "", &mut paths);
        } else if is_word(token.text) {
            let (end, path) = joined_path(tokens, at);
            let after_dot = at > 0 && tokens[at - 1].text == ".";
            let called = tokens.get(end).is_some_and(|next| next.text == "(" || next.text == "::");
            if called && (after_dot || path.contains("::")) {
                let receiver = tokens[..at].iter().nth_back(1).filter(|word| after_dot && is_word(word.text));
                calls.push(Call {
                    line: token.line,
                    receiver: receiver.map(|word| word.text.to_owned()).unwrap_or_default(),
                    name: path.rsplit("::").next().unwrap_or(&path).to_owned(),
                });
            }
            if path.contains("::") {
                paths.push((token.line, path));
            }
            at = end;
        } else {
            at += 1;
        }
    }
    (paths, calls)
}

/// The path that starts at `at`, and the index after it.
fn joined_path(tokens: &[Token<'_>], at: usize) -> (usize, String) {
    let mut path = tokens[at].text.to_owned();
    let mut end = at + 1;
    while let [colons, word, ..] = tokens[end..] {
        if colons.text != "::" || !is_word(word.text) {
            break;
        }
        path.push_str("::");
        path.push_str(word.text);
        end += 2;
    }
    (end, path)
}

/// Reads one tree of a `use` item into full paths; returns the index after it.
fn use_tree(tokens: &[Token<'_>], from: usize, prefix: &str, into: &mut Located) -> usize {
    let (mut at, mut path) = (from, prefix.to_owned());
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => {
                if !path.is_empty() {
                    path.push_str("::");
                }
                at += 1;
            }
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, &path, into);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            "as" => at += 2,
            "," | "}" | ";" => break,
            word => {
                path.push_str(word);
                at += 1;
            }
        }
    }
    let line = tokens.get(at.saturating_sub(1)).map_or(0, |token| token.line);
    into.push((line, path.trim_end_matches("::self").to_owned()));
    at
}

/// Last line of the body of the function whose tokens start here; None without a body.
fn end_of_body(tokens: &[Token<'_>]) -> Option<usize> {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for token in tokens {
        match token.text {
            "(" | "[" => round += 1,
            ")" | "]" => round -= 1,
            "{" => curly += 1,
            "}" => {
                curly -= 1;
                if curly == 0 && round == 0 {
                    return Some(token.line);
                }
            }
            ";" if round == 0 && curly == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Line of the first `#[cfg(test)] mod name {` (other attributes may stand between), or one past the last line.
fn tests_from(code: &str) -> usize {
    let tokens = tokens(code);
    let texts: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    let opens_tests = |window: &[&str], at: usize| {
        let mut rest = &texts[at + window.len()..];
        while rest.starts_with(&["#", "["]) {
            let close = rest.iter().position(|text| *text == "]").unwrap_or(rest.len() - 1);
            rest = &rest[close + 1..];
        }
        rest.first() == Some(&"mod") && rest.get(2) == Some(&"{")
    };
    let mut windows = texts.windows(attribute.len()).enumerate();
    let found = windows.find(|(at, window)| *window == attribute && opens_tests(window, *at));
    found.map_or(code.lines().count() + 1, |(at, _)| tokens[at].line)
}
