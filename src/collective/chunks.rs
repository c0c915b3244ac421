//! How a buffer is divided into one chunk per rank. Pure arithmetic.

use std::ops::Range;

/// Chunk `i` of `len` elements in `n` chunks; the first `len % n` chunks are one element longer.
#[must_use]
pub fn chunk(len: usize, n: usize, i: usize) -> Range<usize> {
    let (each, more) = (len / n, len % n);
    let start = i * each + i.min(more);
    start..start + each + usize::from(i < more)
}

/// Two different chunks of one buffer at once: the first to read, the second to write.
///
/// # Panics
/// When the ranges overlap or leave the buffer.
pub fn pair<T>(data: &mut [T], read: Range<usize>, write: Range<usize>) -> (&[T], &mut [T]) {
    if read.end <= write.start {
        let (low, high) = data.split_at_mut(write.start);
        (&low[read], &mut high[..write.len()])
    } else {
        assert!(write.end <= read.start, "chunks {read:?} and {write:?} overlap");
        let (low, high) = data.split_at_mut(read.start);
        (&high[..read.len()], &mut low[write])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_cover_the_buffer_in_order_and_differ_by_one_element_at_most(
            len in 0usize..5000, n in 1usize..40,
        ) {
            let chunks: Vec<_> = (0..n).map(|i| chunk(len, n, i)).collect();
            prop_assert_eq!(chunks[0].start, 0);
            prop_assert_eq!(chunks[n - 1].end, len);
            prop_assert!(chunks.windows(2).all(|w| w[0].end == w[1].start));
            let longest = chunks.iter().map(|c| c.len()).max();
            let shortest = chunks.iter().map(|c| c.len()).min();
            prop_assert!(longest.unwrap() - shortest.unwrap() <= 1);
        }
    }

    #[test]
    fn a_pair_of_chunks_can_be_read_and_written_in_either_order() {
        let mut data = [0, 1, 2, 3, 4];
        let (read, write) = pair(&mut data, 0..2, 3..5);
        assert_eq!((read, write), (&[0, 1][..], &mut [3, 4][..]));
        let (read, write) = pair(&mut data, 3..5, 0..3);
        assert_eq!((read, write), (&[3, 4][..], &mut [0, 1, 2][..]));
        let (read, write) = pair(&mut data, 2..2, 2..4);
        assert_eq!((read.len(), write.len()), (0, 2));
    }
}
