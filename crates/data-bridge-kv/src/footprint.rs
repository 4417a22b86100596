//! What a heap block costs: sizes are counted by the allocator's size class, not by the bytes asked for.
//!
//! The table and the collections account their memory with these numbers, so that a budget holds in RSS and
//! not only on paper. The classes are mimalloc's (16-byte steps up to 128, then four steps per doubling);
//! other allocators of that family differ by a few percent.

/// The bytes that a block of `len` bytes takes; 0 for none.
#[inline]
pub const fn block_bytes(len: usize) -> usize {
    if len <= 128 {
        if len > 8 { len.next_multiple_of(16) } else { len.next_multiple_of(8) }
    } else {
        // The two bits below the leading one choose among four classes per doubling.
        let step = 1usize << ((len - 1).ilog2() - 2);
        len.next_multiple_of(step)
    }
}

/// What an `Arc<T>` costs on the heap: `T` behind two counters.
pub const fn arc_bytes<T>() -> usize {
    block_bytes(size_of::<T>() + 2 * size_of::<usize>())
}

#[cfg(test)]
mod tests {
    use super::block_bytes;

    #[test]
    fn classes_are_those_of_the_allocator() {
        let expected = [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (34, 48),
            (64, 64),
            (126, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (257, 320),
            (2048, 2048),
            (2049, 2560),
            (4096, 4096),
        ];
        for (len, bytes) in expected {
            assert_eq!(block_bytes(len), bytes, "{len}");
        }
    }

    #[test]
    fn a_class_is_its_own_class() {
        for len in 0..10_000 {
            let class = block_bytes(len);
            assert!(class >= len);
            assert_eq!(block_bytes(class), class);
        }
    }
}
