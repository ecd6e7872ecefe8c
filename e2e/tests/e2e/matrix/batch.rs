//! A batch from its volumes' creation to their deletion.

use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use meshstor_e2e::chaos::{Batch, Case, Fault, MISSED, Row, Victim};
use meshstor_e2e::lab::{Lab, OUT_OF_SERVICE};
use meshstor_e2e::say;
use meshstor_e2e::wait::{pause, secs};

use super::outage::{self, AGAIN};
use super::prepare::{self, at_once};
use super::scene::{self, Answer, COPIES, Scene};
use super::strike::Strike;
use super::verdict;

/// Shortest outage: more than keep-alive, the wait behind it and the record together.
const SHORTEST: std::time::Duration = secs(7);
/// Longest outage of volumes that nobody gave up: some can go on only when it is over.
const LONGEST: std::time::Duration = secs(12);
/// Longest outage where a volume must move meanwhile.
const TO_MOVE: std::time::Duration = secs(60);

/// Who is who.
struct Roles {
    /// Nodes that are hit, in turn.
    victims: Vec<String>,
    consumer: String,
    /// Where a leg is being copied to.
    copied: String,
    heir: String,
}

impl Roles {
    fn choose(lab: &Lab, batch: &Batch, rng: &mut Rng) -> Result<Self> {
        let mut nodes = lab.nodes();
        rng.shuffle(&mut nodes);
        let [consumer, one, two] = nodes.as_slice() else { bail!("three nodes are needed") };
        let victims = match batch.victim {
            Victim::Consumer => vec![consumer],
            Victim::Target => vec![one],
            Victim::Targets => vec![one, two],
        };
        Ok(Self {
            victims: victims.into_iter().cloned().collect(),
            consumer: consumer.clone(),
            copied: rng.choice(&[one, two]).context("two nodes")?.to_string(),
            heir: two.clone(),
        })
    }
}

/// Runs it. An error of the batch is one of each case that was not over.
pub(super) fn run(lab: &mut Lab, batch: &Batch, seed: u64) -> Vec<Row> {
    // Of the batch alone, so that it is the same whichever others ran before it.
    let mut rng = Rng::with_seed(scene::seed_of(seed, &format!("{}/{}", batch.fault, batch.victim)));
    let case = |moment| Case { fault: batch.fault, victim: batch.victim, moment };
    let outcome = Roles::choose(lab, batch, &mut rng).map(|roles| {
        let new = |moment: &_| Scene::new(case(*moment), &roles.consumer, &roles.heir, seed);
        let mut scenes: Vec<Scene> = batch.moments.iter().map(new).collect();
        let outcome = live(lab, batch, &roles, &mut scenes, &mut rng);
        (scenes, outcome)
    });
    let (scenes, outcome) = match outcome {
        Ok(both) => both,
        Err(error) => (Vec::new(), Err(error)),
    };
    let mut rows: Vec<Row> = scenes.into_iter().map(|scene| scene.row).collect();
    if let Err(error) = outcome {
        rows.iter_mut().for_each(|row| row.wrong.push(format!("the batch was not finished: {error:#}")));
    }
    rows
}

