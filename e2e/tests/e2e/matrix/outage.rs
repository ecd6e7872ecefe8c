//! What is done and seen while a fault lasts, and until a volume can be used again.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use meshstor_e2e::api::{all, ours};
use meshstor_e2e::bed::marked;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::timeline::seconds;
use meshstor_e2e::wait::{Look, pause, secs};
use serde_json::Value;

use super::scene::{Answer, BLOCKS, Scene, is_over, usable_on};
use crate::shapes;

/// Time between two looks at a volume.
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

impl Scene {
    /// Goes on with what is to be done until the volume is usable where it is wanted, or `until`. Gives what was seen last if it is not.
    pub(super) fn follow(&mut self, lab: &Lab, victim: &str, until: Instant) -> Result<Option<String>> {
        while self.usable.is_none() {
            // While a node is away, requests to it fail.
            let seen = match self.step(lab, victim) {
                Ok(Look::Done(())) => return Ok(None),
                Ok(Look::NotYet(seen)) => seen,
                Err(error) => format!("error: {error:#}"),
            };
            if Instant::now() > until {
                return Ok(Some(seen));
            }
            pause(INTERVAL);
        }
        Ok(None)
    }

    fn step(&mut self, lab: &Lab, victim: &str) -> Result<Look<()>> {
        let volume = self.volume(lab);
        let at = volume.attachment()?;
        if self.leaving {
            if is_over(&at["status"]) {
                volume.want_on(&self.home, false)?;
                self.leaving = false;
            }
            return Ok(Look::NotYet(format!("not detached: {}", at["status"])));
        }
        let Some((epoch, device)) = usable_on(&at, &self.home) else {
            self.give_up_again(lab, &at)?;
            return Ok(Look::NotYet(format!("not usable on {}: {}", self.home, at["status"])));
        };
        if epoch != self.epoch && self.second.is_none() {
            self.begin_again(lab, victim, epoch, &device)?;
        } else if !self.writing {
            self.first.start(lab, &self.home, &device)?;
            self.writing = true;
        }
        self.look_for_a_write(lab)
    }

    /// An epoch that began on the lost node after it was given up needs another word.
    fn give_up_again(&self, lab: &Lab, at: &Value) -> Result<()> {
        let (term, lost) = (&at["status"]["term"], &at["spec"]["lost"]);
        let still_there = term["node"] == *self.writer && self.home != self.writer;
        if self.answer == Answer::GiveUp && still_there && term["epoch"] != lost["epoch"] {
            self.volume(lab).give_up(&self.home, false)?;
        }
        Ok(())
    }

    /// A new epoch: what it reads is noted before anybody writes in it, and another writer begins.
    fn begin_again(&mut self, lab: &Lab, victim: &str, epoch: i64, device: &str) -> Result<()> {
        let scan = self.first.scan(lab, &self.home, device)?;
        let fences = self.closed_to_others(lab, victim, epoch);
        self.note("I2", fences);
        let second = Load::new(&format!("{}-b", self.name), BLOCKS);
        second.start(lab, &self.home, device)?;
        (self.scan, self.second, self.writing) = (Some(scan), Some(second), true);
        Ok(())
    }

    /// The first write that was surely issued after the fault.
    fn look_for_a_write(&mut self, lab: &Lab) -> Result<Look<()>> {
        let journal = self.load().journal(lab, &self.home)?;
        let first = journal.flushes.iter().find(|flush| flush.began > self.fault);
        self.usable = first.map(|flush| flush.ended);
        if self.usable.is_none() && !journal.errors.is_empty() {
            bail!("the writer on {} met errors: {:?}", self.home, journal.errors);
        }
        Ok(if self.usable.is_some() { Look::Done(()) } else { Look::NotYet(format!("no write: {journal}")) })
    }

