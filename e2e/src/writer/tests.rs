//! The oracle is only worth something if it finds what it is for.

use super::*;

const SHAPE: Shape = Shape { blocks: 64, seed: 7 };

/// A written target of 10 batches with its journal, in a directory of its own.
fn written(name: &str) -> (Target, PathBuf) {
    let dir = std::env::temp_dir().join(format!("meshstor-writer-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&dir).ok();
    std::fs::create_dir_all(&dir).unwrap();
    let target = Target { path: dir.join("data"), direct: false, shape: SHAPE };
    let journal = dir.join("journal");
    std::fs::write(&target.path, vec![0; 64 * BLOCK]).unwrap();
    assert_eq!(target.write(&journal, &dir.join("stop"), 10, Duration::ZERO).unwrap(), 10);
    (target, journal)
}

fn forget_last_flush(journal: &Path) {
    let text = std::fs::read_to_string(journal).unwrap();
    let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with("f 10 ")).collect();
    std::fs::write(journal, kept.join("\n") + "\nf 1").unwrap();
}

fn put(target: &Target, number: u64, batch: u64) {
    let mut bytes = vec![0; BLOCK];
    Block { number, batch, seed: SHAPE.seed }.encode(&mut bytes);
    File::options().write(true).open(&target.path).unwrap().write_all_at(&bytes, number * BLOCK as u64).unwrap();
}

/// What was written and flushed is found, and a writer that starts again goes on where it was.
#[test]
fn a_whole_run_verifies() {
    let (target, journal) = written("whole");
    assert_eq!(target.verify(&journal).unwrap(), 64);
    assert_eq!(target.write(&journal, Path::new("/nonexistent"), 5, Duration::ZERO).unwrap(), 15);
    assert_eq!(target.verify(&journal).unwrap(), 64);
}

/// A flushed block that holds an older batch is a lost write.
#[test]
fn an_older_batch_is_found_out() {
    let (target, journal) = written("older");
    let number = SHAPE.batch(10)[0];
    let older = (1..10).rev().find(|b| SHAPE.batch(*b).contains(&number)).unwrap();
    put(&target, number, older);
    let error = target.verify(&journal).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains(&format!("block {number}:")), "{error}");
    forget_last_flush(&journal);
    target.verify(&journal).unwrap();
}

/// A batch that was never issued, a block in the wrong place, a torn block and zeros are all found out.
#[test]
fn inventions_are_found_out() {
    let (target, journal) = written("invented");
    put(&target, 3, 11);
    assert!(target.verify(&journal).is_err());
    let damages: [fn(&File); 2] = [
        |file| file.write_all_at(&[0; BLOCK], 5 * BLOCK as u64).unwrap(),
        |file| file.write_all_at(b"torn", 9 * BLOCK as u64 + 2048).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let (target, journal) = written(&format!("damage{number}"));
        damage(&File::options().write(true).open(&target.path).unwrap());
        assert!(target.verify(&journal).is_err());
    }
}

/// A run of so many batches, all flushed but the last `open`.
fn run(seed: u64, batches: u64, open: u64) -> Run {
    let at = SystemTime::UNIX_EPOCH;
    let flushes = (1..=batches - open).map(|batch| Flush { batch, began: at, ended: at }).collect();
    Run { shape: Shape { blocks: 64, seed }, journal: Journal { issued: batches, flushes, errors: Vec::new() } }
}

/// What is on a device after these runs.
fn after(runs: &[&Run]) -> Scan {
    let mut found = vec![Found::Zeros; 64];
    for run in runs {
        for batch in 1..=run.journal.issued {
            for number in run.shape.batch(batch) {
                found[usize::try_from(number).unwrap()] = Found::Written { seed: run.shape.seed, batch };
            }
        }
    }
    Scan(found)
}

/// Of two runs on one device the newer one's writes stand over all of the older one's: what the older one writes late is found out.
#[test]
fn a_late_write_of_an_older_run_is_found_out() {
    let (old, new) = (run(7, 12, 0), run(8, 6, 1));
    let runs = [old.clone(), new.clone()];
    let mut scan = after(&[&old, &new]);
    assert_eq!(scan.judge(&runs).check().unwrap(), 64);
    assert_eq!(Scan::parse(&scan.text()).unwrap(), scan);
    let number = old.shape.batch(12)[0];
    scan.0[usize::try_from(number).unwrap()] = Found::Written { seed: 7, batch: 12 };
    let verdict = scan.judge(&runs);
    assert_eq!(verdict.wrong.len(), 1);
    assert!(verdict.lost >= 1, "{verdict:?}");
}

/// Each acknowledged write to a block that is newer than what it holds counts as lost; one that was not flushed does not.
#[test]
fn lost_writes_are_counted() {
    let (whole, seen) = (run(7, 10, 0), run(7, 8, 0));
    let verdict = after(&[&seen]).judge(std::slice::from_ref(&whole));
    let of_two: std::collections::BTreeSet<_> = [9, 10].iter().flat_map(|b| SHAPE.batch(*b)).collect();
    assert_eq!((verdict.lost_batches, verdict.wrong.len()), (2, of_two.len()));
    assert!(verdict.lost >= of_two.len() as u64 && verdict.lost <= 64, "{verdict:?}");
    assert_eq!(after(&[&seen]).judge(&[run(7, 10, 2)]).check().unwrap(), 64);
    assert!(Scan::parse("7 x").is_err());
}
