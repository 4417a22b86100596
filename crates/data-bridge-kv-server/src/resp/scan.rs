//! Finds the end of a request that arrives in pieces, without reading any byte twice.
//!
//! [`parse`](super::parse) starts a request from its beginning; for one with a million arguments that comes in
//! thousands of reads this would be quadratic. So after a first try the connection asks a [`Scan`], and parses
//! again only when the request is whole.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::parse::{Limits, ProtocolError, length, text_line};

/// How far a request was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    at: usize,
    left: usize,
    seen: usize,
}

impl Default for Scan {
    fn default() -> Scan {
        Scan { at: 0, left: 1, seen: 0 }
    }
}

impl Scan {
    /// Goes on in `request`, which starts where it started before and has grown: whether it is whole now.
    /// An inline command is always worth a try: it has a limit of 64 KiB.
    pub fn is_whole(&mut self, request: &[u8], limits: &Limits) -> Result<bool, ProtocolError> {
        if self.at == 0 && request.first() != Some(&b'*') {
            return Ok(true);
        }
        while self.left > 0 {
            let rest = request.get(self.at..).unwrap_or_default();
            let Some((more, next)) = head(rest, limits)? else { return Ok(false) };
            self.at = request.len().saturating_sub(next.len());
            self.left = self.left.saturating_sub(1).saturating_add(more);
            self.seen = self.seen.saturating_add(1);
        }
        Ok(true)
    }

    /// How many bytes the request is likely to have: the element that is just coming says how long it is, the others are
    /// taken to be as long as those before.
    pub fn expected_bytes(&self, request: &[u8]) -> usize {
        let rest = request.get(self.at..).unwrap_or_default();
        let next = rest.strip_prefix(b"$").and_then(|rest| length(rest, "").ok().flatten());
        let next = next.map_or(0, |(length, _)| usize::try_from(length).unwrap_or(0));
        let mean = self.at.checked_div(self.seen).unwrap_or(0);
        let others = mean.saturating_mul(self.left.saturating_sub(1));
        self.at.saturating_add(next).saturating_add(others).max(request.len())
    }
}

/// Steps over one element; answers how many elements it announces.
fn head<'a>(input: &'a [u8], limits: &Limits) -> super::parse::Step<'a, usize> {
    let Some((mark, rest)) = input.split_first() else { return Ok(None) };
    match mark {
        b'$' | b'=' => {
            let Some((count, rest)) = length(rest, "invalid bulk length")? else { return Ok(None) };
            let count = usize::try_from(count).ok().filter(|count| *count <= limits.bulk_bytes);
            let count = count.ok_or(ProtocolError("invalid bulk length"))?.saturating_add(2);
            Ok(rest.get(count..).map(|rest| (0, rest)))
        }
        b'*' | b'~' | b'%' => {
            let Some((count, rest)) = length(rest, "invalid multibulk length")? else { return Ok(None) };
            let count = usize::try_from(count).unwrap_or(0);
            if count > limits.arguments {
                return Err(ProtocolError("invalid multibulk length"));
            }
            let count = if *mark == b'%' { count.saturating_mul(2) } else { count };
            Ok(Some((count, rest)))
        }
        _ => Ok(text_line(rest)?.map(|(_, rest)| (0, rest))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { arguments: 1000, bulk_bytes: 1000, inline_bytes: 1000 };

    #[test]
    fn what_comes_is_expected_to_be_like_what_came() {
        let limits = Limits { bulk_bytes: 1 << 20, ..LIMITS };
        let mut scan = Scan::default();
        let one = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\nvvv";
        assert_eq!(scan.is_whole(one, &limits), Ok(false));
        assert_eq!(scan.expected_bytes(one), 1_000_020);
        let mut many = b"*101\r\n$4\r\nMSET\r\n".to_vec();
        for _ in 0..10 {
            many.extend_from_slice(b"$1\r\nk\r\n$500\r\n");
            many.extend_from_slice(&[b'v'; 500]);
            many.extend_from_slice(b"\r\n");
        }
        let mut scan = Scan::default();
        assert_eq!(scan.is_whole(&many, &limits), Ok(false));
        let expected = scan.expected_bytes(&many);
        assert!((22_000..28_000).contains(&expected), "{expected}");
    }

    #[test]
    fn a_request_in_pieces_is_whole_at_its_last_byte() {
        let whole = b"*4\r\n$3\r\nSET\r\n%1\r\n:1\r\n*2\r\n,1.5\r\n_\r\n$0\r\n\r\n=8\r\ndec:1.10\r\n";
        let mut scan = Scan::default();
        for end in 0..whole.len() {
            assert_eq!(scan.is_whole(&whole[..end], &LIMITS), Ok(end == 0), "{end}");
        }
        assert_eq!(scan.is_whole(whole, &LIMITS), Ok(true));
        assert!(Scan::default().is_whole(b"*1\r\n$2000\r\n", &LIMITS).is_err());
        assert!(Scan::default().is_whole(b"*2147483647\r\n", &LIMITS).is_err());
    }
}
