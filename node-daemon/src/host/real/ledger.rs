//! The ledger: what is kept with the legs of a drive, on that drive.
//!
//! A partition of 4 MiB holds two copies. A change goes to one, is flushed, and then goes to the other: a power cut leaves
//! one of them whole, and a copy that rots later takes nothing back (an older epoch would be no fence). The valid copy with
//! the higher generation counts. If neither is valid, what the legs were told is lost, and that is an error and never an
//! empty ledger: a leg without an entry would be taken for a new one and zeroed.

use super::super::LedgerEntry;
use super::direct::Direct;
use std::collections::BTreeMap;
use std::io;
use uuid::Uuid;

/// Bytes of a ledger partition.
pub(super) const SIZE: u64 = 4 << 20;
const COPY: u64 = SIZE / 2;
const MAGIC: &[u8; 8] = b"MSHLEDG1";
const HEADER: usize = 24;
const BLOCK: usize = 4096;

/// One copy, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Ledger {
    /// Written when both copies were found damaged: a leg without an entry is then one whose entry is lost.
    #[serde(default)]
    pub lost: bool,
    /// By partition UUID.
    pub legs: BTreeMap<String, LedgerEntry>,
}

impl Ledger {
    /// The entry of a leg.
    pub fn get(&self, leg: Uuid) -> Option<&LedgerEntry> {
        self.legs.get(&leg.to_string())
    }
}

/// Bytes of a copy: magic, generation, length, checksum of all that, JSON; padded to whole blocks.
pub(super) fn encode(generation: u64, ledger: &Ledger) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(ledger)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    if (HEADER + body.len()) as u64 > COPY {
        return Err(io::Error::other("the ledger is full"));
    }
    let mut out = Vec::with_capacity((HEADER + body.len()).next_multiple_of(BLOCK));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(&out, &body).to_le_bytes());
    out.extend_from_slice(&body);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    Ok(out)
}

/// Generation and ledger of a copy that is whole.
pub(super) fn decode(bytes: &[u8]) -> Option<(u64, Ledger)> {
    let length = length(bytes)?;
    let body = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    let crc = u32::from_le_bytes(bytes.get(20..24)?.try_into().ok()?);
    if crc != checksum(bytes.get(..20)?, body) {
        return None;
    }
    let generation = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    Some((generation, serde_json::from_slice(body).ok()?))
}

fn length(bytes: &[u8]) -> Option<usize> {
    if bytes.get(..8)? != MAGIC {
        return None;
    }
    Some(u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?) as usize)
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn read_copy(disk: &Direct, at: u64) -> io::Result<Option<(u64, Ledger)>> {
    let first = disk.read(at, BLOCK)?;
    let Some(total) = length(&first).map(|l| l.saturating_add(HEADER).next_multiple_of(BLOCK)) else {
        return Ok(None);
    };
    match total {
        0..=BLOCK => Ok(decode(&first)),
        total if total as u64 <= COPY => Ok(decode(&disk.read(at, total)?)),
        _ => Ok(None),
    }
}

fn read_both(disk: &Direct, at: u64) -> io::Result<[Option<(u64, Ledger)>; 2]> {
    Ok([read_copy(disk, at)?, read_copy(disk, at + COPY)?])
}

/// The newest valid copy; none if both are damaged.
pub(super) fn read(disk: &Direct, at: u64) -> io::Result<Option<Ledger>> {
    let newest = read_both(disk, at)?.into_iter().flatten().max_by_key(|(generation, _)| *generation);
    Ok(newest.map(|(_, ledger)| ledger))
}

/// Changes the ledger; it is on the drive when this returns. The caller holds the drive's lock. A ledger whose copies
/// are both damaged starts anew, and says so of itself.
pub(super) fn update(disk: &Direct, at: u64, change: impl FnOnce(&mut Ledger)) -> io::Result<()> {
    let [a, b] = read_both(disk, at)?;
    let generation = |copy: &Option<(u64, Ledger)>| copy.as_ref().map(|(g, _)| *g);
    // `None < Some(_)`: a damaged copy is older than any other.
    let (first, second) = if generation(&a) < generation(&b) { (at, at + COPY) } else { (at + COPY, at) };
    let equal = generation(&a) == generation(&b);
    let newest = a.into_iter().chain(b).max_by_key(|(g, _)| *g);
    let (last, old) = match newest {
        Some((last, ledger)) => (last, ledger),
        None => (0, Ledger { lost: true, ..Ledger::default() }),
    };
    let mut new = old.clone();
    change(&mut new);
    if new == old && last != 0 && equal {
        return Ok(());
    }
    let bytes = encode(last + 1, &new)?;
    for copy in [first, second] {
        disk.write(copy, &bytes)?;
        disk.sync()?;
    }
    Ok(())
}

/// Writes two empty copies.
pub(super) fn initialise(disk: &Direct, at: u64) -> io::Result<()> {
    let empty = encode(1, &Ledger::default())?;
    disk.write(at, &empty)?;
    disk.write(at + COPY, &empty)?;
    disk.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Ledger> {
        let entry = (any::<i64>(), any::<i64>(), "[a-f0-9-]{0,36}", any::<bool>(), any::<bool>(), any::<i64>())
            .prop_map(|(epoch, spent_grant, spent_boot, blank, zeroed, local_epoch)| LedgerEntry {
                epoch,
                spent_grant,
                spent_boot,
                blank,
                zeroed,
                local_epoch,
            });
        let legs =
            proptest::collection::btree_map(any::<u128>().prop_map(|n| Uuid::from_u128(n).to_string()), entry, 0..40);
        (any::<bool>(), legs).prop_map(|(lost, legs)| Ledger { lost, legs })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(generation in any::<u64>(), ledger in entries()) {
            let bytes = encode(generation, &ledger).unwrap();
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            prop_assert_eq!(decode(&bytes), Some((generation, ledger)));
        }

        #[test]
        fn a_torn_copy_is_never_valid(old in entries(), new in entries(), cut in any::<prop::sample::Index>()) {
            // I1, I5: a power cut in the middle of a write; what remains is the old copy, the new one, or none.
            let (old, new) = (encode(4, &old).unwrap(), encode(6, &new).unwrap());
            let cut = cut.index(new.len() / 512) * 512;
            let mut torn = old.clone();
            torn.resize(old.len().max(new.len()), 0);
            torn[..cut].copy_from_slice(&new[..cut]);
            if let Some(read) = decode(&torn) {
                prop_assert!(Some(&read) == decode(&old).as_ref() || Some(&read) == decode(&new).as_ref());
            }
        }

        #[test]
        fn garbage_is_never_valid(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
