//! What is held against what, when a case is over.

use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::api::ours;
use meshstor_e2e::chaos::Moment;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::timeline::record_writes;
use meshstor_e2e::writer::{Run, Scan};
use serde_json::Value;

use super::scene::{Scene, is_over, usable_on};
use crate::shapes;

impl Scene {
    /// Everything, on a volume that is whole and that nobody writes to.
    pub(super) fn judge(&mut self, lab: &Lab) -> Result<()> {
        let runs = self.runs(lab)?;
        if let Some(scan) = &self.scan {
            let verdict = scan.judge(&runs[..1]).check().map(drop);
            self.note("I1, in the next epoch", verdict);
        }
        for run in &runs {
            if !run.journal.errors.is_empty() {
                self.row.wrong.push(format!("a writer met errors: {}", run.journal.errors.join("; ")));
            }
        }
        let record = self.record(lab);
        self.note("I2, in the record", record);
        self.volume(lab).detach()?;
        for leg in shapes::legs(lab, &self.name)? {
            let verdict =
                self.leg_alone(lab, &leg.name, &leg.node).and_then(|scan| scan.judge(&runs).check().map(drop));
            self.note(&format!("I1, I2: leg {} alone", leg.name), verdict);
        }
        Ok(())
    }

    /// The writers' runs, oldest first.
    fn runs(&self, lab: &Lab) -> Result<Vec<Run>> {
        let mut runs = vec![self.first.run(lab, &self.writer)?];
        if let Some(second) = &self.second {
            runs.push(second.run(lab, &self.home)?);
        }
        Ok(runs)
    }

    /// Reads a leg as it lies on its drive.
    fn leg_alone(&self, lab: &Lab, leg: &str, node: &str) -> Result<Scan> {
        let replica = lab.control.api.get(&ours("meshreplicas", leg))?;
        let first = replica["status"]["partition"]["firstByte"].as_u64().context("a leg has a partition")? / 512;
        let here = lab.control.api.get(&ours("meshnodes", node))?;
        let drives = here["status"]["drives"].as_array().into_iter().flatten();
        let drive = drives.filter(|d| d["id"] == replica["spec"]["drive"]).find_map(|d| d["path"].as_str());
        let drive = drive.and_then(|path| path.strip_prefix("/dev/")).context("a leg has a drive")?;
        let guest = lab.guest(node)?;
        let open = format!(
            "s=$(grep -lx {first} /sys/class/block/{drive}?*/start) && p=/dev/$(basename ${{s%/start}}) && \
             at=$(mdadm --examine $p | sed -n 's/.*Data Offset : \\([0-9]*\\) sectors.*/\\1/p') && \
             losetup --read-only --find --show --offset $((at * 512)) $p"
        );
        let device = guest.shell(&open)?.trim().to_owned();
        let scan = self.first.scan(lab, node, &device);
        guest.shell(&format!("losetup --detach {device}"))?;
        scan
    }

    /// I2: epochs only grow, each is of one node, and each was claimed once.
    fn record(&self, lab: &Lab) -> Result<()> {
        let mut last = (0, 0, Value::Null);
        for write in record_writes(&lab.control.audit, &self.name)?.iter().filter(|w| w.term.is_object()) {
            let phase = ["Revoking", "Started", "Running"].iter().position(|phase| write.term["phase"] == *phase);
            let now = (write.term["epoch"].as_i64().context("an epoch")?, phase, write.term["node"].clone());
            let fits = now.0 > last.0 || (now.0 == last.0 && now.1 >= Some(last.1) && now.2 == last.2);
            ensure!(fits, "after {last:?} came {now:?}");
            last = (now.0, now.1.unwrap_or(last.1), now.2);
        }
        ensure!(last.0 > 0, "the audit log has no record");
        Ok(())
    }

    /// Where the volume stood at the moment of the fault, by the audit log; an error if that was not the case's moment.
    pub(super) fn moment(&self, lab: &Lab) -> Result<String> {
        let writes = record_writes(&lab.control.audit, &self.name)?;
        let last = writes.iter().rfind(|write| write.at <= self.before).context("a record before the fault")?;
        let phase = last.term["phase"].as_str().unwrap_or_default();
        match self.case.moment {
            Moment::Idle => Ok("attached".to_owned()),
            Moment::Load => Ok(format!("writing batch {}", self.flushed + 1)),
            Moment::Resync if !self.row.moment.starts_with("recover") => bail!("it was copied already"),
            Moment::Resync => Ok(format!("copying: {}", self.row.moment)),
            Moment::Attach if usable_on(&serde_json::json!({ "status": last.status }), &self.writer).is_some() => {
                bail!("it was attached already")
            }
            Moment::Attach => Ok(format!("record {phase}")),
            Moment::Detach if is_over(&last.status) => bail!("it was detached already"),
            Moment::Detach => Ok(format!("record {phase}, not ended")),
        }
    }
}

/// No kernel complained since the batch began, or since its boot.
pub(super) fn kernels(lab: &Lab, mark: &str) -> Result<()> {
    lab.guests().iter().try_for_each(|guest| crate::check_kernel(guest, mark))
}

/// Marks the place in each kernel's log.
pub(super) fn mark(lab: &Lab) -> Result<String> {
    let mark = format!("meshstor-chaos: {:?}", SystemTime::now());
    lab.guests().iter().try_for_each(|guest| guest.shell(&format!("echo '{mark}' > /dev/kmsg")).map(drop))?;
    Ok(mark)
}
