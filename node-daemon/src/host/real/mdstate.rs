//! What the files of `/sys/block/mdN/md` say. Pure.

use super::super::{MemberFacts, SyncFacts};
use meshstor_crds::Bitmap;

/// Whether an `array_state` means that the array serves I/O.
pub(super) fn is_running(array_state: &str) -> bool {
    matches!(array_state, "clean" | "active" | "active-idle" | "write-pending" | "read-auto" | "readonly")
}

/// A member from its kernel name and the files `state`, `slot` and, where the kernel has it, `latency_ewma_ns`.
pub(super) fn member(name: &str, state: &str, slot: Option<&str>, latency: Option<u64>) -> MemberFacts {
    let flag = |wanted: &str| state.split(',').any(|f| f.trim() == wanted);
    MemberFacts {
        name: name.to_owned(),
        slot: slot.and_then(|s| s.trim().parse().ok()),
        in_sync: flag("in_sync"),
        faulty: flag("faulty"),
        write_mostly: flag("write_mostly"),
        latency_ewma_ns: latency,
    }
}

/// `sync_action`, `sync_completed` (`done / total`, `none` or `delayed`) and `sync_speed`.
pub(super) fn sync(action: &str, completed: Option<&str>, speed_kib: Option<u64>) -> Option<SyncFacts> {
    if matches!(action, "idle" | "frozen" | "") {
        return None;
    }
    let (done, total) = completed
        .and_then(|text| text.split_once('/'))
        .and_then(|(done, total)| Some((done.trim().parse().ok()?, total.trim().parse().ok()?)))
        .unwrap_or((0, 0));
    Some(SyncFacts { action: action.to_owned(), done, total, speed_kib: speed_kib.unwrap_or(0) })
}

/// Slots of each mirror set, from the files `level` and `layout` and the number of slots: neighbouring ones, so a layout
/// with far copies has none, nor one whose sets the slots do not divide into.
pub(super) fn set_slots(level: &str, layout: Option<u32>, slots: u32) -> Option<u32> {
    match level {
        "raid1" => Some(slots),
        // Bits 0 to 7 are the near copies, 8 to 15 the far copies (drivers/md/raid10.c, setup_geo).
        "raid10" => layout.filter(|l| l >> 8 == 1).map(|l| l & 0xff).filter(|n| *n > 0 && slots.is_multiple_of(*n)),
        _ => None,
    }
}

/// From the files `bitmap_type` (the chosen word in brackets; Linux 6.18) and `bitmap/location` (all kernels).
pub(super) fn bitmap(kind: Option<&str>, location: Option<&str>) -> Option<Bitmap> {
    let chosen = kind.and_then(|words| words.split_whitespace().find_map(|w| w.strip_prefix('[')?.strip_suffix(']')));
    match (chosen, location) {
        (Some("llbitmap"), _) => Some(Bitmap::Lockless),
        (_, None | Some("none")) => Some(Bitmap::None),
        (Some("bitmap") | None, Some(_)) => Some(Bitmap::Internal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_and_their_flags() {
        let remote = member("nvme0n1", "in_sync,write_mostly", Some("1"), None);
        assert!(remote.in_sync && remote.write_mostly && !remote.faulty);
        assert_eq!(remote.slot, Some(1));
        let failed = member("nvme0n1", "faulty,write_mostly", Some("none"), None);
        assert!(failed.faulty && !failed.in_sync && failed.slot.is_none());
        // `want_replacement` and `in_sync_x` are no `in_sync`.
        assert!(!member("a", "spare,want_replacement", None, None).in_sync);
    }

    #[test]
    fn mirror_sets_are_of_neighbouring_slots_only() {
        assert_eq!(set_slots("raid1", Some(0), 3), Some(3));
        assert_eq!(set_slots("raid10", Some(0x102), 4), Some(2));
        assert_eq!(set_slots("raid10", Some(0x103), 6), Some(3));
        // Far 2, offset 2, three disks of near 2, no layout, another level.
        for (level, layout) in
            [("raid10", Some(0x201)), ("raid10", Some(0x10201)), ("raid10", None), ("raid5", Some(2))]
        {
            assert_eq!(set_slots(level, layout, 4), None, "{level} {layout:?}");
        }
        assert_eq!(set_slots("raid10", Some(0x102), 3), None);
    }

    #[test]
    fn bitmaps_as_kernels_old_and_new_say_them() {
        assert_eq!(bitmap(Some("none bitmap [llbitmap]"), Some("+8")), Some(Bitmap::Lockless));
        assert_eq!(bitmap(Some("none [bitmap] llbitmap"), Some("+8")), Some(Bitmap::Internal));
        assert_eq!(bitmap(None, Some("+8")), Some(Bitmap::Internal));
        assert_eq!(bitmap(Some("none [bitmap] llbitmap"), Some("none")), Some(Bitmap::None));
        assert_eq!(bitmap(Some("[none] bitmap"), None), Some(Bitmap::None));
        assert_eq!(bitmap(Some("[clustered]"), Some("+8")), None);
    }

    proptest! {
        #[test]
        fn progress(done in any::<u64>(), total in any::<u64>(), speed in any::<u64>()) {
            let facts = sync("recover", Some(&format!("{done} / {total}")), Some(speed)).unwrap();
            prop_assert_eq!((facts.done, facts.total, facts.speed_kib), (done, total, speed));
        }

        #[test]
        fn any_text_is_read(a in "[a-z_,]{0,20}", b in ".{0,20}") {
            let _ = (is_running(&a), member("x", &a, Some(&b), None), sync(&a, Some(&b), None));
        }
    }
}
