//! The drive without a guest: what it keeps, loses, holds and refuses.

use std::sync::mpsc::{Receiver, channel};

use proptest::prelude::*;

use super::cache::{PAGE, SECTOR};
use super::*;

const BYTES: usize = 8 * PAGE;

impl Medium for Vec<u8> {
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        into.copy_from_slice(&self[at..at + into.len()]);
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        self[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }
}

fn content<M: Medium>(cache: &Cache<M>) -> Vec<u8> {
    let mut all = vec![0; BYTES];
    cache.read(0, &mut all).unwrap();
    all
}

/// What was flushed is there after a power cut, and what was not is gone; before it, both are read.
#[test]
fn a_power_cut_takes_what_was_not_flushed() {
    let mut cache = Cache::new(vec![0; BYTES]);
    cache.write(100, b"flushed").unwrap();
    cache.flush().unwrap();
    cache.write(104, b"not flushed").unwrap();
    assert_eq!(&content(&cache)[100..115], b"flusnot flushed");
    assert_eq!(cache.cut(Survival::Nothing).unwrap(), Loss { unflushed: 1, lost: 1 });
    assert_eq!(&content(&cache)[100..115], b"flushed\0\0\0\0\0\0\0\0");
}

/// Chance loses pages, keeps pages, tears pages, and reorders writes to one page.
#[test]
fn chance_does_all_that_a_drive_may_do() {
    let (mut lost, mut kept, mut torn, mut older) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut cache = Cache::new(vec![0; BYTES]);
        cache.write(0, &[1; PAGE]).unwrap();
        cache.write(0, &[2; PAGE]).unwrap();
        cache.cut(Survival::Chance(seed)).unwrap();
        let page = &content(&cache)[..PAGE];
        match page[0] {
            _ if page.iter().any(|byte| *byte != page[0]) => torn += 1,
            0 => lost += 1,
            1 => older += 1,
            _ => kept += 1,
        }
    }
    assert!(lost > 5 && kept > 5 && torn > 5 && older > 5, "{lost} {kept} {torn} {older}");
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Zero(usize, usize),
    Flush,
    Cut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let place = |length: usize| 0..BYTES - length;
    prop_oneof![
        6 => (1_usize..3 * PAGE, any::<u8>())
            .prop_flat_map(move |(length, byte)| (place(length), Just(vec![byte; length])))
            .prop_map(|(at, data)| Step::Write(at, data)),
        1 => (1_usize..2 * PAGE).prop_flat_map(move |length| (place(length), Just(length))).prop_map(|(at, n)| Step::Zero(at, n)),
        2 => Just(Step::Flush),
        1 => any::<u64>().prop_map(Step::Cut),
    ]
}

proptest! {
    /// Against a plain array: everything is read as it was written; and after a power cut each sector is what it was at some moment
    /// since the last flush.
    #[test]
    fn a_cache_is_an_array_until_the_power_is_cut(steps in proptest::collection::vec(step(), 1..60)) {
        let mut cache = Cache::new(vec![0; BYTES]);
        let mut now = vec![0; BYTES];
        let mut since_flush = vec![now.clone()];
        for step in steps {
            match step {
                Step::Write(at, data) => {
                    cache.write(at as u64, &data).unwrap();
                    // A write of several pages is not one moment: each page has its own.
                    for (n, byte) in data.iter().enumerate() {
                        now[at + n] = *byte;
                        if (at + n + 1) % PAGE == 0 {
                            since_flush.push(now.clone());
                        }
                    }
                    since_flush.push(now.clone());
                }
                Step::Zero(at, length) => {
                    cache.zero(at as u64, length as u64).unwrap();
                    now[at..at + length].fill(0);
                    since_flush.push(now.clone());
                }
                Step::Flush => {
                    cache.flush().unwrap();
                    since_flush = vec![now.clone()];
                }
                Step::Cut(seed) => {
                    cache.cut(Survival::Chance(seed)).unwrap();
                    let left = content(&cache);
                    for at in (0..BYTES).step_by(SECTOR) {
                        let sector = at..at + SECTOR;
                        prop_assert!(since_flush.iter().any(|then| then[sector.clone()] == left[sector.clone()]), "sector at {}", at);
                    }
                    now = left;
                    since_flush = vec![now.clone()];
                }
            }
            prop_assert!(content(&cache) == now);
        }
    }
}

