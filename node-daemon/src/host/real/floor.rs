//! The kernel floor: which kernels write an MD bitmap past its end. Pure; `probe.rs` has the hands.
//!
//! Since Linux 6.4 (8745faa95611, "md: Use optimal I/O size for last bitmap page") the last page of a bitmap was written as large
//! as the optimal I/O size of the device, whether or not the bitmap has so many pages: the pages that follow it in memory went to
//! the device, and over NVMe/TCP that hangs or crashes the consumer (LP#2075110). ab99a87542f1, "md/md-bitmap: fix writing non
//! bitmap pages", ended it.

/// Where the fix is by number: series and first patch level that has it.
///
/// - 6.11: ab99a87542f1 came with the md changes for 6.11-rc1.
/// - 6.10.3: "\[PATCH 6.10 606/809\] md/md-bitmap: fix writing non bitmap pages", of the review of 6.10.3 (30 July 2024).
/// - 6.6.44: "\[PATCH 6.6 406/568\] md/md-bitmap: fix writing non bitmap pages", of the review of 6.6.44 (same day).
///
/// Not here, for no source says so of them: the kernels of distributions that count by themselves (Ubuntu's 6.8.0-N, RHEL's
/// 5.14.0-N), and those from before 6.4, on which MeshStor was never tried. Where the probe runs it speaks for them.
const FIXED: [(u32, u32, u32); 2] = [(6, 10, 3), (6, 6, 44)];
/// First release of all whose successors have it.
const FLOOR: (u32, u32) = (6, 11);

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// The bitmap was written, and nothing past it.
    Within,
    /// What follows the bitmap was written too.
    Beyond,
    /// It could not be tried, for this reason.
    Not(String),
}

/// Whether arrays may be started here, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They may; how that is known.
    Safe(String),
    /// They may not: what is wrong and what to do.
    Unsafe(String),
}

const REMEDY: &str =
    "boot Linux 6.11 or newer (6.10.3, 6.6.44 of kernel.org), or a kernel of the distribution that has ab99a87542f1";

/// What was tried counts more than a number: a patch can have been put in, or taken out.
pub(super) fn verdict(release: &str, probed: &Probed) -> Verdict {
    match probed {
        Probed::Within => Verdict::Safe("probed: a bitmap is written to its end and no further".to_owned()),
        Probed::Beyond => Verdict::Unsafe(format!(
            "Linux {release} writes MD bitmaps past their end (LP#2075110), as a probe showed: {REMEDY}"
        )),
        Probed::Not(why) if has_fix(release) => Verdict::Safe(format!("by its release, {release}; not probed: {why}")),
        Probed::Not(why) => Verdict::Unsafe(format!(
            "Linux {release} is not known to write MD bitmaps no further than their end (LP#2075110), and that could not be \
             probed ({why}): {REMEDY}"
        )),
    }
}

/// Whether a release is of this series or a later one.
pub(super) fn at_least(release: &str, (major, minor): (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(a)), Some(Ok(b))) if (a, b) >= (major, minor))
}

/// Whether a kernel of this release has the fix, by the table.
fn has_fix(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
    (major, minor) >= FLOOR || FIXED.iter().any(|(a, b, c)| (major, minor) == (*a, *b) && patch >= *c)
}

/// The note of a boot, from which a restarted daemon reads what was probed; nothing is noted of what was not.
pub(super) fn note(boot: &str, probed: &Probed) -> Option<String> {
    let word = match probed {
        Probed::Within => WITHIN,
        Probed::Beyond => BEYOND,
        Probed::Not(_) => return None,
    };
    Some(format!("{boot} {word}\n"))
}

const WITHIN: &str = "within";
const BEYOND: &str = "beyond";

/// What a note of this boot says.
pub(super) fn noted(boot: &str, note: &str) -> Option<Probed> {
    match note.split_once(' ') {
        Some((noted, WITHIN)) if noted == boot => Some(Probed::Within),
        Some((noted, BEYOND)) if noted == boot => Some(Probed::Beyond),
        _ => None,
    }
}

/// Where the bitmap lies on each member of the probe's array, in bytes: behind the superblock of version 1.2.
pub(super) const BITMAP_AT: u64 = 8192;
/// Size of each of the probe's two devices, in bytes.
pub(super) const DEVICE: u64 = 4 << 20;

