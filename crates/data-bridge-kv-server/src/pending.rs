//! An answer that is written in pieces, as the client takes them: its items are held once, and not once more as text.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use data_bridge_kv_model::ReplyReader;
use data_bridge_kv_model::reply::content_of;

use crate::resp::encode::{Encoder, Form, REPORT, Skin, Walk, head};

/// Of content that is one piece of the answer, so much is written at a time.
const PIECE_BYTES: usize = 128 << 10;

/// An answer that is not written to its end.
#[derive(Debug)]
pub struct Pending {
    items: Vec<u8>,
    /// How much of them was written.
    done: usize,
    how: How,
}

#[derive(Debug)]
enum How {
    /// The content in `items` up to here is a bulk string, whose head was written.
    Content(usize),
    Items(Walk, Skin, Form),
}

impl Pending {
    /// Begins an answer: `items` is exactly one item with everything inside it.
    pub fn begin(items: Vec<u8>, skin: Skin, form: Form, out: &mut Vec<u8>) -> Pending {
        let content = content_of(&items).filter(|_| !skin.typed && form & REPORT == 0).map(<[u8]>::len);
        let Some(length) = content else {
            return Pending { items, done: 0, how: How::Items(Walk::over(1), skin, form) };
        };
        head(b'$', length, out);
        let (done, end) = (items.len().saturating_sub(length), items.len());
        Pending { items, done, how: How::Content(end) }
    }

    /// Goes on until `out` is longer than `room`; answers whether the answer came to its end.
    pub fn go_on(&mut self, encoder: &mut Encoder, room: usize, out: &mut Vec<u8>) -> bool {
        let is_done = match &mut self.how {
            How::Content(end) => {
                while self.done < *end && out.len() <= room {
                    let next = self.done.saturating_add(PIECE_BYTES).min(*end);
                    out.extend_from_slice(self.items.get(self.done..next).unwrap_or_default());
                    self.done = next;
                }
                let is_done = self.done == *end;
                if is_done {
                    out.extend_from_slice(b"\r\n");
                }
                is_done
            }
            How::Items(walk, skin, form) => {
                let mut reader = ReplyReader::new(self.items.get(self.done..).unwrap_or_default());
                let is_done = encoder.go_on(walk, &mut reader, (*skin, *form), room, out);
                self.done = self.items.len().saturating_sub(reader.rest().len());
                is_done
            }
        };
        self.forget_written();
        is_done
    }

    /// Gives back the memory of what was written. Moving the rest costs no more than writing that did.
    fn forget_written(&mut self) {
        let rest = self.items.len().saturating_sub(self.done);
        if self.done > 4 * PIECE_BYTES && self.done >= rest {
            self.items.drain(..self.done);
            self.items.shrink_to_fit();
            self.done = 0;
            if let How::Content(end) = &mut self.how {
                *end = rest;
            }
        }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use data_bridge_kv_model::{ReplyBuf, Shape, ValueRef};

    use super::*;
    use crate::resp::encode::{FLAT, PLAIN, SCORES};

    /// All pieces of an answer, each of which is about `room` bytes.
    fn pieces(items: &[u8], skin: Skin, form: Form, room: usize) -> Vec<Vec<u8>> {
        let (mut encoder, mut out, mut pieces) = (Encoder::default(), Vec::new(), Vec::new());
        let mut pending = Pending::begin(items.to_vec(), skin, form, &mut out);
        while !pending.go_on(&mut encoder, room, &mut out) {
            assert!(!out.is_empty());
            pieces.push(std::mem::take(&mut out));
        }
        pieces.push(out);
        pieces
    }

    fn answers() -> Vec<ReplyBuf> {
        let mut nested = ReplyBuf::new();
        nested.container(Shape::Array, 3);
        nested.container(Shape::Scored, 500);
        for number in 0..500 {
            nested.value(ValueRef::text("member"));
            nested.float(f64::from(number));
        }
        nested.missing();
        nested.container(Shape::Map, 2);
        for _ in 0..4 {
            nested.value(ValueRef::bytes(&[b'v'; 300]));
        }
        let (mut content, mut empty) = (ReplyBuf::new(), ReplyBuf::new());
        let long: Vec<u8> = (0..3 << 20).map(|byte: u32| (byte % 251) as u8).collect();
        content.value(ValueRef::bytes(&long));
        empty.container(Shape::Array, 0);
        vec![nested, content, empty]
    }

    #[test]
    fn pieces_make_up_the_whole_answer() {
        let mut count = 0;
        for answer in answers() {
            for (resp3, typed) in [(false, false), (true, false), (true, true)] {
                for form in [PLAIN, SCORES, FLAT, REPORT] {
                    let skin = Skin { resp3, typed };
                    let mut whole = Vec::new();
                    Encoder::default().reply(answer.as_bytes(), skin, form, &mut whole);
                    for room in [0, 100, 4096, 1 << 20, 8 << 20] {
                        let pieces = pieces(answer.as_bytes(), skin, form, room);
                        count += pieces.len();
                        assert!(pieces.concat() == whole, "{skin:?} {form} {room}");
                    }
                }
            }
        }
        assert!(count > 1000, "{count} pieces");
    }

    #[test]
    fn what_was_written_takes_no_memory() {
        let answer = answers().remove(1);
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        let mut pending = Pending::begin(answer.as_bytes().to_vec(), Skin::default(), PLAIN, &mut out);
        let before = pending.bytes();
        while !pending.go_on(&mut encoder, before / 4 * 3, &mut out) {
            assert!(pending.bytes() < before / 2 && pending.items.capacity() < before / 2);
            out.clear();
        }
    }
}
