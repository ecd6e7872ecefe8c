//! What the files of `/sys/block/mdN/md` say. Pure: each text is understood whole, or the answer is none.

use super::super::{FailureGate, MemberFacts, SyncFacts};
use super::sysfs::digits;
use meshstor_crds::Bitmap;

/// What `array_state` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArrayState {
    /// There is nothing: no members, no size.
    Clear,
    /// It does not serve I/O.
    Stopped,
    /// It serves I/O.
    Running,
}

/// The words of `drivers/md/md.c`, `array_states`.
pub(super) fn array_state(text: &str) -> Option<ArrayState> {
    match text {
        "clear" => Some(ArrayState::Clear),
        "inactive" | "suspended" | "broken" => Some(ArrayState::Stopped),
        "clean" | "active" | "active-idle" | "write-pending" | "read-auto" | "readonly" => Some(ArrayState::Running),
        _ => None,
    }
}

/// Flags of a member (`state_show`). A flag that is not known could mean anything.
const FLAGS: [&str; 11] = [
    "faulty",
    "in_sync",
    "journal",
    "write_mostly",
    "blocked",
    "spare",
    "write_error",
    "want_replacement",
    "replacement",
    "external_bbl",
    "failfast",
];

/// The flags in `state` of a member: known ones, and among them what the member is, which the kernel always says.
pub(super) fn flags(state: &str) -> Option<Vec<&str>> {
    let flags: Vec<&str> = state.split(',').collect();
    let says = |flag: &&str| matches!(*flag, "faulty" | "in_sync" | "journal" | "spare");
    (flags.iter().all(|f| FLAGS.contains(f)) && flags.iter().any(says)).then_some(flags)
}

/// `slot` of a member: none for what has no slot. Roles of version 1 metadata end at `0xff00`.
pub(super) fn slot(text: &str) -> Option<Option<u32>> {
    match text {
        "none" | "journal" => Some(None),
        number => digits(number).filter(|n| *n < 0xff00).map(Some),
    }
}

/// A member from its kernel name, its flags, its slot and, where the kernel has it, `latency_ewma_ns`.
pub(super) fn member(name: &str, flags: &[&str], slot: Option<u32>, latency: Option<u64>) -> MemberFacts {
    MemberFacts {
        name: name.to_owned(),
        slot,
        in_sync: flags.contains(&"in_sync"),
        faulty: flags.contains(&"faulty"),
        write_mostly: flags.contains(&"write_mostly"),
        replacement: flags.contains(&"replacement"),
        latency_ewma_ns: latency,
    }
}

/// A number that a reshape changes: `4`, or `4 (2)` while one runs.
pub(super) fn reshaped(text: &str) -> Option<u32> {
    match text.split_once(' ') {
        None => digits(text),
        Some((now, before)) => {
            digits::<u32>(before.strip_prefix('(')?.strip_suffix(')')?)?;
            digits(now)
        }
    }
}

/// `latency_balance`, of a kernel with MeshStor's patches: none for a level that it does not go for.
pub(super) fn balance(text: &str) -> Option<Option<bool>> {
    match text {
        "n/a" => Some(None),
        "0" => Some(Some(false)),
        "1" => Some(Some(true)),
        _ => None,
    }
}

/// `failure_gate`, of a kernel with MeshStor's patches: none for an array that cannot have it. Who is waited for is not in this file.
pub(super) fn gate(text: &str) -> Option<Option<FailureGate>> {
    match text {
        "n/a" => Some(None),
        "off" => Some(Some(FailureGate::Off)),
        "on" => Some(Some(FailureGate::On)),
        "holding" => Some(Some(FailureGate::Holding(vec![]))),
        "refused" => Some(Some(FailureGate::Refused)),
        _ => None,
    }
}

/// Words of `sync_action`, and whether something is synchronised.
pub(super) fn action(text: &str) -> Option<bool> {
    match text {
        "idle" | "frozen" => Some(false),
        "resync" | "recover" | "check" | "repair" | "reshape" => Some(true),
        _ => None,
    }
}

/// `sync_completed`: sectors done and in all; zeros while nothing is known (`none`, `delayed`).
pub(super) fn completed(text: &str) -> Option<(u64, u64)> {
    match text {
        "none" | "delayed" => Some((0, 0)),
        _ => {
            let (done, total) = text.split_once(" / ")?;
            Some((digits(done)?, digits(total)?))
        }
    }
}

/// `sync_speed` in KiB/s.
pub(super) fn speed(text: &str) -> Option<u64> {
    if text == "none" { Some(0) } else { digits(text) }
}

/// What is synchronised, from what the three files say; none when nothing is.
pub(super) fn sync(action_text: &str, (done, total): (u64, u64), speed_kib: u64) -> Option<SyncFacts> {
    let running = action(action_text)?;
    running.then(|| SyncFacts { action: action_text.to_owned(), done, total, speed_kib })
}

/// `level`: a word of the kernel's; empty where no array was set up.
pub(super) fn level(text: &str) -> Option<String> {
    const LEVELS: [&str; 10] =
        ["", "linear", "raid0", "raid1", "raid4", "raid5", "raid6", "raid10", "multipath", "faulty"];
    LEVELS.contains(&text).then(|| text.to_owned())
}

