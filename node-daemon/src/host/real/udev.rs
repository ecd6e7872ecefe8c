//! Keeping the node's own udev and systemd from our legs.

use super::super::Assembly;
use super::assembly::{self, File};
use super::{RealHost, sysfs};
use std::path::Path;

/// Where udev reads rules, first the directory that counts most (udev(7)).
const RULES: [&str; 5] =
    ["etc/udev/rules.d", "run/udev/rules.d", "usr/local/lib/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d"];
/// Where systemd reads units (systemd.unit(5)).
const UNITS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

impl RealHost {
    /// Puts our rule where udev reads it, and looks for others that would assemble legs all the same. Nothing is triggered: what
    /// udev has seen already, it has seen.
    pub(super) fn assembly(&self) -> Assembly {
        if !self.config.udev.join("control").exists() {
            return assembly::yes("no udev runs on this node");
        }
        let guard = self.config.udev.join("rules.d").join(assembly::GUARD_NAME);
        if std::fs::read_to_string(&guard).is_ok_and(|text| text == assembly::GUARD) {
            tracing::trace!("udev has our rule");
        } else if let Err(error) = sysfs::replace(&guard, assembly::GUARD) {
            tracing::warn!(rule = %guard.display(), %error, "give udev our rule");
        }
        if let Err(error) = std::fs::read_dir(&self.config.root) {
            let message = format!("the node's files cannot be read at {}: {error}", self.config.root.display());
            return Assembly { guarded: None, message };
        }
        let rules = self.files(&RULES, &[".rules"]);
        let units = self.files(&UNITS, &[".service"]);
        assembly::assess(&rules, &units)
    }

    /// The files of these directories of the node that have one of these endings.
    fn files(&self, directories: &[&str], endings: &[&str]) -> Vec<File> {
        let wanted = |name: &String| endings.iter().any(|e| name.ends_with(e));
        let of = |dir: &&str| {
            let at = self.config.root.join(dir);
            let names = sysfs::names(&at).into_iter().filter(wanted);
            names.map(|name| read(&at, dir, name)).collect::<Vec<_>>()
        };
        assembly::effective(directories.iter().map(of).collect())
    }
}

/// A link to `/dev/null` masks those behind it; a link that leads nowhere from here says nothing.
fn read(at: &Path, dir: &str, name: String) -> File {
    let text = std::fs::read_to_string(at.join(&name)).unwrap_or_default();
    File { path: format!("/{dir}/{name}"), name, text }
}
