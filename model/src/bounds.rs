//! What a check goes through, and what is left out of the protocol in it.

/// How far a check goes. All of it together decides how many states there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Nodes, with a leg on each.
    pub nodes: u8,
    /// Legs that hold the volume at first: those of the first nodes. The others are blank, and may take an empty slot.
    pub slots: u8,
    /// The highest epoch; the first is 1.
    pub epochs: u8,
    /// Writes of the application, each flushed before it is acknowledged.
    pub writes: u8,
    /// Nodes that lose power, and then boot.
    pub crashes: u8,
    /// Daemons that are killed, and started again.
    pub kills: u8,
    /// Connections that are lost, exports that are closed.
    pub losses: u8,
    /// Requests of daemons that are given up before their outcome is known: they may arrive later, or never.
    pub timeouts: u8,
    /// Members that MD drops with an error, without asking.
    pub errors: u8,
    /// Legs that are retired.
    pub retired: u8,
    /// Arrays that are taken down because they are wanted elsewhere.
    pub stops: u8,
    /// The operator may act upon an older record.
    pub stale: bool,
    /// Drives lose at a crash what was not flushed.
    pub volatile: bool,
    /// The kernel acknowledges nothing that is not on every member of the set that user space agreed to.
    pub gate: bool,
    /// After every step it is tried whether the volume would run again if nothing more went wrong (I4).
    pub heals: bool,
    /// The clause that is not kept.
    pub without: Option<Clause>,
}

/// A clause of the protocol. The number is the one in brackets in `SAFETY.md`: how many steps a model needed to lose data without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clause {
    /// The record lives as long as the volume: an epoch is never used again [6].
    EpochNeverUsedAgain,
    /// The record is replaced whole with `resourceVersion`, never patched [17].
    ReplacedWhole,
    /// S and epoch are on one object [17].
    OneObject,
    /// The operator never adds to S [10].
    OperatorNeverAdds,
    /// Nothing of E+1 is exported before its leg has confirmed [7, 16].
    ExportAfterConfirmation,
    /// Nothing of E+1 starts before the legs that it starts from have confirmed [7, 16].
    StartAfterConfirmation,
    /// A leg confirms when no I/O of an older epoch can land any more: the barrier [7, 16].
    Barrier,
    /// Only confirmation counts: a clean stop is not believed [7, 10].
    CleanStopNotBelieved,
    /// Only confirmation counts: a clean stop is not asked for either [4].
    CleanStopNotRequired,
    /// A local leg is confirmed when no older array of the node holds it [6].
    LocalLegFree,
    /// What the kernel left out is recorded away before the device is shown [16].
    RecordBeforePublish,
    /// One assembly, one epoch [8].
    OneAssembly,
    /// A leg leaves after that is recorded [10].
    RecordThenFail,
    /// ... with a definite outcome [10].
    DefiniteOutcome,
    /// ... by this incarnation, while no other write of it is on its way [10].
    NoOtherWrite,
    /// One daemon process a node [11].
    OneProcess,
    /// A leg that was away comes back after a barrier [15].
    ReturnAfterBarrier,
    /// The array's bitmap is united with the leg's own before a return by bitmap [19].
    BitmapUnion,
    /// `bitmapUsable` of other absent legs is cleared before an addition that could fill the last slot [16].
    BitmapForgotten,
    /// A leg is wiped only when it is retired [11].
    RetireBeforeWipe,
    /// Between two connections of one grant the target finishes what the first left in it: rule 9 [14].
    DoorBetweenConnections,
    /// A rebooted target never serves an old grant again: rule 1.
    GrantServedOnce,
    /// The highest epoch is kept with the leg, on its drive: rule 1.
    EpochWithTheLeg,
    /// Held writes of a fenced consumer never end as success for anyone who sees it.
    HoldersKilledFirst,
}
