//! Sizes and counts as people write them.

/// The largest buffer that can be asked for: 1 TiB.
const MAX_BYTES: usize = 1 << 40;

/// The default sizes: powers of 4 from 8 bytes to 128 MiB, and 256 MiB.
pub fn default_bytes() -> Vec<usize> {
    (0..=12).map(|power| 8usize << (2 * power)).chain([256 << 20]).collect()
}

/// `8`, `64K`, `1M`, `2GiB`: bytes in powers of 1024, of whole `f32` numbers.
pub fn parse(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let bytes = scaled(bare, 1024).filter(|&n| n <= MAX_BYTES).ok_or(
        "expected bytes with K, M or G (powers of 1024) after the number, up to 1024G, such as 64K",
    )?;
    if bytes == 0 || !bytes.is_multiple_of(size_of::<f32>()) {
        return Err("buffers hold f32 numbers of 4 bytes: expected a multiple of 4".to_owned());
    }
    Ok(bytes)
}

/// `34622`, `35k`, `20M`: a number of parameters in powers of 1000.
pub fn parse_count(text: &str) -> Result<usize, String> {
    let count = scaled(&text.trim().to_ascii_lowercase(), 1000);
    count.filter(|n| (1..=10_000_000_000).contains(n)).ok_or_else(|| {
        "expected a number of parameters with K or M (thousands, millions) after it, such as 20M"
            .to_owned()
    })
}

/// A whole number with `k`, `m` or `g` after it.
fn scaled(text: &str, base: usize) -> Option<usize> {
    let power = match text.chars().last()? {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        _ => 0,
    };
    let digits = if power == 0 { text } else { &text[..text.len() - 1] };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse::<usize>().ok()?.checked_mul(base.pow(power)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("8", 8), ("64K", 65_536), ("64k", 65_536), ("1M", 1 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse("4MB"), Ok(4 << 20));
        assert_eq!(parse_count("35k"), Ok(35_000));
        assert_eq!(parse_count("20037642"), Ok(20_037_642));
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "K", "64X", "-8", "1.5M", "0x10", "99999999999999999999", "2048G", "8 B8"]
        {
            assert!(parse(text).unwrap_err().contains("such as 64K"), "{text}");
        }
        for text in ["0", "6", "1023"] {
            assert!(parse(text).unwrap_err().contains("multiple of 4"), "{text}");
        }
        for text in ["0", "", "1.5M", "many"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_default_sizes_rise_from_8_bytes_to_256_mib() {
        let sizes = default_bytes();
        assert_eq!((sizes[0], sizes[sizes.len() - 1]), (8, 256 << 20));
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
