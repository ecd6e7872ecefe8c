//! The MD superblock, version 1.2, as bytes. Pure. Layout: `include/uapi/linux/raid/md_p.h`, `mdp_superblock_1`.

use super::super::SuperLeg;
use meshstor_crds::Bitmap;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Where version 1.2 keeps it.
pub(super) const OFFSET: u64 = 4096;
/// Most that it can take (`max_dev` is bounded by this).
pub(super) const BYTES: usize = 4096;

const MAGIC: u32 = 0xa92b_4efc;
const FIXED: usize = 256;
const CHECKSUM: usize = 0xd8;
const LOGICAL_BLOCK_SIZE: usize = 0xe0;
/// `MD_FEATURE_BITMAP_OFFSET`.
const FEATURE_BITMAP: u32 = 1;
/// `MD_FEATURE_RECOVERY_OFFSET`, `_RECOVERY_BITMAP`: the device is being filled. One with `_REPLACEMENT` alone has everything: MD has
/// failed the member whose place it takes, and writes may be on this one alone.
const FILLING: u32 = 1 << 1 | 1 << 7;
/// `bblog_shift`, `bblog_size` and `bblog_offset` lie in these bytes; an offset other than zero switches the log on (7.3, `super_1_load`).
const BAD_BLOCK_LOG: std::ops::Range<usize> = 185..192;
/// `MD_FEATURE_BAD_BLOCKS`: there are blocks in the log.
const FEATURE_BAD_BLOCKS: u32 = 8;
/// Numbers from here on are no slots (`MD_DISK_ROLE_MAX`).
const ROLES: u16 = 0xff00;

/// What we read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Array UUID, in the order of bytes in which `md/uuid` prints it.
    pub uuid: Uuid,
    /// `homehost:name`.
    pub name: String,
    /// Event counter.
    pub events: u64,
    /// Slots.
    pub raid_disks: u32,
}

/// Reads the 4 KiB at [`OFFSET`]; none where there are only zeros, as there are on a leg that never was of an array.
///
/// # Errors
/// What is there is neither zeros nor a whole superblock.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Superblock>, &'static str> {
    if bytes.len() < BYTES {
        return Err("a superblock of which a part is missing");
    }
    match bytes.iter().all(|b| *b == 0) {
        true => Ok(None),
        false => whole(bytes).map(Some).ok_or("neither zeros nor a whole MD superblock of version 1.2"),
    }
}

fn whole(bytes: &[u8]) -> Option<Superblock> {
    if u32_at(bytes, 0)? != MAGIC || u32_at(bytes, 4)? != 1 {
        return None;
    }
    if checksum(bytes)? != u32_at(bytes, CHECKSUM)? {
        return None;
    }
    let name = bytes.get(32..64)?.split(|b| *b == 0).next()?;
    Some(Superblock {
        uuid: Uuid::from_bytes(bytes.get(16..32)?.try_into().ok()?),
        name: String::from_utf8_lossy(name).into_owned(),
        events: u64_at(bytes, 200)?,
        raid_disks: u32_at(bytes, 92)?,
    })
}

/// The slot that the device has in its array; none for a spare, a failed one, or bytes that are no superblock.
pub(super) fn slot(bytes: &[u8]) -> Option<u32> {
    whole(bytes)?;
    let (number, most) = (u32_at(bytes, 160)?, u32_at(bytes, 220)?);
    let at = FIXED + 2 * usize::try_from(number).ok().filter(|_| number < most)?;
    let role = u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
    (role < ROLES).then_some(u32::from(role))
}

/// Everything that a member says of itself; of the bitmap whether there is one, for its kind is in its own header. None of bytes
/// that are no superblock.
pub(super) fn member(bytes: &[u8]) -> Option<SuperLeg> {
    let sb = whole(bytes)?;
    let (features, level, layout) = (u32_at(bytes, 8)?, u32_at(bytes, 72)?, u32_at(bytes, 76)?);
    let most = usize::try_from(u32_at(bytes, 220)?).ok()?;
    let roles = bytes.get(FIXED..FIXED + 2 * most)?.chunks_exact(2).map(|r| u16::from_le_bytes([r[0], r[1]]));
    let mut roles: Vec<Option<u32>> = roles.map(|role| (role < ROLES).then_some(u32::from(role))).collect();
    let active: BTreeSet<u32> = roles.iter().copied().flatten().collect();
    roles.truncate(roles.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
    let level = i32::from_le_bytes(level.to_le_bytes());
    Some(SuperLeg {
        uuid: sb.uuid,
        name: sb.name,
        level,
        slots: sb.raid_disks,
        near_copies: (level == 10 && layout >> 8 == 1).then_some(layout & 0xff),
        slot: slot(bytes),
        active_slots: active.into_iter().collect(),
        number: u32_at(bytes, 160)?,
        roles,
        rebuilding: features & FILLING != 0,
        events: sb.events,
        component: u64_at(bytes, 80)?.saturating_mul(512),
        // `MaxSector`: nothing is to be synchronised.
        clean: u64_at(bytes, 208)? == u64::MAX,
        bitmap: (features & FEATURE_BITMAP == 0).then_some(Bitmap::None),
    })
}

/// Where on the device its bitmap begins, in bytes; none without one behind the superblock.
pub(super) fn bitmap_at(bytes: &[u8]) -> Option<u64> {
    whole(bytes)?;
    let offset = u64::from(u32_at(bytes, 96)?);
    (u32_at(bytes, 8)? & FEATURE_BITMAP != 0 && i32::try_from(offset).is_ok() && offset > 0)
        .then_some(OFFSET + offset * 512)
}

/// The log in which MD notes blocks that a member could not write, instead of failing the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadBlockLog {
    /// There is none: a member that cannot write fails.
    Off,
    /// There is room for one, and nothing in it.
    Empty,
    /// Blocks are noted: the member is called in sync and does not hold every write.
    Used,
}

