//! Random bytes and mutations of valid ones, from a seed.

use crate::random::Random;

/// A deterministic source of inputs: the same seed and corpus give the same inputs.
#[derive(Debug)]
pub struct Inputs {
    random: Random,
    corpus: Vec<Vec<u8>>,
}

/// Bytes that often stand at the edge of something: kinds, lengths, signs, special characters.
const EDGES: [u8; 16] = [0, 1, 2, 3, 7, 10, 17, 20, 21, 0x7f, 0x80, 0xe4, 0xe8, 0xff, b'*', b'-'];

impl Inputs {
    /// Inputs from a seed that mutate these valid ones.
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Inputs {
        Inputs { random: Random::new(seed), corpus }
    }

    /// Calls `body` with `count` inputs, a quarter of them random; answers how many it accepted.
    pub fn run(&mut self, count: usize, body: fn(&[u8]) -> bool) -> usize {
        (0..count).filter(|_| body(&self.input())).count()
    }

    fn input(&mut self) -> Vec<u8> {
        if self.corpus.is_empty() || self.below(4) == 0 {
            let length = self.below(64);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut bytes = self.seed();
        for _ in 0..=self.below(3) {
            self.mutate(&mut bytes);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len().saturating_add(1));
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, self.byte()),
            2 | 3 if at < bytes.len() => bytes[at] = self.byte(),
            4 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            5 if at < bytes.len() => drop(bytes.remove(at)),
            6 => {
                let end = at.saturating_add(self.below(12)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = self.seed();
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len().saturating_add(1))..]);
            }
        }
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        self.corpus[at].clone()
    }

    fn byte(&mut self) -> u8 {
        if self.random.one_in(2) { *self.random.pick(&EDGES) } else { self.random.bits() as u8 }
    }

    /// A number below `end`, 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        self.random.below(end.max(1))
    }
}
