//! The checksum of pages, superblocks, catalogs and log records: CRC-32 (IEEE 802.3).
//!
//! What it must catch: torn writes, single and burst bit errors, and a page or record that belongs elsewhere.
//! A CRC catches every burst of up to 32 bits and, at the sizes of a page, every error of up to three bits,
//! which a hash of the same width does not; what belongs elsewhere is caught because identity is part of what
//! is summed. Carry-less multiplication makes it as cheap as reading the bytes.

/// CRC-32 of the concatenation of `parts`.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// CRC-32 of what has the sum `sum`, with `bytes` behind it.
pub(crate) fn crc32_on(sum: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(sum);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_as_their_concatenation() {
        assert_eq!(crc32(&[b"123456789"]), 0xcbf4_3926);
        assert_eq!(crc32(&[b"1234", b"", b"56789"]), 0xcbf4_3926);
        assert_eq!(crc32_on(crc32(&[b"1234"]), b"56789"), 0xcbf4_3926);
    }
}
