//! GUID partition tables as bytes. Pure.
//!
//! Not the `gpt` crate: its writer packs the used entries together, so that deleting one partition renumbers the others
//! (which may be in use, and are known to the kernel by number), and it writes both copies interleaved, so that a crash
//! can damage both. Here every entry stays where and as it is, byte for byte.

use std::ops::Range;
use uuid::{Uuid, uuid};

/// Partition type of a leg.
pub(super) const LEG_TYPE: Uuid = uuid!("aa599589-36cc-4892-96fe-e70004a710b3");
/// Partition type of a ledger.
pub(super) const LEDGER_TYPE: Uuid = uuid!("327db7af-d22b-4b3a-a0f1-e7ac85441d3c");

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
const MIB: u64 = 1 << 20;
/// More than any tool makes; a bound for what is read on the word of a header.
const MOST_ENTRY_BYTES: u64 = 1 << 20;

/// A header that is whole by its own checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The sector that it lies in.
    pub lba: u64,
    /// The sector of the other copy.
    pub alternate: u64,
    /// First sector that a partition may use.
    pub first_usable: u64,
    /// Last sector that a partition may use.
    pub last_usable: u64,
    /// Identity of the disk.
    pub disk: Uuid,
    /// First sector of its entries.
    pub entries_lba: u64,
    /// Number of entries.
    pub count: u32,
    /// Bytes of each.
    pub entry_size: u32,
    /// Checksum of the entries.
    pub entries_crc: u32,
}

impl Header {
    /// Reads the header in sector `lba`, if one is there and whole.
    pub fn decode(sector: &[u8], lba: u64) -> Option<Header> {
        if sector.get(..8)? != SIGNATURE {
            return None;
        }
        let size = u32_at(sector, 12)? as usize;
        if !(HEADER..=sector.len()).contains(&size) {
            return None;
        }
        let mut copy = sector.get(..size)?.to_vec();
        copy.get_mut(16..20)?.fill(0);
        if crc32fast::hash(&copy) != u32_at(sector, 16)? {
            return None;
        }
        let header = Header {
            lba: u64_at(sector, 24)?,
            alternate: u64_at(sector, 32)?,
            first_usable: u64_at(sector, 40)?,
            last_usable: u64_at(sector, 48)?,
            disk: uuid_at(sector, 56)?,
            entries_lba: u64_at(sector, 72)?,
            count: u32_at(sector, 80)?,
            entry_size: u32_at(sector, 84)?,
            entries_crc: u32_at(sector, 88)?,
        };
        let bytes = u64::from(header.count) * u64::from(header.entry_size);
        let sane = header.lba == lba
            && header.first_usable <= header.last_usable
            && header.entry_size as usize >= ENTRY
            && header.entry_size.is_multiple_of(8)
            && (1..=MOST_ENTRY_BYTES).contains(&bytes);
        sane.then_some(header)
    }

    /// The bytes of the sector.
    pub fn encode(&self, sector: usize) -> Vec<u8> {
        let mut out = vec![0u8; sector];
        out[..8].copy_from_slice(SIGNATURE);
        put(&mut out, 8, &0x0001_0000u32.to_le_bytes());
        put(&mut out, 12, &(HEADER as u32).to_le_bytes());
        put(&mut out, 24, &self.lba.to_le_bytes());
        put(&mut out, 32, &self.alternate.to_le_bytes());
        put(&mut out, 40, &self.first_usable.to_le_bytes());
        put(&mut out, 48, &self.last_usable.to_le_bytes());
        put(&mut out, 56, &self.disk.to_bytes_le());
        put(&mut out, 72, &self.entries_lba.to_le_bytes());
        put(&mut out, 80, &self.count.to_le_bytes());
        put(&mut out, 84, &self.entry_size.to_le_bytes());
        put(&mut out, 88, &self.entries_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..HEADER]);
        put(&mut out, 16, &crc.to_le_bytes());
        out
    }

    /// Bytes of all entries.
    pub fn entry_bytes(&self) -> usize {
        self.count as usize * self.entry_size as usize
    }
}

/// One used entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Partition type.
    pub kind: Uuid,
    /// Partition UUID.
    pub uuid: Uuid,
    /// First sector.
    pub first: u64,
    /// Last sector, inclusive.
    pub last: u64,
    /// Label, at most 36 UTF-16 units.
    pub name: String,
}

impl Entry {
    /// Sectors of it.
    pub fn sectors(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Bytes of a sector.
    pub sector: u64,
    /// The copy at the start of the disk.
    pub primary: Header,
    /// The copy at its end.
    pub backup: Header,
    raw: Vec<u8>,
}

impl Table {
    /// An empty table for a disk of `size` bytes; none if the disk is too small to be of use.
    pub fn blank(size: u64, sector: u64, disk: Uuid) -> Option<Table> {
        let sectors = size.checked_div(sector)?;
        let raw = vec![0u8; ENTRY * ENTRIES];
        let table = (raw.len() as u64).div_ceil(sector);
        if size < 16 * MIB {
            return None;
        }
        let primary = Header {
            lba: 1,
            alternate: sectors - 1,
            first_usable: 2 + table,
            last_usable: sectors - 2 - table,
            disk,
            entries_lba: 2,
            count: ENTRIES as u32,
            entry_size: ENTRY as u32,
            entries_crc: crc32fast::hash(&raw),
        };
        let backup = mirror(&primary, sector);
        Some(Table { sector, primary, backup, raw })
    }

