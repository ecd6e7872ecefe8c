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

proptest! {
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
