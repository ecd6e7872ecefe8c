//! Who else would assemble our legs: rules of udev and units of systemd, as text. Pure; `udev.rs` has the hands.

use super::super::Assembly;

/// The rule that hides our legs from all others.
pub(super) const GUARD: &str = include_str!("../../../../config/udev/63-meshstor.rules");
/// Its name: rules run in the order of their names, whatever directory they are in.
pub(super) const GUARD_NAME: &str = "63-meshstor.rules";

/// A file of rules, or a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Name in its directory.
    pub name: String,
    /// Path on the node.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The files that count: of those with one name the one whose directory comes first; in the order of their names.
pub(super) fn effective(directories: Vec<Vec<File>>) -> Vec<File> {
    let mut all: Vec<File> = directories.into_iter().flatten().collect();
    // Stable: of equal names the first stays first.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|later, first| later.name == first.name);
    all
}

/// What a node where udev runs has in place.
pub(super) fn assess(rules: &[File], units: &[File]) -> Assembly {
    let guard = rules.iter().find(|file| file.name == GUARD_NAME);
    let past_guard = |file: &&File| assembles(&file.text, file.name.as_str() > GUARD_NAME && guard.is_some());
    let foreign: Vec<String> = match guard {
        Some(guard) if guard.text != GUARD => vec![format!(
            "{} is not what this version needs: remove it, or replace it by config/udev/{GUARD_NAME}",
            guard.path
        )],
        _ => {
            let rules = rules
                .iter()
                .filter(past_guard)
                .map(|f| format!("{0}: mask it with /etc/udev/rules.d/{1} -> /dev/null", f.path, f.name));
            let units = units
                .iter()
                .filter(|f| starts_arrays(&f.text))
                .map(|f| format!("{}: systemctl mask {}", f.path, f.name));
            rules.chain(units).collect()
        }
    };
    match (foreign.is_empty(), guard) {
        (false, _) => no(format!("would assemble legs behind the daemon's back: {}", foreign.join("; "))),
        (true, Some(guard)) => yes(format!("{} hides legs from other rules", guard.path)),
        (true, None) => yes("no rule of udev and no unit of systemd assembles arrays"),
    }
}

pub(super) fn yes(message: impl Into<String>) -> Assembly {
    Assembly { guarded: Some(true), message: message.into() }
}

fn no(message: String) -> Assembly {
    Assembly { guarded: Some(false), message }
}

/// Whether rules run mdadm to assemble; behind the guard only those count that do not first ask what the guard answers: the type
/// of the bytes, or whether the device is ready.
fn assembles(text: &str, behind_guard: bool) -> bool {
    let lines = logical_lines(text);
    let asks = |line: &String| line.contains("ENV{ID_FS_TYPE}==") || line.contains("ENV{SYSTEMD_READY}==");
    match lines.iter().position(|line| runs_assembly(line)) {
        Some(at) => !(behind_guard && lines.iter().take(at + 1).any(asks)),
        None => false,
    }
}

/// Whether a unit runs mdadm to assemble what it finds.
fn starts_arrays(text: &str) -> bool {
    logical_lines(text).iter().any(|line| line.starts_with("Exec") && runs_assembly(line))
}

/// Lines without comments; a backslash at the end joins the next one.
fn logical_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])).map(str::to_owned).collect()
}

/// `mdadm --incremental`, `-I`, `--assemble`, `-A…`; `-If` and `--incremental --fail` take members away instead.
fn runs_assembly(line: &str) -> bool {
    let mut words =
        line.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '=')).skip_while(|w| !is_mdadm(w));
    if words.next().is_none() {
        return false;
    }
    let words: Vec<&str> = words.collect();
    let fails = words.iter().any(|w| *w == "--fail" || *w == "-f" || (w.starts_with("-I") && w.contains('f')));
    let assembles =
        |w: &&str| matches!(*w, "--incremental" | "--assemble") || w.starts_with("-I") || w.starts_with("-A");
    !fails && words.iter().any(assembles)
}