fn drive(name: &str) -> Arc<Drive> {
    let path = std::env::temp_dir().join(format!("meshstor-drive-{name}-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(BYTES as u64).unwrap();
    let drive = Drive::new(file).unwrap();
    drive.power_on();
    drive
}

fn ask(drive: &Arc<Drive>, request: Request) -> Receiver<Answer> {
    let (answer, answers) = channel();
    drive.submit(request, Box::new(move |a| drop(answer.send(a))));
    answers
}

fn write(at: u64, byte: u8) -> Request {
    Request::Write { at, data: vec![byte; SECTOR] }
}

fn byte_at(drive: &Arc<Drive>, at: u64) -> u8 {
    ask(drive, Request::Read { at, length: 1 }).recv().unwrap().unwrap()[0]
}

/// A write that was held is carried out when it is let go, over a newer one that was done meanwhile.
#[test]
fn an_old_write_lands_over_a_newer_one() {
    let drive = drive("hold");
    let here = Which { kinds: Kinds::Writes, range: 512..1024 };
    drive.set(vec![Fault::Hold(here, 1)]);
    let old = ask(&drive, write(512, 1));
    assert!(old.try_recv().is_err());
    assert_eq!(drive.inside(), 1);
    ask(&drive, write(512, 2)).recv().unwrap().unwrap();
    ask(&drive, write(0, 3)).recv().unwrap().unwrap();
    assert_eq!(byte_at(&drive, 512), 2);
    assert_eq!(drive.release(), 1);
    old.recv().unwrap().unwrap();
    assert_eq!((byte_at(&drive, 512), byte_at(&drive, 0)), (1, 3));
}

/// After a power cut nothing of before is carried out: not what was held, and not what was late.
#[test]
fn a_power_cut_ends_what_is_inside() {
    let drive = drive("cut");
    let early = Which { kinds: Kinds::Writes, range: 0..512 };
    drive.set(vec![
        Fault::Hold(early, 1),
        Fault::Slow(Which { kinds: Kinds::Writes, range: 512..1024 }, Duration::from_millis(50)),
    ]);
    let (held, late) = (ask(&drive, write(0, 1)), ask(&drive, write(512, 2)));
    ask(&drive, write(4096, 3)).recv().unwrap().unwrap();
    assert_eq!(drive.cut(Survival::Nothing).unwrap().lost, 1);
    assert!(held.recv().unwrap().is_err());
    assert!(ask(&drive, write(0, 4)).recv().unwrap().is_err(), "it has no power");
    drive.power_on();
    assert!(late.recv().unwrap().is_err());
    assert_eq!((drive.release(), byte_at(&drive, 0), byte_at(&drive, 512), byte_at(&drive, 4096)), (0, 0, 0, 0));
}

/// Requests fail by kind and by place, and a failed flush has flushed nothing.
#[test]
fn a_drive_fails_what_it_was_told_to() {
    let drive = drive("fail");
    drive.set(vec![
        Fault::Fail(Which { kinds: Kinds::Reads, range: 512..1024 }),
        Fault::Fail(Which::any(Kinds::Flushes)),
    ]);
    ask(&drive, write(512, 1)).recv().unwrap().unwrap();
    assert!(ask(&drive, Request::Read { at: 0, length: 513 }).recv().unwrap().is_err());
    assert_eq!(byte_at(&drive, 1024), 0);
    assert!(ask(&drive, Request::Flush).recv().unwrap().is_err());
    drive.set(Vec::new());
    assert_eq!(drive.counts().errors, 2);
    drive.cut(Survival::Nothing).unwrap();
    drive.power_on();
    assert_eq!(byte_at(&drive, 512), 0);
    ask(&drive, write(512, 1)).recv().unwrap().unwrap();
    ask(&drive, Request::Flush).recv().unwrap().unwrap();
    drive.cut(Survival::Nothing).unwrap();
    drive.power_on();
    assert_eq!(byte_at(&drive, 512), 1);
    assert_eq!(ask(&drive, Request::Read { at: BYTES as u64 - 1, length: 9 }).recv().unwrap().unwrap().len(), 1);
}
