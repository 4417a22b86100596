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
}

impl Default for Scan {
    fn default() -> Scan {
        Scan { at: 0, left: 1 }
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
        }
        Ok(true)
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