fn is_mdadm(word: &str) -> bool {
    word.rsplit('/').next() == Some("mdadm")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's mdadm has it: asks for the type and for readiness.
    const DEBIAN: &str = r#"
ENV{SYSTEMD_READY}=="0", GOTO="end"
ENV{ID_FS_TYPE}=="linux_raid_member", GOTO="md"
GOTO="end"
LABEL="md"
ACTION!="remove", IMPORT{program}="/usr/sbin/mdadm --incremental --export $devnode --offroot $env{DEVLINKS}"
ACTION=="remove", RUN+="/usr/sbin/mdadm -If $devnode"
LABEL="end"
"#;
    /// As somebody writes it in a hurry.
    const BLUNT: &str = "# assemble!\nKERNEL==\"nvme*\", ACTION==\"add\", \\\n  RUN+=\"/sbin/mdadm -I $devnode\"\n";

    fn file(name: &str, text: &str) -> File {
        File { name: name.to_owned(), path: format!("/usr/lib/udev/rules.d/{name}"), text: text.to_owned() }
    }

    fn guarded(rules: &[(&str, &str)], units: &[(&str, &str)]) -> bool {
        let files = |all: &[(&str, &str)]| all.iter().map(|(n, t)| file(n, t)).collect::<Vec<_>>();
        assess(&files(rules), &files(units)).guarded.unwrap()
    }

    #[test]
    fn the_distributions_rule_is_kept_off_by_the_guard_and_by_nothing_else() {
        assert!(guarded(&[(GUARD_NAME, GUARD), ("64-md-raid-assembly.rules", DEBIAN)], &[]));
        assert!(!guarded(&[("64-md-raid-assembly.rules", DEBIAN)], &[]));
        // Before the guard it is too early.
        assert!(!guarded(&[("62-md.rules", DEBIAN), (GUARD_NAME, GUARD)], &[]));
        assert!(guarded(&[("10-dm.rules", "KERNEL==\"dm-*\""), ("64-md-raid-assembly.rules", "")], &[]));
    }

    #[test]
    fn a_rule_that_asks_nothing_is_named_with_its_remedy() {
        let found = assess(&[file(GUARD_NAME, GUARD), file("70-blunt.rules", BLUNT)], &[]);
        assert_eq!(found.guarded, Some(false));
        assert!(found.message.contains("/usr/lib/udev/rules.d/70-blunt.rules"), "{}", found.message);
        assert!(found.message.contains("/etc/udev/rules.d/70-blunt.rules -> /dev/null"), "{}", found.message);
    }

    #[test]
    fn another_text_under_the_guards_name_is_no_guard() {
        assert!(!guarded(&[(GUARD_NAME, "# nothing")], &[]));
    }

    #[test]
    fn units_that_assemble_are_found_and_those_that_only_look_are_not() {
        let rules = [(GUARD_NAME, GUARD)];
        assert!(!guarded(&rules, &[("raid.service", "[Service]\nExecStart=/sbin/mdadm --assemble --scan\n")]));
        assert!(!guarded(&rules, &[("raid.service", "[Service]\nExecStartPre=-/sbin/mdadm -As\n")]));
        let innocent = "[Unit]\nDescription=mdadm --assemble\n[Service]\nExecStart=/sbin/mdadm --monitor --scan\n";
        assert!(guarded(&rules, &[("mdmonitor.service", innocent)]));
        assert!(guarded(&rules, &[("x.service", "[Service]\n#ExecStart=/sbin/mdadm -As\n")]));
    }

    #[test]
    fn a_file_in_etc_goes_before_one_of_the_same_name_in_usr() {
        let masked = effective(vec![
            vec![file("70-blunt.rules", "")],
            vec![file("70-blunt.rules", BLUNT), file(GUARD_NAME, GUARD)],
        ]);
        assert_eq!(masked.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), [GUARD_NAME, "70-blunt.rules"]);
        assert_eq!(assess(&masked, &[]).guarded, Some(true));
    }

    #[test]
    fn taking_members_away_is_not_assembling() {
        for line in [
            "RUN+=\"/sbin/mdadm -If $devnode\"",
            "RUN+=\"mdadm --incremental --fail $name\"",
            "PROGRAM=\"/sbin/mdadm --detail --export $devnode\"",
        ] {
            assert!(!runs_assembly(line), "{line}");
        }
        assert!(runs_assembly("RUN+=\"/sbin/mdadm -Iq $devnode\""));
    }

    #[test]
    fn the_guard_knows_the_names_of_what_is_ours() {
        use super::super::gpt::{LEDGER_TYPE, LEG_TYPE};
        for name in [LEG_TYPE.to_string(), LEDGER_TYPE.to_string(), meshstor_crds::naming::EXPORT_NQN_PREFIX.to_owned()]
        {
            assert!(GUARD.contains(&name), "{name}");
        }
    }
}