/// Its log; none for bytes that are no superblock.
pub(super) fn bad_block_log(bytes: &[u8]) -> Option<BadBlockLog> {
    whole(bytes)?;
    Some(match u32_at(bytes, 8)? & FEATURE_BAD_BLOCKS != 0 {
        true => BadBlockLog::Used,
        false if u32_at(bytes, BAD_BLOCK_LOG.end - 4)? == 0 => BadBlockLog::Off,
        false => BadBlockLog::Empty,
    })
}

/// The same superblock without a log that is empty; none for any other.
pub(super) fn without_bad_block_log(bytes: &[u8]) -> Option<Vec<u8>> {
    if bad_block_log(bytes)? != BadBlockLog::Empty {
        return None;
    }
    let mut out = bytes.to_vec();
    out.get_mut(BAD_BLOCK_LOG)?.fill(0);
    sealed(out)
}

/// With its checksum.
fn sealed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let sum = checksum(&bytes)?;
    bytes.get_mut(CHECKSUM..CHECKSUM + 4)?.copy_from_slice(&sum.to_le_bytes());
    Some(bytes)
}

/// The same superblock without its `logical_block_size`, which kernels have from 6.19 on and older ones refuse for a
/// feature that they do not know; none where there is no superblock that is whole.
pub(super) fn portable(bytes: &[u8]) -> Option<Vec<u8>> {
    whole(bytes)?;
    let mut out = bytes.to_vec();
    out.get_mut(LOGICAL_BLOCK_SIZE..LOGICAL_BLOCK_SIZE + 4)?.fill(0);
    sealed(out)
}

