//! I1, I2, I4: every clause of the protocol is needed. Without it something breaks; with it nothing does in as many steps.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod check;

use check::{SMALL, check};
use meshstor_model::{Bounds, Clause, Violation};

/// A link is lost once.
const LOSS: Bounds = Bounds { losses: 1, ..SMALL };
/// And there are two writes.
const WRITES: Bounds = Bounds { writes: 2, ..LOSS };

/// `bracket`: the number of steps that `SAFETY.md` gives for the clause, whose steps are larger or smaller than these; 0 for none.
fn caught(clause: Clause, bracket: usize, bounds: Bounds) {
    let name = format!("without {clause:?} [{bracket}]");
    let broken = check(&name, Bounds { without: Some(clause), ..bounds }, None).broken;
    let Some((what, steps)) = broken else { panic!("{clause:?} may be left out within these bounds") };
    assert_eq!(what == Violation::Stranded, clause == Clause::CleanStopNotRequired, "{steps:#?}");
    let control = check(&format!("with {clause:?}"), bounds, Some(steps.len())).broken;
    assert!(control.is_none(), "it is not this clause: {control:#?}");
}

macro_rules! caught {
    ($($name:ident: $clause:ident [$bracket:literal], $bounds:expr;)*) => {
        $(#[test] fn $name() { caught(Clause::$clause, $bracket, $bounds) })*
    };
}

caught! {
    an_epoch_used_again: EpochNeverUsedAgain [6], SMALL;
    a_record_that_is_patched: ReplacedWhole [17], Bounds { timeouts: 1, ..SMALL };
    two_objects: OneObject [17], Bounds { timeouts: 1, ..SMALL };
    an_operator_that_adds: OperatorNeverAdds [10], SMALL;
    an_export_before_its_leg_confirmed: ExportAfterConfirmation [7], LOSS;
    a_start_before_its_legs_confirmed: StartAfterConfirmation [7], SMALL;
    a_confirmation_without_a_barrier: Barrier [16], SMALL;
    a_clean_stop_that_is_believed: CleanStopNotBelieved [7], Bounds { crashes: 1, ..SMALL };
    a_clean_stop_that_is_required: CleanStopNotRequired [4], Bounds { crashes: 1, heals: true, ..SMALL };
    a_local_leg_under_an_old_array: LocalLegFree [6], SMALL;
    a_device_shown_before_the_record: RecordBeforePublish [16], SMALL;
    a_second_assembly: OneAssembly [8], Bounds { epochs: 1, crashes: 1, ..LOSS };
    a_leg_failed_before_the_record: RecordThenFail [10], SMALL;
    an_unknown_outcome: DefiniteOutcome [10], Bounds { timeouts: 1, ..SMALL };
    another_write_on_its_way: NoOtherWrite [10], LOSS;
    two_processes: OneProcess [11], Bounds { kills: 1, ..LOSS };
    a_return_without_a_barrier: ReturnAfterBarrier [15], Bounds { epochs: 1, losses: 2, ..WRITES };
    a_return_by_the_bitmap_of_the_array_alone: BitmapUnion [19], LOSS;
    a_bitmap_that_was_cleared_without_the_leg: BitmapForgotten [16], Bounds { nodes: 3, epochs: 1, ..LOSS };
    a_leg_wiped_that_may_return: RetireBeforeWipe [11], Bounds { retired: 1, stale: true, ..LOSS };
    two_connections_of_one_grant: DoorBetweenConnections [14], Bounds { epochs: 1, ..WRITES };
    an_old_grant_after_a_reboot: GrantServedOnce [0], Bounds { epochs: 1, crashes: 1, volatile: true, ..LOSS };
    an_epoch_that_is_forgotten: EpochWithTheLeg [0], Bounds { crashes: 1, stale: true, ..SMALL };
    a_held_write_that_ends_well: HoldersKilledFirst [0], SMALL;
}
