//! The 32 bytes in front of every node and value run.
//!
//! ```text
//! offset size field
//!      0    4 CRC-32 of the bytes from 4 to the end of what is summed
//!      4    4 family
//!      8    4 page number within the family
//!     12    4 length in bytes: of a node with this header, of a value run without it
//!     16    8 generation: number of the merge that wrote it
//!     24    1 kind
//!     25    1 level: 0 for leaves and values
//!     26    1 features that whoever reads the page must know
//!     27    1 features that whoever rewrites the page must know
//!     28    4 length in pages
//! ```
//!
//! The sum ends where node or value end; from there to the end of the last page all bytes are zero. A feature
//! may put more fields behind the header, or give fields of it another meaning: the checksum, the length, the
//! two masks and the length in pages stay what they are. What whoever rewrites pages must know the superblock
//! says as well, so that nobody else opens the database for writing.

use crate::codec::checksum::crc32;
use crate::codec::features::{Features, unknown};
use crate::codec::ids::{FamilyId, PageId};
use crate::error::{Error, Result};

const CHECKSUM: usize = 0;
const FAMILY: usize = CHECKSUM + 4;
const PAGE: usize = FAMILY + 4;
const LENGTH: usize = PAGE + 4;
const GENERATION: usize = LENGTH + 4;
const KIND: usize = GENERATION + 8;
const LEVEL: usize = KIND + 1;
const READ_FEATURES: usize = LEVEL + 1;
const WRITE_FEATURES: usize = READ_FEATURES + 1;
const PAGES: usize = WRITE_FEATURES + 1;

/// Bytes of the header; what it heads starts here.
pub(crate) const HEADER_LEN: usize = PAGES + 4;
const _: () = assert!(HEADER_LEN == 32);

/// What a page or run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PageKind {
    /// Keys and their values.
    Leaf = 1,
    /// Separators and children.
    Inner = 2,
    /// One large value.
    Value = 3,
}

impl PageKind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Leaf),
            2 => Some(Self::Inner),
            3 => Some(Self::Value),
            _ => None,
        }
    }
}

/// What refers to a node or value run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PagePointer {
    /// Its first page.
    pub(crate) page: PageId,
    /// Its length in pages, at least 1.
    pub(crate) pages: u32,
    /// The checksum in its header.
    pub(crate) checksum: u32,
}

/// A header's fields, the checksum aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) family: FamilyId,
    pub(crate) page: PageId,
    pub(crate) pages: u32,
    pub(crate) kind: PageKind,
    pub(crate) level: u8,
    pub(crate) generation: u64,
    /// Of a node: its bytes with this header. Of a value run: the bytes of the value.
    pub(crate) length: u32,
}