fn live(lab: &mut Lab, batch: &Batch, roles: &Roles, scenes: &mut [Scene], rng: &mut Rng) -> Result<()> {
    let began = Instant::now();
    let mark = verdict::mark(lab)?;
    let (victims, copied) = (&roles.victims, &roles.copied);
    say!("{}/{}: consumer {}, hit {victims:?}, copied to {copied}", batch.fault, batch.victim, roles.consumer);
    prepare::volumes(lab, scenes)?;
    prepare::resync(lab, scenes, &roles.copied)?;
    let strikes: Vec<Strike> =
        victims.iter().map(|node| Strike::prepare(lab, node, batch.fault, rng)).collect::<Result<_>>()?;
    prepare::moments(lab, scenes)?;
    say!("ready after {:.0} s", began.elapsed().as_secs_f64());

    let mut healed = SystemTime::now();
    let mut proofs = Vec::new();
    for (turn, strike) in strikes.iter().enumerate() {
        let (before, fault) = strike.fire(lab)?;
        if turn == 0 {
            scenes.iter_mut().for_each(|scene| (scene.before, scene.fault) = (before, fault));
        }
        if batch.fault != Fault::Reboot {
            let last = turn + 1 == strikes.len();
            during(lab, batch, roles, scenes, &strike.node, last, rng)?;
        }
        proofs.push(strike.heal(lab)?);
        healed = SystemTime::now();
    }
    say!("healed after {:.0} s", began.elapsed().as_secs_f64());
    scenes.iter_mut().for_each(|scene| scene.row.proof = proofs.join(", "));
    after(lab, scenes, &victims[0], healed)?;
    let clean = verdict::kernels(lab, &mark);
    if let Err(error) = clean {
        scenes.iter_mut().for_each(|scene| scene.row.wrong.push(format!("{error:#}")));
    }
    outage::delete(lab, scenes)?;
    say!("{} cases in {:.0} s", scenes.len(), began.elapsed().as_secs_f64());
    Ok(())
}

/// While the fault lasts: what is done about it, and what becomes usable.
fn during(
    lab: &mut Lab,
    batch: &Batch,
    roles: &Roles,
    scenes: &mut [Scene],
    victim: &str,
    last: bool,
    rng: &mut Rng,
) -> Result<()> {
    let began = Instant::now();
    let moves = scenes.iter().any(|scene| scene.answer == Answer::GiveUp);
    if moves {
        pause(std::time::Duration::from_millis(rng.u64(0..3000)));
        // A word for the whole node, or one for each volume.
        if batch.fault == Fault::Kill {
            lab.kubectl(&["taint", "node", &roles.consumer, OUT_OF_SERVICE])?;
        }
        for scene in scenes.iter().filter(|scene| scene.answer == Answer::GiveUp) {
            match batch.fault {
                Fault::Kill => scene.volume(lab).want_on(&scene.home, false)?,
                _ => scene.volume(lab).give_up(&scene.home, false)?,
            }
        }
    }
    // Where the consumer itself can say what its leg holds, nobody can go on without it.
    let must_move = moves && batch.fault != Fault::Data;
    at_once(scenes, |scene| {
        let longest = if must_move && scene.answer == Answer::GiveUp { TO_MOVE } else { LONGEST };
        let seen = scene.follow(lab, victim, began + longest)?;
        match seen {
            Some(seen) if must_move && scene.answer == Answer::GiveUp => {
                scene.row.wrong.push(format!("it did not move while its node was away: {seen}"));
            }
            _ => {}
        }
        Ok(())
    })?;
    pause(SHORTEST.saturating_sub(began.elapsed()));
    if last {
        at_once(scenes, |scene| scene.end_of_outage(lab, victim))?;
    }
    if moves && batch.fault == Fault::Kill {
        lab.kubectl(&["taint", "node", &roles.consumer, &format!("{OUT_OF_SERVICE}-")])?;
    }
    Ok(())
}

/// Afterwards: usable, whole, and as it was promised.
fn after(lab: &Lab, scenes: &mut [Scene], victim: &str, healed: SystemTime) -> Result<()> {
    let until = Instant::now() + AGAIN;
    at_once(scenes, |scene| {
        if let Some(seen) = scene.follow(lab, victim, until)? {
            bail!("{} is not usable again: {seen}", scene.name);
        }
        scene.volume(lab).wait_whole(COPIES)?;
        let whole = SystemTime::now();
        if scene.row.dirtied > 0 {
            scene.row.resynced = scene.copied(lab)?;
        }
        scene.note_times(healed, whole);
        let goes_on = scene.write_on(lab);
        scene.note("it does not go on", goes_on);
        match scene.moment(lab) {
            Ok(moment) => scene.row.moment = moment,
            Err(error) => scene.row.moment = format!("{MISSED}: {error:#}"),
        }
        scene.judge(lab)
    })
}