/// `calc_sb_1_csum` of the kernel.
fn checksum(bytes: &[u8]) -> Option<u32> {
    let size = FIXED + 2 * u32_at(bytes, 220)? as usize;
    let mut covered = bytes.get(..size)?.to_vec();
    covered.get_mut(CHECKSUM..CHECKSUM + 4)?.fill(0);
    let words = covered.chunks_exact(4);
    let tail = words.remainder();
    let mut sum: u64 = words.map(|w| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]]))).sum();
    if let [a, b] = tail {
        sum += u64::from(u16::from_le_bytes([*a, *b]));
    }
    Some(((sum & 0xffff_ffff) + (sum >> 32)) as u32)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(sb: &Superblock, max_dev: u32) -> Vec<u8> {
        let mut out = vec![0u8; BYTES];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&1u32.to_le_bytes());
        out[16..32].copy_from_slice(sb.uuid.as_bytes());
        out[32..32 + sb.name.len()].copy_from_slice(sb.name.as_bytes());
        out[92..96].copy_from_slice(&sb.raid_disks.to_le_bytes());
        out[200..208].copy_from_slice(&sb.events.to_le_bytes());
        out[220..224].copy_from_slice(&max_dev.to_le_bytes());
        let sum = checksum(&out).unwrap();
        out[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// One that is whole.
    pub(in super::super) fn some() -> Vec<u8> {
        encode(&Superblock { uuid: Uuid::from_u128(7), name: "meshstor:a".into(), events: 9, raid_disks: 2 }, 128)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(uuid in any::<u128>(), name in "[a-z:-]{0,32}", events in any::<u64>(), raid_disks in any::<u32>(), max_dev in 0u32..384) {
            let sb = Superblock { uuid: Uuid::from_u128(uuid), name, events, raid_disks };
            prop_assert_eq!(decode(&encode(&sb, max_dev)), Ok(Some(sb)));
        }

        #[test]
        /// I6: what was a superblock is never "no superblock", which would be taken for blank.
        fn a_flipped_bit_is_seen(byte in 0usize..256, bit in 0u8..8, cut in 0usize..BYTES) {
            let sb = Superblock { uuid: Uuid::from_u128(1), name: "meshstor:a".into(), events: 9, raid_disks: 2 };
            let mut bytes = encode(&sb, 128);
            prop_assert!(decode(&bytes[..cut]).is_err());
            bytes[byte] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn a_portable_one_differs_in_one_field(name in "[a-z:-]{0,32}", sector in any::<u32>()) {
            let sb = Superblock { uuid: Uuid::from_u128(7), name, events: 9, raid_disks: 2 };
            let plain = encode(&sb, 128);
            let mut with = plain.clone();
            with[LOGICAL_BLOCK_SIZE..LOGICAL_BLOCK_SIZE + 4].copy_from_slice(&sector.to_le_bytes());
            let sum = checksum(&with).unwrap();
            with[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
            prop_assert_eq!(decode(&with), Ok(Some(sb)));
            prop_assert_eq!(portable(&with), Some(plain));
        }

        #[test]
        /// I1: only a log that is empty is taken away; what is noted there is missing from the member.
        fn a_log_without_blocks_is_taken_away(log in any::<[u8; 7]>(), used in any::<bool>()) {
            let sb = Superblock { uuid: Uuid::from_u128(7), name: "meshstor:a".into(), events: 9, raid_disks: 2 };
            let mut with = encode(&sb, 128);
            with[BAD_BLOCK_LOG].copy_from_slice(&log);
            with[8] = if used { 8 } else { 0 };
            let with = sealed(with).unwrap();
            let on = log[3..] != [0; 4];
            let found = if used { BadBlockLog::Used } else if on { BadBlockLog::Empty } else { BadBlockLog::Off };
            prop_assert_eq!(bad_block_log(&with), Some(found));
            prop_assert_eq!(without_bad_block_log(&with), (!used && on).then(|| encode(&sb, 128)));
        }

        #[test]
        fn garbage_is_never_a_superblock_nor_none(bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
            prop_assert!(decode(&bytes).is_err());
            let blank = bytes.iter().all(|b| *b == 0);
            let mut padded = bytes;
            padded.resize(BYTES, 0);
            let found = decode(&padded);
            prop_assert_eq!(found.is_ok(), blank);
            prop_assert_eq!((slot(&padded), bitmap_at(&padded), member(&padded)), (None, None, None));
        }

        /// I6: a member that was being filled says so, and one that was failed has no slot, whatever the rest says.
        #[test]
        fn what_a_member_says_of_itself(features in 0u32..8192, level in any::<i32>(), layout in 0u32..0x400, size in 0u64..1 << 40,
                                        resync in prop_oneof![Just(u64::MAX), any::<u64>()], own in 0u32..4,
                                        roles in proptest::collection::vec(prop_oneof![0u16..4, Just(0xfffe), Just(0xffff)], 4)) {
            let sb = Superblock { uuid: Uuid::from_u128(7), name: "meshstor:a".into(), events: 9, raid_disks: 4 };
            let mut bytes = encode(&sb, 4);
            for (at, number) in [(8, features), (76, layout), (160, own)] {
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            bytes[72..76].copy_from_slice(&level.to_le_bytes());
            bytes[80..88].copy_from_slice(&size.to_le_bytes());
            bytes[208..216].copy_from_slice(&resync.to_le_bytes());
            for (n, role) in roles.iter().enumerate() {
                bytes[FIXED + 2 * n..FIXED + 2 * n + 2].copy_from_slice(&role.to_le_bytes());
            }
            prop_assert_eq!(member(&bytes), None, "its checksum is of another");
            let sum = checksum(&bytes).unwrap();
            bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
            let found = member(&bytes).unwrap();
            let role = roles[own as usize];
            prop_assert_eq!(found.slot, (role < 4).then_some(u32::from(role)));
            prop_assert_eq!(found.rebuilding, features & 0b1000_0010 != 0);
            prop_assert_eq!((found.level, found.slots, found.events, found.component), (level, 4, 9, size * 512));
            prop_assert_eq!(found.near_copies, (level == 10 && layout & 0x300 == 0x100).then_some(layout & 0xff));
            prop_assert_eq!((found.clean, found.bitmap), (resync == u64::MAX, (features & 1 == 0).then_some(Bitmap::None)));
            prop_assert_eq!(found.number, own);
            for (n, role) in roles.iter().enumerate() {
                prop_assert_eq!(found.roles.get(n).copied().flatten(), (*role < 4).then_some(u32::from(*role)));
            }
            let active: BTreeSet<u32> = roles.iter().filter(|r| **r < 4).map(|r| u32::from(*r)).collect();
            prop_assert_eq!(found.active_slots, active.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn slot_and_bitmap(number in 0u32..200, role in any::<u16>(), offset in any::<i32>(), features in 0u32..4) {
            let sb = Superblock { uuid: Uuid::from_u128(7), name: "meshstor:a".into(), events: 9, raid_disks: 2 };
            let mut bytes = encode(&sb, 128);
            bytes[8..12].copy_from_slice(&features.to_le_bytes());
            bytes[96..100].copy_from_slice(&offset.to_le_bytes());
            bytes[160..164].copy_from_slice(&number.to_le_bytes());
            let at = FIXED + 2 * number as usize;
            bytes[at..at + 2].copy_from_slice(&role.to_le_bytes());
            let sum = checksum(&bytes).unwrap();
            bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
            prop_assert_eq!(slot(&bytes), (number < 128 && role < 0xff00).then_some(u32::from(role)));
            let there = features & 1 == 1 && offset > 0;
            prop_assert_eq!(bitmap_at(&bytes), there.then(|| 4096 + u64::try_from(offset).unwrap() * 512));
        }
    }
}