/// The table of the device mapper for the member that is watched: all of `disk`, but for the page behind the bitmap's only one,
/// which is an error to touch. Its last piece is a stripe of one disk, which gives the whole device an optimal I/O size of two
/// pages: a kernel with the fault writes two pages there, and the second never gets as far as its bytes being read.
pub(super) fn trap(disk: &str, page: u64) -> String {
    let sectors = |bytes: u64| bytes / 512;
    let (start, end) = (sectors(BITMAP_AT + page), sectors(BITMAP_AT + 2 * page));
    let (stripe, all) = (sectors(2 * page), sectors(DEVICE));
    let last = all - stripe;
    format!(
        "0 {start} linear {disk} 0\n{start} {} error\n{end} {} linear {disk} {end}\n{last} {stripe} striped 1 {stripe} {disk} {last}\n",
        end - start,
        last - end,
    )
}

/// The table of the other member.
pub(super) fn plain(disk: &str) -> String {
    format!("0 {} linear {disk} 0\n", DEVICE / 512)
}

/// Whether these bytes, from where the bitmap lies, are a bitmap that the kernel has written since mdadm made it: the event counter
/// is mdadm's 0 until then. Layout: `drivers/md/md-bitmap.h`, `bitmap_super_s`.
pub(super) fn written_by_kernel(bytes: &[u8]) -> bool {
    bytes.starts_with(b"bitm") && bytes.get(24..32).is_some_and(|events| events.iter().any(|b| *b != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(release: &str, probed: &Probed) -> bool {
        matches!(verdict(release, probed), Verdict::Safe(_))
    }

    #[test]
    fn without_a_probe_only_a_release_that_is_known_to_have_the_fix_is_safe() {
        let not = Probed::Not("no loop devices".to_owned());
        for release in [
            "7.3.4-meshstor",
            "6.12.57+deb13-amd64",
            "6.11.0-29-generic",
            "6.11",
            "6.11.0-rc1",
            "6.10.3-amd64",
            "6.10.14",
            "6.6.44",
            "6.6.100-talos",
            "6.12.0-55.el10.x86_64",
        ] {
            assert!(safe(release, &not), "{release}");
        }
        for release in [
            "6.10.2",
            "6.10",
            "6.9.12",
            "6.8.0-60-generic",
            "6.6.43",
            "6.6",
            "6.5.0-45-generic",
            "6.1.0-40-amd64",
            "5.15.0-160-generic",
            "5.14.0-570.el9.x86_64",
            "",
            "six",
        ] {
            assert!(!safe(release, &not), "{release}");
        }
    }

    #[test]
    fn what_was_probed_goes_before_the_release() {
        assert!(safe("6.8.0-60-generic", &Probed::Within));
        let Verdict::Unsafe(why) = verdict("7.3.4-meshstor", &Probed::Beyond) else {
            panic!("a kernel with the fault is safe")
        };
        assert!(why.contains("LP#2075110") && why.contains("6.11 or newer") && why.contains("7.3.4-meshstor"), "{why}");
    }

    #[test]
    fn a_note_counts_for_its_boot_only() {
        for probed in [Probed::Within, Probed::Beyond] {
            let text = note("b1", &probed).unwrap();
            assert_eq!(noted("b1", text.trim_end()), Some(probed));
            assert_eq!(noted("b2", text.trim_end()), None);
            assert_eq!(noted("b1", text.trim_end().split_at(4).0), None);
        }
        assert_eq!(note("b1", &Probed::Not(String::new())), None);
        assert!(["", "b1", "b1 perhaps", "within"].iter().all(|text| noted("b1", text).is_none()));
    }

    /// Start and length of each piece, in sectors, and its target.
    fn pieces(table: &str) -> Vec<(u64, u64, String)> {
        let piece = |line: &str| {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse().unwrap();
            (number(), number(), words.next().unwrap().to_owned())
        };
        table.lines().map(piece).collect()
    }

    #[test]
    fn the_trap_is_the_page_behind_the_bitmap_whatever_the_page_size() {
        for page in [4096, 16384, 65536] {
            let pieces = pieces(&trap("/dev/loop0", page));
            let mut next = 0;
            for (start, length, _) in &pieces {
                assert_eq!(*start, next);
                next = start + length;
            }
            assert_eq!(next * 512, DEVICE);
            let traps: Vec<_> = pieces.iter().filter(|(.., target)| target == "error").collect();
            assert_eq!(traps.len(), 1);
            assert_eq!((traps[0].0 * 512, traps[0].1 * 512), (BITMAP_AT + page, page));
        }
    }

    #[test]
    fn a_bitmap_that_only_mdadm_wrote_proves_nothing() {
        let mut bytes = vec![0u8; 512];
        assert!(!written_by_kernel(&bytes));
        bytes[..4].copy_from_slice(b"bitm");
        assert!(!written_by_kernel(&bytes));
        bytes[24] = 1;
        assert!(written_by_kernel(&bytes));
        assert!(!written_by_kernel(&bytes[..20]));
    }
}