    /// Puts a table together from one header that is whole, the other if it is, and the entries of the first.
    pub fn assemble(sector: u64, header: &Header, other: Option<&Header>, raw: Vec<u8>) -> Option<Table> {
        if raw.len() != header.entry_bytes() || crc32fast::hash(&raw) != header.entries_crc {
            return None;
        }
        let twin = match other {
            // The other copy keeps its own place, whatever the tool was that put it there.
            Some(other) => {
                Header { lba: other.lba, alternate: other.alternate, entries_lba: other.entries_lba, ..header.clone() }
            }
            None => mirror(header, sector),
        };
        let (primary, backup) = match header.lba == 1 {
            true => (header.clone(), twin),
            false => (twin, header.clone()),
        };
        Some(Table { sector, primary, backup, raw })
    }

    /// The entries as they go to the disk.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Used entries with their partition numbers, from 1.
    pub fn entries(&self) -> impl Iterator<Item = (u32, Entry)> + '_ {
        self.raw
            .chunks_exact(self.primary.entry_size as usize)
            .zip(1u32..)
            .filter_map(|(bytes, number)| Some((number, decode_entry(bytes)?)))
    }

    /// Why the entries cannot all be true: one that is outside of the disk's usable part, ends before it begins, or shares
    /// sectors or its UUID with another.
    pub fn nonsense(&self) -> Option<String> {
        let all: Vec<(u32, Entry)> = self.entries().collect();
        let usable = self.primary.first_usable..=self.primary.last_usable;
        all.iter().enumerate().find_map(|(i, (number, e))| {
            if e.first > e.last || !usable.contains(&e.first) || !usable.contains(&e.last) {
                return Some(format!("partition {number} lies from sector {} to {}", e.first, e.last));
            }
            let before = all.iter().take(i).find(|(_, o)| o.uuid == e.uuid || (o.first <= e.last && e.first <= o.last));
            before.map(|(other, _)| format!("partitions {other} and {number} overlap or have one UUID"))
        })
    }

    /// The entry with this partition UUID.
    pub fn find(&self, uuid: Uuid) -> Option<(u32, Entry)> {
        self.entries().find(|(_, e)| e.uuid == uuid)
    }

    /// Puts an entry into the first unused place and answers with its number; none if there is no place.
    pub fn add(&mut self, entry: &Entry) -> Option<u32> {
        let size = self.primary.entry_size as usize;
        let index = self.raw.chunks_exact(size).position(|b| decode_entry(b).is_none())?;
        let place = self.raw.get_mut(index * size..(index + 1) * size)?;
        encode_entry(entry, place);
        self.seal();
        Some(index as u32 + 1)
    }

    /// Empties the entry with this number.
    pub fn remove(&mut self, number: u32) {
        let size = self.primary.entry_size as usize;
        let start = (number as usize).saturating_sub(1) * size;
        if let Some(place) = self.raw.get_mut(start..start + size) {
            place.fill(0);
        }
        self.seal();
    }

    /// Free bytes between the partitions, ends aligned to a MiB inwards, in the order of the disk.
    pub fn free(&self) -> Vec<Range<u64>> {
        let mut used: Vec<(u64, u64)> = self.entries().map(|(_, e)| (e.first, e.last)).collect();
        used.sort_unstable();
        used.push((self.primary.last_usable.saturating_add(1), u64::MAX));
        let mut free = vec![];
        let mut at = self.primary.first_usable;
        for (first, last) in used {
            let gap = at.saturating_mul(self.sector).div_ceil(MIB)..first.saturating_mul(self.sector) / MIB;
            if gap.start < gap.end {
                free.push(gap.start * MIB..gap.end * MIB);
            }
            at = at.max(last.saturating_add(1));
        }
        free
    }

    fn seal(&mut self) {
        let crc = crc32fast::hash(&self.raw);
        self.primary.entries_crc = crc;
        self.backup.entries_crc = crc;
    }
}

/// The protective MBR that makes the kernel look for a GPT.
pub(super) fn protective_mbr(size: u64, sector: u64) -> Vec<u8> {
    let mut out = vec![0u8; sector as usize];
    let sectors = u32::try_from(size / sector - 1).unwrap_or(u32::MAX);
    put(&mut out, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    put(&mut out, 454, &1u32.to_le_bytes());
    put(&mut out, 458, &sectors.to_le_bytes());
    put(&mut out, 510, &[0x55, 0xaa]);
    out
}

fn mirror(header: &Header, sector: u64) -> Header {
    let table = (header.entry_bytes() as u64).div_ceil(sector);
    let entries_lba = match header.lba == 1 {
        true => header.alternate.saturating_sub(table),
        false => 2,
    };
    Header { lba: header.alternate, alternate: header.lba, entries_lba, ..header.clone() }
}

fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let kind = uuid_at(bytes, 0).filter(|k| !k.is_nil())?;
    let units: Vec<u16> = bytes
        .get(56..ENTRY)?
        .chunks_exact(2)
        .map(|c| u16::from_le_bytes([c[0], c[1]]))
        .take_while(|u| *u != 0)
        .collect();
    Some(Entry {
        kind,
        uuid: uuid_at(bytes, 16)?,
        first: u64_at(bytes, 32)?,
        last: u64_at(bytes, 40)?,
        name: String::from_utf16_lossy(&units),
    })
}

fn encode_entry(entry: &Entry, place: &mut [u8]) {
    place.fill(0);
    put(place, 0, &entry.kind.to_bytes_le());
    put(place, 16, &entry.uuid.to_bytes_le());
    put(place, 32, &entry.first.to_le_bytes());
    put(place, 40, &entry.last.to_le_bytes());
    for (i, unit) in entry.name.encode_utf16().take(36).enumerate() {
        put(place, 56 + 2 * i, &unit.to_le_bytes());
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn uuid_at(bytes: &[u8], at: usize) -> Option<Uuid> {
    Some(Uuid::from_bytes_le(bytes.get(at..at + 16)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "gpt_tests.rs"]
mod tests;