    /// I2: wherever a leg of S can be asked, no export of an older epoch is left, and those of this epoch let in its consumer alone.
    fn closed_to_others(&self, lab: &Lab, victim: &str, epoch: i64) -> Result<()> {
        let term = self.volume(lab).attachment()?["status"]["term"].clone();
        let node = lab.control.api.get(&ours("meshnodes", &self.home))?;
        let host = node["status"]["hostNqn"].as_str().context("a node has a host NQN")?.to_owned();
        let in_sync: Vec<&str> = term["inSync"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for leg in shapes::legs(lab, &self.name)? {
            if leg.node == victim || !in_sync.contains(&leg.name.as_str()) {
                continue;
            }
            let exports = lab.guest(&leg.node)?.shell(&format!(
                "cd /sys/kernel/config/nvmet/subsystems && for s in *:{}:*; do [ -e $s ] && echo $s $(ls $s/allowed_hosts); done; true",
                leg.uid
            ))?;
            for export in exports.lines() {
                let fits = export.contains(&format!(":e{epoch}:"));
                let alone = export.split(' ').skip(1).all(|allowed| allowed == host);
                ensure!(fits && alone, "epoch {epoch} runs on {}, and {} has {export}", self.home, leg.node);
            }
        }
        Ok(())
    }

    /// What the outage has left to do, noted just before the heal: who is away, and how much was written without them.
    pub(super) fn end_of_outage(&mut self, lab: &Lab, victim: &str) -> Result<()> {
        if self.usable.is_none() || self.home == victim {
            return Ok(());
        }
        if !self.keeps_writing {
            self.stop(lab)?;
        }
        let term = self.volume(lab).attachment()?["status"]["term"].clone();
        let in_sync = |name: &str| term["inSync"].as_array().is_some_and(|legs| legs.iter().any(|l| *l == *name));
        let legs = shapes::legs(lab, &self.name)?;
        let away = legs.iter().filter(|leg| leg.node != self.home && !in_sync(&leg.name));
        self.away = away.map(|leg| leg.uid.clone()).collect();
        if !self.keeps_writing && !self.away.is_empty() {
            self.row.dirtied = marked(lab, &self.home, &self.array(lab)?)? * self.away.len() as u64;
        }
        Ok(())
    }

    /// Bytes that came to the legs that were away through their present connections.
    pub(super) fn copied(&self, lab: &Lab) -> Result<u64> {
        let script = format!(
            "cd /sys/block/{}/md && for d in dev-nvme*; do [ -e $d ] || continue; b=/sys/class/block/${{d#dev-}}
                echo $(cat $b/device/subsysnqn) $(awk '{{ print $7 }}' $b/stat)
            done",
            self.array(lab)?
        );
        let said = lab.guest(&self.home)?.shell(&script)?;
        let mine = said.lines().filter(|line| self.away.iter().any(|uid| line.contains(uid)));
        let sectors = mine.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()));
        Ok(sectors.map(|n| n.context("a number of sectors")).sum::<Result<u64>>()? * 512)
    }

    /// Times of recovery, once they are known.
    pub(super) fn note_times(&mut self, healed: std::time::SystemTime, whole: std::time::SystemTime) {
        self.row.usable = self.usable.map(|at| seconds(self.fault, at));
        self.row.usable_after_heal = self.usable.map(|at| seconds(healed, at));
        self.row.whole_after_heal = Some(seconds(healed, whole));
    }
}

/// Deletes all volumes of these scenes.
pub(super) fn delete(lab: &Lab, scenes: &[Scene]) -> Result<()> {
    for scene in scenes {
        scene.volume(lab).delete_only()?;
    }
    for scene in scenes {
        scene.volume(lab).wait_gone()?;
    }
    ensure!(
        lab.control
            .api
            .list(&all("meshvolumes"))?
            .iter()
            .all(|v| scenes.iter().all(|s| v["metadata"]["name"] != *s.name)),
        "a volume is left"
    );
    Ok(())
}

/// Time that a volume may take to be usable again when the fault is healed, in the harness's usual unit.
pub(super) const AGAIN: std::time::Duration = secs(180);
