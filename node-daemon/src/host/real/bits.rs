//! The classic write-intent bitmap as it lies on a member, as bytes. Pure. Layout: `drivers/md/md-bitmap.h`, `bitmap_super_t`.

use meshstor_crds::Bitmap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use uuid::Uuid;

const MAGIC: u32 = 0x6d74_6962;
/// `BITMAP_MAJOR_HI`: bits in little-endian order, one copy, not the lockless kind.
const VERSION: u32 = 4;
/// `BITMAP_STALE`, `BITMAP_WRITE_ERROR`: the bits say nothing.
const DOUBTFUL: u32 = 1 << 1 | 1 << 2;
/// Bytes before the first bit.
pub(super) const HEADER: usize = 256;
/// More than a bitmap of ours can have: what says so is garbage.
const MOST: u64 = 1 << 26;
/// A write to an attribute is cut off at a page; a range has at most 21 characters.
const PIECE: usize = 4000;

/// What a bitmap's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// UUID of its array.
    pub uuid: Uuid,
    /// Bytes that a bit stands for.
    pub chunk: u64,
    /// Number of bits.
    pub bits: u64,
}

/// Reads the header; none where it is not one of a classic bitmap whose bits can be believed.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let state = u32_at(bytes, 48)?;
    if u32_at(bytes, 0)? != MAGIC || u32_at(bytes, 4)? != VERSION || state & DOUBTFUL != 0 {
        return None;
    }
    let (sectors, chunk) = (u64_at(bytes, 40)?, u64::from(u32_at(bytes, 52)?));
    let bits = sectors.div_ceil(Some(chunk / 512).filter(|c| *c > 0 && chunk.is_power_of_two())?);
    let uuid = Uuid::from_bytes(bytes.get(8..24)?.try_into().ok()?);
    (bits > 0 && bits <= MOST).then_some(Header { uuid, chunk, bits })
}

/// Which kind of bitmap a header is of; none where it is not known. Lockless: `drivers/md/md-llbitmap.c`, `BITMAP_MAJOR_LOCKLESS`.
pub(super) fn kind(bytes: &[u8]) -> Option<Bitmap> {
    match (u32_at(bytes, 0)?, u32_at(bytes, 4)?) {
        (MAGIC, 3 | VERSION) => Some(Bitmap::Internal),
        (MAGIC, 6) => Some(Bitmap::Lockless),
        _ => None,
    }
}

impl Header {
    /// Bytes of the whole bitmap, with its header, in whole 4 KiB.
    pub fn bytes(&self) -> usize {
        (HEADER + usize::try_from(self.bits.div_ceil(8)).unwrap_or(0)).next_multiple_of(4096)
    }
}

/// Numbers of the chunks whose bits are set; none where the bytes end before the bits do.
pub(super) fn set(header: &Header, bytes: &[u8]) -> Option<BTreeSet<u64>> {
    let bits = bytes.get(HEADER..HEADER + usize::try_from(header.bits.div_ceil(8)).ok()?)?;
    let numbered = (0u64..).zip(bits).filter(|(_, byte)| **byte != 0);
    let of = |(at, byte): (u64, &u8)| {
        let byte = *byte;
        (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
    };
    Some(numbered.flat_map(of).filter(|chunk| *chunk < header.bits).collect())
}

/// What is to be written to `md/bitmap_set_bits` to set these: ranges of chunks, in pieces that the kernel takes whole.
pub(super) fn pieces(chunks: &BTreeSet<u64>) -> Vec<String> {
    let mut ranges: Vec<(u64, u64)> = vec![];
    for chunk in chunks {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *chunk => *last = *chunk,
            _ => ranges.push((*chunk, *chunk)),
        }
    }
    let mut pieces: Vec<String> = vec![];
    for (first, last) in ranges {
        if pieces.last().is_none_or(|p| p.len() > PIECE) {
            pieces.push(String::new());
        }
        let Some(piece) = pieces.last_mut() else { continue };
        // Writing to a string does not fail.
        let _ = if first == last { write!(piece, "{first} ") } else { write!(piece, "{first}-{last} ") };
    }
    pieces
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(header: &Header, chunks: &BTreeSet<u64>) -> Vec<u8> {
        let mut out = vec![0u8; header.bytes()];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..24].copy_from_slice(header.uuid.as_bytes());
        out[40..48].copy_from_slice(&(header.bits * header.chunk / 512).to_le_bytes());
        out[52..56].copy_from_slice(&u32::try_from(header.chunk).unwrap().to_le_bytes());
        for chunk in chunks {
            out[HEADER + usize::try_from(chunk / 8).unwrap()] |= 1 << (chunk % 8);
        }
        out
    }

    proptest! {
        /// I6: no bit of a leg's own bitmap is overlooked, whatever is set.
        #[test]
        fn what_is_set_is_read(bits in 1u64..70_000, some in proptest::collection::btree_set(any::<u64>(), 0..300)) {
            let wanted = Header { uuid: Uuid::from_u128(3), chunk: 1 << 20, bits };
            let chunks: BTreeSet<u64> = some.into_iter().map(|c| c % bits).collect();
            let bytes = encode(&wanted, &chunks);
            prop_assert_eq!(header(&bytes), Some(wanted.clone()));
            prop_assert_eq!(set(&wanted, &bytes), Some(chunks));
            prop_assert_eq!(set(&wanted, &bytes[..HEADER]), None);
        }

        /// I6: nor in what the kernel is told; it reads each write to its end, and none is longer than a page.
        #[test]
        fn what_is_told_is_what_is_set(chunks in proptest::collection::btree_set(0u64..1 << 26, 0..2_000)) {
            let pieces = pieces(&chunks);
            let mut told = BTreeSet::new();
            for piece in &pieces {
                prop_assert!(piece.len() < 4096);
                for range in piece.split_whitespace() {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    told.extend(first.parse::<u64>().unwrap()..=last.parse().unwrap());
                }
            }
            prop_assert_eq!(told, chunks);
        }

        #[test]
        fn garbage_is_never_a_bitmap(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!((header(&bytes), kind(&bytes)), (None, None));
        }

        #[test]
        fn a_half_written_header_is_no_panic(at in 0usize..72, byte in any::<u8>()) {
            let whole = Header { uuid: Uuid::from_u128(3), chunk: 1 << 20, bits: 100 };
            let mut bytes = encode(&whole, &BTreeSet::from([7]));
            bytes[at] = byte;
            if let Some(found) = header(&bytes) {
                let _ = (found.bytes(), set(&found, &bytes));
            }
        }
    }

    #[test]
    fn bits_that_the_kernel_does_not_believe_are_not_believed() {
        let whole = Header { uuid: Uuid::from_u128(3), chunk: 1 << 20, bits: 100 };
        for (at, byte) in [(48, 2), (48, 4), (4, 3), (4, 5), (4, 6), (52, 1)] {
            let mut bytes = encode(&whole, &BTreeSet::new());
            bytes[at] = byte;
            assert_eq!(header(&bytes), None, "{at} {byte}");
        }
    }
}
