//! I1, I2, I4, I6: with every clause nothing breaks, whatever happens within the bounds.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod check;

use check::{SMALL, check};
use meshstor_model::{Bounds, Violation};

fn sound(name: &str, bounds: Bounds) {
    if let Some((what, steps)) = check(name, bounds, None).broken {
        panic!("{name}: {what:?} in {} steps:\n{}", steps.len(), steps.join("\n"));
    }
}

macro_rules! sound {
    ($($name:ident: $bounds:expr;)*) => { $(#[test] fn $name() { sound(stringify!($name), $bounds) })* };
}

sound! {
    a_link_is_lost: Bounds { losses: 1, writes: 2, ..SMALL };
    an_outcome_is_unknown: Bounds { timeouts: 1, ..SMALL };
    a_node_dies: Bounds { crashes: 1, volatile: true, ..SMALL };
    a_daemon_dies: Bounds { kills: 1, ..SMALL };
    a_link_is_lost_and_a_node_dies: Bounds { losses: 1, crashes: 1, ..SMALL };
    a_link_is_lost_and_a_daemon_dies: Bounds { losses: 1, kills: 1, ..SMALL };
    a_link_is_lost_and_an_outcome_is_unknown: Bounds { losses: 1, timeouts: 1, ..SMALL };
    three_epochs: Bounds { epochs: 3, ..SMALL };
    a_third_leg: Bounds { nodes: 3, ..SMALL };
    a_leg_is_retired_by_an_old_record: Bounds { retired: 1, stale: true, ..SMALL };
    // A planned move: an array is stopped, and the volume goes on elsewhere.
    a_volume_moves: Bounds { stops: 1, losses: 1, ..SMALL };
    // A leg leaves, a blank one takes its slot, and the first is wiped.
    a_leg_is_replaced: Bounds { nodes: 3, epochs: 1, losses: 1, writes: 2, retired: 1, ..SMALL };
    // The kernel of the gate acknowledges nothing that user space has not agreed to lose.
    an_error_behind_the_gate: Bounds { errors: 1, gate: true, ..SMALL };
    it_heals: Bounds { heals: true, ..SMALL };
}

/// What stays open on a stock kernel: MD drops a member by itself, and acknowledges before anybody has recorded it.
#[test]
fn an_error_on_a_stock_kernel_loses_a_write() {
    let broken = check("an error, stock kernel", Bounds { errors: 1, ..SMALL }, None).broken;
    assert!(matches!(broken, Some((Violation::Lost, _))), "the window is closed? {broken:#?}");
}
