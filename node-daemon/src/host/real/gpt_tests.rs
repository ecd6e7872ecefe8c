use super::*;
use proptest::prelude::*;

const SIZE: u64 = 1 << 30;

fn leg(first: u64, last: u64, n: u128) -> Entry {
    Entry { kind: LEG_TYPE, uuid: Uuid::from_u128(n), first, last, name: format!("leg-{n}") }
}

fn reread(table: &Table) -> Option<Table> {
    let header = Header::decode(&table.primary.encode(table.sector as usize), 1)?;
    let backup = Header::decode(&table.backup.encode(table.sector as usize), table.backup.lba)?;
    Table::assemble(table.sector, &header, Some(&backup), table.raw().to_vec())
}

#[test]
fn removing_a_partition_renumbers_no_other() {
    // I8: what is not ours stays as it was; the kernel knows partitions by number.
    let mut table = Table::blank(SIZE, 512, Uuid::from_u128(7)).unwrap();
    for n in 1..=3 {
        table.add(&leg(n * 2048, n * 2048 + 2047, u128::from(n))).unwrap();
    }
    table.remove(2);
    let numbers: Vec<_> = table.entries().map(|(n, e)| (n, e.uuid.as_u128())).collect();
    assert_eq!(numbers, [(1, 1), (3, 3)]);
    assert_eq!(table.add(&leg(4096, 6143, 9)), Some(2));
}

#[test]
fn a_table_is_whole_from_its_backup_alone() {
    // I5: a crash while the primary copy is written leaves the backup, which was written before.
    let mut table = Table::blank(SIZE, 4096, Uuid::from_u128(7)).unwrap();
    table.add(&leg(256, 511, 1)).unwrap();
    let backup = Header::decode(&table.backup.encode(4096), table.backup.lba).unwrap();
    let from_backup = Table::assemble(4096, &backup, None, table.raw().to_vec()).unwrap();
    assert_eq!(from_backup, table);
}

#[test]
fn free_space_of_a_blank_disk_is_aligned() {
    let table = Table::blank(SIZE, 512, Uuid::nil()).unwrap();
    assert_eq!(table.free(), std::slice::from_ref(&(MIB..SIZE - MIB)));
}

#[test]
fn entries_that_cannot_be_true_are_not_counted_with() {
    // I2: two legs on the same sectors would be two volumes that write over each other.
    let table = |entries: &[Entry]| {
        let mut table = Table::blank(SIZE, 512, Uuid::from_u128(7)).unwrap();
        entries.iter().for_each(|e| assert!(table.add(e).is_some()));
        table
    };
    assert_eq!(table(&[leg(2048, 4095, 1), leg(4096, 6143, 2)]).nonsense(), None);
    for bad in [leg(6143, 4096, 2), leg(0, 10, 2), leg(4096, u64::MAX, 2), leg(4095, 5000, 2), leg(9000, 9999, 1)] {
        let table = table(&[leg(2048, 4095, 1), bad]);
        assert!(table.nonsense().is_some());
        let _ = table.free();
    }
}

proptest! {
    /// Whatever the bytes of the entries are, nothing that is done with them before they are judged panics.
    #[test]
    fn any_entries_are_read(seed in proptest::collection::vec(any::<u8>(), ENTRY), at in 0usize..ENTRIES) {
        let blank = Table::blank(SIZE, 512, Uuid::from_u128(3)).unwrap();
        let mut raw = blank.raw().to_vec();
        raw[at * ENTRY..(at + 1) * ENTRY].copy_from_slice(&seed);
        let header = Header { entries_crc: crc32fast::hash(&raw), ..blank.primary.clone() };
        let table = Table::assemble(512, &header, None, raw).unwrap();
        prop_assert!(table.nonsense().is_some() || table.entries().all(|(_, e)| e.first <= e.last && e.last < SIZE / 512));
        let _ = (table.free(), table.find(Uuid::nil()));
    }

    /// The same of a header that some tool wrote and sealed.
    #[test]
    fn any_header_is_read(fields in proptest::array::uniform5(any::<u64>()), count in any::<u32>(), size in any::<u32>()) {
        let [alternate, first_usable, last_usable, entries_lba, _] = fields;
        let blank = Table::blank(SIZE, 512, Uuid::from_u128(3)).unwrap().primary;
        let odd = Header { alternate, first_usable, last_usable, entries_lba, count, entry_size: size, ..blank };
        if let Some(header) = Header::decode(&odd.encode(512), 1) {
            prop_assert!(header.entry_bytes() as u64 <= MOST_ENTRY_BYTES && header.first_usable <= header.last_usable);
            let raw = vec![0u8; header.entry_bytes()];
            let sealed = Header { entries_crc: crc32fast::hash(&raw), ..header };
            let _ = Table::assemble(512, &sealed, None, raw).map(|t| (t.free(), t.nonsense()));
        }
    }

    #[test]
    fn what_is_written_is_read(spans in proptest::collection::vec((1u64..500, 1u64..500), 0..20), big in any::<bool>()) {
        let sector = if big { 4096 } else { 512 };
        let mut table = Table::blank(SIZE, sector, Uuid::from_u128(3)).unwrap();
        for (n, (first, len)) in spans.iter().enumerate() {
            table.add(&leg(first * MIB / sector, (first + len) * MIB / sector - 1, n as u128)).unwrap();
        }
        prop_assert_eq!(reread(&table), Some(table.clone()));
        for free in table.free() {
            prop_assert!(free.start % MIB == 0 && free.end % MIB == 0 && free.start < free.end && free.end < SIZE);
            for (_, e) in table.entries() {
                prop_assert!(free.end <= e.first * sector || free.start > e.last * sector);
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_seen(byte in 0usize..92, bit in 0u8..8) {
        let mut bytes = Table::blank(SIZE, 512, Uuid::from_u128(3)).unwrap().primary.encode(512);
        bytes[byte] ^= 1 << bit;
        prop_assert_eq!(Header::decode(&bytes, 1), None);
    }

    #[test]
    fn garbage_is_never_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(Header::decode(&bytes, 1), None);
    }
}
