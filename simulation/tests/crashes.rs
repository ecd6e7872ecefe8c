//! I5: a process that dies before or after any single effect of a volume's whole life does no harm.

#![allow(clippy::panic, missing_docs)]

use std::sync::Arc;

use meshstor_node_daemon::host::crash::CrashPoint;
use meshstor_simulation::lives::{Mortal, run};

fn whole(mortal: Mortal) -> u64 {
    let point = CrashPoint::never();
    let outcome = run(mortal, &point, true);
    let tail = outcome.log.len().saturating_sub(80);
    assert!(outcome.failure.is_none(), "{}\n{:?}", outcome.log[tail..].join("\n"), outcome.failure);
    assert!(point.effects() > 10, "{mortal:?} has effects");
    point.effects()
}

fn every_crash(mortal: Mortal) {
    let effects = whole(mortal);
    println!("{mortal:?}: {effects} effects");
    for k in 1..=effects {
        for point in [CrashPoint::before(k), CrashPoint::after(k)] {
            let outcome = run(mortal, &point, false);
            assert!(point.dead(), "{mortal:?}: the fault fired at {k} of {effects}");
            if let Some(failure) = outcome.failure {
                let again = if Arc::strong_count(&point) > 0 { format!("{point:?}") } else { String::new() };
                panic!("{mortal:?}, effect {k} of {effects}: {failure}\n{again}");
            }
        }
    }
}

#[test]
fn the_operator_dies_anywhere() {
    every_crash(Mortal::Operator);
}

#[test]
fn a_daemon_dies_anywhere() {
    Mortal::ALL.into_iter().filter(|m| *m != Mortal::Operator).for_each(every_crash);
}
