//! Keeping the node's own udev and systemd from our legs.

use super::super::{Assembly, Result};
use super::assembly::{self, File};
use super::{RealHost, sysfs};
use std::io::ErrorKind;
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
        match sysfs::exists(self.config.udev.join("control")) {
            Ok(true) => {}
            Ok(false) => return assembly::yes("no udev runs on this node"),
            Err(error) => return Assembly { guarded: None, message: error.to_string() },
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
        let read = || Ok((self.files(&RULES, &[".rules"])?, self.files(&UNITS, &[".service"])?));
        let read: Result<(Vec<File>, Vec<File>)> = read();
        match read {
            Ok((rules, units)) => assembly::assess(&rules, &units),
            // What cannot be read may assemble.
            Err(error) => Assembly { guarded: None, message: error.to_string() },
        }
    }

    /// The files of these directories of the node that have one of these endings.
    fn files(&self, directories: &[&str], endings: &[&str]) -> Result<Vec<File>> {
        let wanted = |name: &String| endings.iter().any(|e| name.ends_with(e));
        let mut all = vec![];
        for dir in directories {
            let at = self.config.root.join(dir);
            let names = sysfs::names(&at)?.into_iter().filter(wanted);
            all.push(names.map(|name| read(&at, dir, name)).collect::<Result<Vec<_>>>()?);
        }
        Ok(assembly::effective(all))
    }
}

/// A link to `/dev/null` masks those behind it; a link that leads nowhere from here says nothing, nor does a directory.
fn read(at: &Path, dir: &str, name: String) -> Result<File> {
    let file = at.join(&name);
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => String::new(),
        Err(error) => return Err(sysfs::bad(file, error)),
    };
    Ok(File { path: format!("/{dir}/{name}"), name, text })
}
