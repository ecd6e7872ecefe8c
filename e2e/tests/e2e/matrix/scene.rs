//! One case: its volume, its writers, and what was seen of it.

use std::time::SystemTime;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use meshstor_e2e::chaos::{Case, Fault, Moment, Row, Victim};
use meshstor_e2e::lab::Lab;
use meshstor_e2e::load::Load;
use meshstor_e2e::volume::Volume;
use meshstor_e2e::wait::{secs, wait_for, when};
use meshstor_e2e::writer::Scan;
use serde_json::Value;

/// Blocks that the writers write to.
pub(super) const BLOCKS: u64 = 1024;
/// What is written beside that while a leg is away, in MiB, first and count: some seconds of copying at a rebuild's first speed.
pub(super) const BESIDE: (u64, u64) = (16, 104);
/// Size of each volume.
pub(super) const CAPACITY: &str = "128Mi";
/// Copies of each volume: one on each node.
pub(super) const COPIES: u32 = 3;

/// What is done about a fault while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Stay,
    /// The consumer is given up, and the volume is wanted on another node.
    GiveUp,
}

/// A case under way.
pub(super) struct Scene {
    pub(super) case: Case,
    pub(super) name: String,
    pub(super) answer: Answer,
    /// Phase of the record at which an attach is hit.
    pub(super) phase: &'static str,
    /// Whether the writer goes on while copies come back.
    pub(super) keeps_writing: bool,
    /// The writer before the fault, and the node where it ran.
    pub(super) first: Load,
    pub(super) writer: String,
    /// The epoch in which it wrote last.
    pub(super) epoch: i64,
    /// What it had flushed when the fault came.
    pub(super) flushed: u64,
    /// Whether it runs.
    pub(super) writing: bool,
    /// Where the volume is wanted after the fault.
    pub(super) home: String,
    /// A detach is not seen to be over.
    pub(super) leaving: bool,
    /// What a later epoch read before anybody wrote in it, and the writer there.
    pub(super) scan: Option<Scan>,
    pub(super) second: Option<Load>,
    /// The last moment when the fault was surely not there, and the first when it surely was.
    pub(super) before: SystemTime,
    pub(super) fault: SystemTime,
    pub(super) usable: Option<SystemTime>,
    /// Legs that were away when the outage ended.
    pub(super) away: Vec<String>,
    pub(super) row: Row,
}

impl Scene {
    pub(super) fn new(case: Case, consumer: &str, heir: &str, seed: u64) -> Self {
        let name = case.to_string().replace('/', "-");
        // Of the case alone, so that it is the same whichever others run beside it.
        let mut rng = Rng::with_seed(seed_of(seed, &name));
        let answer = answer(case, &mut rng);
        let home = if answer == Answer::GiveUp { heir } else { consumer };
        Self {
            case,
            first: Load::new(&name, BLOCKS),
            name,
            answer,
            phase: *rng.choice(&["Revoking", "Started", "Running"]).unwrap_or(&"Started"),
            keeps_writing: case.moment == Moment::Load && rng.bool(),
            writer: consumer.to_owned(),
            epoch: 0,
            flushed: 0,
            writing: false,
            home: home.to_owned(),
            leaving: case.moment == Moment::Detach && answer == Answer::Stay,
            scan: None,
            second: None,
            before: SystemTime::UNIX_EPOCH,
            fault: SystemTime::UNIX_EPOCH,
            usable: None,
            away: Vec::new(),
            row: Row {
                case,
                moment: String::new(),
                answer: if answer == Answer::GiveUp {
                    format!("given up, wanted on {heir}")
                } else {
                    "none".to_owned()
                },
                proof: String::new(),
                usable: None,
                usable_after_heal: None,
                whole_after_heal: None,
                dirtied: 0,
                resynced: 0,
                wrong: Vec::new(),
            },
        }
    }

    pub(super) fn volume<'a>(&self, lab: &'a Lab) -> Volume<'a> {
        Volume::named(lab, &self.name)
    }

    /// The writer that writes now, or would.
    pub(super) fn load(&self) -> &Load {
        self.second.as_ref().unwrap_or(&self.first)
    }

    /// Notes what is wrong instead of ending the batch.
    pub(super) fn note(&mut self, what: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.row.wrong.push(format!("{what}: {error:#}"));
        }
    }

    /// Kernel name of its array where it is used.
    pub(super) fn array(&self, lab: &Lab) -> Result<String> {
        let at = self.volume(lab).attachment()?;
        let device = at["status"]["array"]["device"].as_str().context("it has a device")?;
        Ok(device.trim_start_matches("/dev/").to_owned())
    }

    /// Ends its writer, which must have met no error.
    pub(super) fn stop(&mut self, lab: &Lab) -> Result<()> {
        if std::mem::take(&mut self.writing) {
            self.load().stop(lab, &self.home)?;
        }
        Ok(())
    }

    /// Writes a little more, on a volume that is whole.
    pub(super) fn write_on(&mut self, lab: &Lab) -> Result<()> {
        if !self.writing {
            let device = self.volume(lab).wait_attached(&self.home, false)?;
            self.load().start(lab, &self.home, &device)?;
            self.writing = true;
        }
        self.load().wait_for_progress(lab, &self.home, 5, secs(30))?;
        self.stop(lab)
    }
}

/// A seed for what has this name in a run of this seed (FNV-1a).
pub(super) fn seed_of(seed: u64, name: &str) -> u64 {
    let start = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xcbf2_9ce4_8422_2325;
    name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn answer(case: Case, rng: &mut Rng) -> Answer {
    let given_up = match (case.victim, case.fault) {
        (Victim::Consumer, Fault::Kill | Fault::Hang | Fault::Both | Fault::OneWay) => true,
        // Whoever looks from outside sees no reason, or sees one: either may be.
        (Victim::Consumer, Fault::Control | Fault::Data) => rng.bool(),
        (Victim::Consumer, Fault::Reboot) | (Victim::Target | Victim::Targets, _) => false,
    };
    if given_up { Answer::GiveUp } else { Answer::Stay }
}

/// The epoch and the device, if the attachment can be used on `node`.
pub(super) fn usable_on(at: &Value, node: &str) -> Option<(i64, String)> {
    let (term, array) = (&at["status"]["term"], &at["status"]["array"]);
    let shown = term["node"] == node && term["phase"] == "Running" && array["epoch"] == term["epoch"];
    let device = array["device"].as_str().filter(|_| shown)?;
    Some((term["epoch"].as_i64()?, device.to_owned()))
}

/// Whether no array is left of the epoch.
pub(super) fn is_over(status: &Value) -> bool {
    status["ended"]["epoch"] == status["term"]["epoch"] && status["array"].is_null()
}

/// What the kernel says of copying to a member, once it does.
pub(super) fn wait_for_copying(lab: &Lab, node: &str, array: &str) -> Result<()> {
    wait_for(&format!("{array} on {node} to be copied to"), secs(60), || {
        let said = copying(lab, node, array)?;
        Ok(when(said.starts_with("recover") && said.contains('/'), said))
    })
}

/// `sync_action` and `sync_completed` of an array.
pub(super) fn copying(lab: &Lab, node: &str, array: &str) -> Result<String> {
    let script = format!("cd /sys/block/{array}/md && echo $(cat sync_action sync_completed)");
    Ok(lab.guest(node)?.shell(&script)?.trim().to_owned())
}