/// Whether writes are held, from the files `suspend_lo` and `suspend_hi`: those of the sectors between the two are.
pub(super) fn suspended(lo: u64, hi: u64) -> bool {
    lo < hi
}

/// `sync_max`: the sector at which a copy waits; none in it where that goes on to its end.
pub(super) fn hold(text: &str) -> Option<Option<u64>> {
    if text == "max" { Some(None) } else { digits(text).map(Some) }
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

/// The chosen word of `bitmap_type`, the one in brackets (Linux 6.18).
pub(super) fn chosen(text: &str) -> Option<String> {
    let mut found = text.split_whitespace().filter_map(|w| w.strip_prefix('[')?.strip_suffix(']'));
    let one = found.next()?;
    found.next().is_none().then(|| one.to_owned())
}

/// `bitmap/location`: a place in front of or behind the superblock, or a word.
pub(super) fn location(text: &str) -> Option<String> {
    let place = |t: &str| t.strip_prefix(['+', '-']).and_then(digits::<u64>).is_some();
    (matches!(text, "none" | "file" | "external") || place(text)).then(|| text.to_owned())
}

/// From [`chosen`] and [`location`], which all kernels have.
pub(super) fn bitmap(chosen: Option<&str>, location: Option<&str>) -> Option<Bitmap> {
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

    fn read(state: &str) -> Option<MemberFacts> {
        Some(member("nvme0n1", &flags(state)?, Some(1), None))
    }

    #[test]
    fn members_and_their_flags() {
        let remote = read("in_sync,write_mostly").unwrap();
        assert!(remote.in_sync && remote.write_mostly && !remote.faulty);
        let failed = read("faulty,write_mostly").unwrap();
        assert!(failed.faulty && !failed.in_sync);
        assert!(!read("spare,want_replacement").unwrap().in_sync);
        assert!(!read("in_sync,want_replacement").unwrap().replacement);
        assert!(read("spare,replacement").unwrap().replacement);
        for text in ["", "in_sync,", "in_syn", "in_sync in_sync", " in_sync", "write_mostly", "in_sync,faulty?"] {
            assert_eq!(flags(text), None, "{text:?}");
        }
        assert_eq!((slot("1"), slot("none"), slot("")), (Some(Some(1)), Some(None), None));
    }

    /// Words that say that all is well, each with the reader of its file.
    fn healthy(file: usize, text: &str) -> bool {
        match file {
            0 => array_state(text) == Some(ArrayState::Running),
            1 => read(text).is_some_and(|m| m.in_sync && !m.faulty),
            2 => action(text) == Some(false),
            _ => slot(text) == Some(None),
        }
    }

    const SICK: [(usize, &[&str]); 4] = [
        (0, &["clear", "inactive", "suspended", "broken"]),
        (1, &["faulty", "spare", "faulty,write_mostly", "spare,want_replacement", "faulty,blocked,write_error"]),
        (2, &["resync", "recover", "check", "repair", "reshape"]),
        (3, &["0", "1", "17", "999"]),
    ];

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
        let bitmap = |kind: Option<&str>, place| bitmap(kind.map(|k| chosen(k).unwrap()).as_deref(), place);
        assert_eq!(bitmap(Some("none bitmap [llbitmap]"), Some("+8")), Some(Bitmap::Lockless));
        assert_eq!(bitmap(Some("none [bitmap] llbitmap"), Some("+8")), Some(Bitmap::Internal));
        assert_eq!(bitmap(None, Some("+8")), Some(Bitmap::Internal));
        assert_eq!(bitmap(Some("none [bitmap] llbitmap"), Some("none")), Some(Bitmap::None));
        assert_eq!(bitmap(Some("[none] bitmap"), None), Some(Bitmap::None));
        assert_eq!(bitmap(Some("[clustered]"), Some("+8")), None);
        assert_eq!(
            (chosen("none bitmap"), chosen("[none] [bitmap]"), location("8"), location("")),
            (None, None, None, None)
        );
    }

    proptest! {
        #[test]
        fn progress(done in any::<u64>(), total in any::<u64>(), kib in any::<u64>()) {
            let parts = (completed(&format!("{done} / {total}")).unwrap(), speed(&kib.to_string()).unwrap());
            let facts = sync("recover", parts.0, parts.1).unwrap();
            prop_assert_eq!((facts.done, facts.total, facts.speed_kib), (done, total, kib));
        }

        /// I7: what is not well never reads as well with a byte changed, or cut short.
        #[test]
        fn a_bent_word_is_never_better_than_the_word(file in 0usize..4, which in any::<prop::sample::Index>(),
                                                     at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let (_, words) = SICK[file];
            let word = words[which.index(words.len())];
            let mut bytes = word.as_bytes().to_vec();
            let at = at.index(bytes.len());
            prop_assert!(!healthy(file, word));
            prop_assert!(!healthy(file, &word[..at]));
            bytes[at] = byte;
            prop_assert!(!healthy(file, std::str::from_utf8(&bytes).unwrap()), "{:?}", bytes);
        }

        #[test]
        fn any_text_is_read(a in "[a-z_,]{0,20}", b in ".{0,20}") {
            for text in [&a, &b] {
                let _ = (array_state(text), flags(text), slot(text), reshaped(text), action(text), completed(text));
                let _ = (speed(text), level(text), chosen(text), location(text));
            }
        }
    }
}
