//! Why the objects of a volume are not made. Nothing is changed then, and each says what can be done.

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No partition of it has a superblock.
    #[error(
        "none of its partitions was ever in an array: there is nothing to rebuild. `meshstor quarantine wipe` erases them"
    )]
    NeverWritten,
    /// Label or metadata name are not those of one volume.
    #[error(
        "{partition} says that it is of another volume: its label is {label:?}, its metadata name {name:?}; --name says what the volume was called"
    )]
    Names {
        /// Where.
        partition: String,
        /// GPT label.
        label: String,
        /// MD name.
        name: String,
    },
    /// A name that no volume can have.
    #[error("{0:?} is no name of a volume: --name says what it was called")]
    BadName(String),
    /// The superblocks contradict each other, or no such array is made by MeshStor.
    #[error("{partition} is of no array that MeshStor makes, or of another shape than the others: {what}")]
    Shape {
        /// Where.
        partition: String,
        /// What is odd.
        what: String,
    },
    /// The label and the superblock name other slots.
    #[error("{partition} is in slot {found} of the array, which is none of its own")]
    Slot {
        /// Where.
        partition: String,
        /// Slot by the superblock.
        found: u32,
    },
    /// Somebody may still write.
    #[error(
        "{partition} is in use ({by}): unmount and stop what uses it, or reboot that node, so that nobody writes any more"
    )]
    InUse {
        /// Where.
        partition: String,
        /// Who.
        by: String,
    },
    /// Several partitions of one slot, and nothing tells which is the volume's.
    #[error("{} are of one slot and nothing tells which has left the volume: --start-from names the legs to start from", .0.join(" and "))]
    Contested(Vec<String>),
    /// Every leg of a mirror set is called missing by another.
    #[error(
        "no leg of mirror set {set} is known to hold every write ({}): the legs call each other missing. Where you know which was used last, say so: \
         --start-from LEG,...; every other leg is overwritten from those",
        .legs.join("; ")
    )]
    Ambiguous {
        /// The set.
        set: u32,
        /// Its legs and what is said of them.
        legs: Vec<String>,
    },
    /// No leg of a mirror set is left.
    #[error("no leg of mirror set {0} that could be started from was found; without one the volume cannot start")]
    NoCopy(u32),
    /// A leg is not there that may have gone on alone.
    #[error(
        "slot {slot} had a member when the legs that were found were last written, and it was not found: its node is not up, or its drive is lost. \
         It may be the only one that holds the last writes. Wait for its node; or say with --accept-missing-legs that what only it has is given up for ever"
    )]
    NotFound {
        /// The slot.
        slot: u32,
    },
    /// One leg of two, or one copy.
    #[error(
        "one leg of two slots was found, and the other was out of the array already: say --copies 1 if the volume had one copy, --copies 2 if its other leg is lost"
    )]
    Copies,
    /// The number of copies cannot be.
    #[error("--copies {asked}: the array has {slots} slots in each mirror set, and {legs} of one were found")]
    BadCopies {
        /// What was asked for.
        asked: u32,
        /// Slots of a set.
        slots: u32,
        /// Legs found of one.
        legs: usize,
    },
    /// A leg to start from that was not found, or cannot be started from.
    #[error("--start-from {leg}: {why}")]
    StartFrom {
        /// The leg.
        leg: String,
        /// Why not.
        why: String,
    },
    /// Legs of one mirror set are on one node.
    #[error("{0}: one failure would take both")]
    OneNode(String),
    /// The filesystem is needed to mount.
    #[error("what filesystem it has was not found out: say --filesystem xfs, ext4, or none for a raw device")]
    Filesystem,
    /// A volume of that name, or of that array, is there.
    #[error("{0}")]
    Taken(String),
}