/// Where what is summed ends, for a length field that says `length`.
fn end_of_content(kind: PageKind, length: u32) -> u64 {
    match kind {
        PageKind::Value => HEADER_LEN as u64 + u64::from(length),
        PageKind::Leaf | PageKind::Inner => u64::from(length),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The checksum that the header of `bytes` states.
#[inline]
pub(crate) fn stated_checksum(bytes: &[u8]) -> u32 {
    u32_at(bytes, CHECKSUM)
}

/// A page of the system, or a part of one.
const SYSTEM_PAGE: usize = 4096;

/// Zeroes `bytes`. Writes only where not all is zero already: a frame that was never used is, and where it is
/// only read the system gives it no memory. A family of few entries takes half of its one page so.
fn clear(bytes: &mut [u8]) {
    // To the end of the system's page at once: that one holds what stands in front, too.
    let ahead = bytes.as_ptr().addr().wrapping_neg() % SYSTEM_PAGE;
    let (begun, whole) = bytes.split_at_mut(ahead.min(bytes.len()));
    begun.fill(0);
    for page in whole.chunks_mut(SYSTEM_PAGE) {
        if page.chunks(64).any(|line| line.iter().fold(0, |all, &byte| all | byte) != 0) {
            page.fill(0);
        }
    }
}

/// Writes the header in front of `bytes` (whole pages), zeroes what lies behind the content, and returns the
/// checksum.
///
/// Panics if the content does not fit.
pub(crate) fn seal(bytes: &mut [u8], header: &PageHeader) -> u32 {
    let end = end_of_content(header.kind, header.length);
    assert!(
        (HEADER_LEN as u64..=bytes.len() as u64).contains(&end),
        "content ends at {end} of {} bytes",
        bytes.len()
    );
    let end = end as usize;
    bytes[FAMILY..PAGE].copy_from_slice(&header.family.0.to_le_bytes());
    bytes[PAGE..LENGTH].copy_from_slice(&header.page.0.to_le_bytes());
    bytes[LENGTH..GENERATION].copy_from_slice(&header.length.to_le_bytes());
    bytes[GENERATION..KIND].copy_from_slice(&header.generation.to_le_bytes());
    bytes[KIND] = header.kind as u8;
    bytes[LEVEL] = header.level;
    bytes[READ_FEATURES..PAGES].fill(0);
    bytes[PAGES..HEADER_LEN].copy_from_slice(&header.pages.to_le_bytes());
    clear(&mut bytes[end..]);
    let checksum = crc32(&[&bytes[FAMILY..end]]);
    bytes[CHECKSUM..FAMILY].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// Proves that `bytes` (all pages that `pointer` names, as they came from disk) are what `pointer` of
/// `family` refers to. The error names family and page, not the offset in the file; `NewerFormat` if the page
/// needs features, or is of a kind, that are not known here.
pub(crate) fn verify(bytes: &[u8], family: FamilyId, pointer: PagePointer) -> Result<PageHeader> {
    examine(bytes, family, pointer).map_err(|error| error.of_family(family.0).on_page(pointer.page.0))
}

fn examine(bytes: &[u8], family: FamilyId, pointer: PagePointer) -> Result<PageHeader> {
    assert!(bytes.len() > HEADER_LEN, "{} bytes are no page", bytes.len());
    let stated = stated_checksum(bytes);
    let wrong = |message: String| Err(Error::corruption(message));
    let kind = PageKind::from_byte(bytes[KIND]);
    let length = u32_at(bytes, LENGTH);
    let end = end_of_content(kind.unwrap_or(PageKind::Leaf), length);
    if !(HEADER_LEN as u64..=bytes.len() as u64).contains(&end) {
        return wrong(format!("the header says that the content ends at byte {end} of {}", bytes.len()));
    }
    let computed = crc32(&[&bytes[FAMILY..end as usize]]);
    if computed != stated {
        return wrong(format!(
            "the checksum of the bytes is {computed:#010x}, the header says {stated:#010x}"
        ));
    }
    let features = Features { read: bytes[READ_FEATURES].into(), write: bytes[WRITE_FEATURES].into() };
    features.check_reading("the page")?;
    let Some(kind) = kind else {
        return Err(unknown(format_args!("the page is of kind {}", bytes[KIND])));
    };
    let header = PageHeader {
        family: FamilyId(u32_at(bytes, FAMILY)),
        page: PageId(u32_at(bytes, PAGE)),
        pages: u32_at(bytes, PAGES),
        kind,
        level: bytes[LEVEL],
        generation: u64::from_le_bytes(bytes[GENERATION..KIND].try_into().expect("eight bytes")),
        length,
    };
    if header.family != family {
        return wrong(format!("the page belongs to family {}", header.family));
    }
    if header.page != pointer.page {
        return wrong(format!("the bytes are those of page {}", header.page));
    }
    if header.pages != pointer.pages {
        return wrong(format!("the pointer names {} pages, the header {}", pointer.pages, header.pages));
    }
    if stated != pointer.checksum {
        return wrong(format!(
            "an older or foreign page stands here: its checksum is {stated:#010x}, the pointer says {:#010x}",
            pointer.checksum
        ));
    }
    if (header.level == 0) != (kind != PageKind::Inner) {
        return wrong(format!("a page of kind {kind:?} cannot have level {}", header.level));
    }
    if bytes[end as usize..].iter().any(|&byte| byte != 0) {
        return wrong("bytes behind the content are not zero".into());
    }
    Ok(header)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PAGE_SIZE: usize = 4096;

    fn sealed(kind: PageKind, length: u32, pages: u32) -> (Vec<u8>, PageHeader, PagePointer) {
        let mut bytes: Vec<u8> = (0..PAGE_SIZE * pages as usize).map(|i| i as u8 | 1).collect();
        let level = u8::from(kind == PageKind::Inner);
        let (family, page) = (FamilyId(7), PageId(11));
        let header = PageHeader { family, page, pages, kind, level, generation: 13, length };
        let checksum = seal(&mut bytes, &header);
        (bytes, header, PagePointer { page, pages, checksum })
    }

    #[test]
    fn what_lies_behind_the_content_is_cleared_wherever_it_begins() {
        let whole = vec![0xa5u8; 5 * SYSTEM_PAGE];
        for (from, len) in
            [(0, 0), (1, 0), (0, SYSTEM_PAGE), (77, 3 * SYSTEM_PAGE), (SYSTEM_PAGE - 1, 2), (5, 9)]
        {
            for zeros_before in [0, SYSTEM_PAGE, 2 * SYSTEM_PAGE + 1] {
                let mut bytes = whole.clone();
                bytes[from..][..zeros_before].fill(0);
                let mut expected = bytes.clone();
                expected[from..][..len].fill(0);
                clear(&mut bytes[from..][..len]);
                assert!(bytes == expected, "{len} bytes from {from}");
            }
        }
    }

    #[test]
    fn what_was_sealed_is_verified_and_comes_back() {
        for (kind, length, pages) in [
            (PageKind::Leaf, 32, 1),
            (PageKind::Leaf, 4096, 1),
            (PageKind::Inner, 1000, 1),
            (PageKind::Inner, 5000, 2),
            (PageKind::Value, 0, 1),
            (PageKind::Value, 4096 * 3 - 32, 3),
        ] {
            let (bytes, header, pointer) = sealed(kind, length, pages);
            assert_eq!(verify(&bytes, FamilyId(7), pointer).unwrap(), header);
            let end = end_of_content(kind, length) as usize;
            assert!(bytes[end..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for kind in [PageKind::Leaf, PageKind::Inner, PageKind::Value] {
            let (mut bytes, _, pointer) = sealed(kind, 200, 1);
            let step = if cfg!(miri) { 97 } else { 1 };
            for bit in (0..600 * 8).step_by(step) {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let error = verify(&bytes, FamilyId(7), pointer).unwrap_err();
                assert_eq!(error.kind(), crate::error::ErrorKind::Corruption);
                assert_eq!((error.location().family, error.location().page), (Some(7), Some(11)));
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_valid_page_of_another_place_or_time_is_refused() {
        let (bytes, header, pointer) = sealed(PageKind::Leaf, 200, 1);
        assert!(verify(&bytes, FamilyId(8), pointer).is_err());
        assert!(verify(&bytes, FamilyId(7), PagePointer { page: PageId(12), ..pointer }).is_err());
        let mut older = bytes.clone();
        seal(&mut older, &PageHeader { generation: 12, ..header });
        assert!(verify(&older, FamilyId(7), pointer).is_err());
    }

    #[test]
    fn a_page_of_a_kind_that_nobody_here_knows_is_refused_by_name() {
        let (mut bytes, _, pointer) = sealed(PageKind::Leaf, 200, 1);
        for kind in [0, 4, 255] {
            bytes[KIND] = kind;
            let checksum = crc32(&[&bytes[FAMILY..200]]);
            assert_eq!(
                verify(&bytes, FamilyId(7), pointer).unwrap_err().kind(),
                crate::error::ErrorKind::Corruption
            );
            bytes[CHECKSUM..FAMILY].copy_from_slice(&checksum.to_le_bytes());
            let error = verify(&bytes, FamilyId(7), PagePointer { checksum, ..pointer }).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::NewerFormat);
            assert!(error.to_string().contains(&format!("kind {kind}")), "{error}");
        }
    }

    #[test]
    fn a_page_with_features_that_nobody_here_knows_is_refused_by_name() {
        let (mut bytes, _, pointer) = sealed(PageKind::Leaf, 200, 1);
        for (at, is_read) in [(READ_FEATURES, false), (WRITE_FEATURES, true)] {
            bytes[READ_FEATURES..PAGES].fill(0);
            bytes[at] = 0x80;
            let checksum = crc32(&[&bytes[FAMILY..200]]);
            bytes[CHECKSUM..FAMILY].copy_from_slice(&checksum.to_le_bytes());
            let verified = verify(&bytes, FamilyId(7), PagePointer { checksum, ..pointer });
            match verified {
                Ok(_) => assert!(is_read),
                Err(error) => {
                    assert_eq!((is_read, error.kind()), (false, crate::error::ErrorKind::NewerFormat));
                    assert!(error.to_string().contains("0x80"), "{error}");
                }
            }
        }
    }

    #[test]
    fn well_summed_nonsense_is_refused() {
        let (mut bytes, header, pointer) = sealed(PageKind::Leaf, 200, 1);
        for nonsense in [
            PageHeader { level: 1, ..header },
            PageHeader { pages: 2, ..header },
            PageHeader { kind: PageKind::Inner, ..header },
        ] {
            let checksum = seal(&mut bytes, &nonsense);
            assert!(verify(&bytes, FamilyId(7), PagePointer { checksum, ..pointer }).is_err());
        }
    }
}
