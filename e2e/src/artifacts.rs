//! What a failed run leaves for a person to read.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::footprint::Footprint;
use crate::lab::Lab;

/// Kinds that are saved as YAML.
const KINDS: &str =
    "meshvolumes,meshattachments,meshreplicas,meshnodes,nodedrains,replicasetpolicies,events.events.k8s.io";

/// Saves logs, kernel logs, footprints and objects into `dir`. What cannot be had is left out: the run has failed already.
pub fn collect(lab: &Lab, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    copy_logs(&lab.dir.join("logs"), dir)?;
    if let Ok(objects) = lab.kubectl(&["get", KINDS, "-A", "-o", "yaml", "--request-timeout=10s"]) {
        fs::write(dir.join("objects.yaml"), objects)?;
    }
    for guest in lab.guests() {
        let name = guest.name();
        fs::copy(guest.machine.console(), dir.join(format!("{name}.console.log"))).ok();
        copy_logs_as(&guest.machine.share.join("logs"), dir, name)?;
        if let Ok(log) = guest.dmesg() {
            fs::write(dir.join(format!("{name}.dmesg")), log)?;
        }
        if let Ok(footprint) = Footprint::of(guest) {
            fs::write(dir.join(format!("{name}.footprint")), footprint.0.into_iter().collect::<Vec<_>>().join("\n"))?;
        }
    }
    Ok(())
}

fn copy_logs(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)?.flatten() {
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy_logs_as(from: &Path, to: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(from)?.flatten() {
        fs::copy(entry.path(), to.join(format!("{prefix}.{}", entry.file_name().to_string_lossy())))?;
    }
    Ok(())
}
