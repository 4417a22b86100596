//! Keeps the memory of a vector whose elements borrow, from one batch to the next.

/// Elements whose memory is kept.
const KEPT: usize = 2048;

/// Empties the vector and gives its memory to elements of another lifetime: collecting a vector's own iterator
/// happens in place when the elements have the same size.
pub fn recycle<A, B>(mut used: Vec<A>) -> Vec<B> {
    used.clear();
    if used.capacity() > KEPT {
        used = Vec::new();
    }
    used.into_iter().map(|_| unreachable!("the vector is empty")).collect()
}

#[cfg(test)]
mod tests {
    use super::recycle;

    #[test]
    fn the_memory_stays() {
        let text = String::from("borrowed");
        let mut borrowed: Vec<&str> = Vec::with_capacity(100);
        borrowed.push(&text);
        let place = borrowed.as_ptr() as usize;
        let empty: Vec<&'static str> = recycle(borrowed);
        assert_eq!((empty.len(), empty.capacity(), empty.as_ptr() as usize), (0, 100, place));
    }
}
