//! What was found of legs on the drives of all nodes: the only input of the planning.

use meshstor_crds::{Bitmap, naming};

/// A partition of a leg that belongs to no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Node.
    pub node: String,
    /// Identity of the drive.
    pub drive: String,
    /// GPT partition UUID, in lower case.
    pub partition: String,
    /// GPT label: the name of the leg, up to its 36th character.
    pub label: String,
    /// Bytes of the partition.
    pub bytes: u64,
    /// Who uses it, or why that cannot be known.
    pub in_use: Option<String>,
    /// Its superblock; none where there is none that is whole.
    pub member: Option<Member>,
    /// What its ledger says.
    pub told: Told,
}

/// What the ledger of a leg's drive says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The highest epoch that it was told of, and whether it is zeros that nobody has used.
    Of {
        /// Epoch.
        epoch: i64,
        /// Nobody has used it.
        blank: bool,
    },
    /// Nothing, or the ledger is lost.
    Unknown,
}

/// What an MD superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Array UUID, in lower case.
    pub array: String,
    /// Metadata name of the array.
    pub name: String,
    /// RAID level.
    pub level: i32,
    /// Slots.
    pub slots: u32,
    /// Near copies of a RAID10.
    pub near: Option<u32>,
    /// Number of the device in its array; a later device may get that of one that has left.
    pub number: Option<u32>,
    /// Slot; none of a spare, or of one that was failed.
    pub slot: Option<u32>,
    /// The slot of each device of the array, by number, when this superblock was last written.
    pub roles: Vec<Option<u32>>,
    /// It was being filled.
    pub filling: bool,
    /// Event counter.
    pub events: u64,
    /// Bytes of array data on each member.
    pub component: u64,
    /// Write-intent bitmap, where it is known.
    pub bitmap: Option<Bitmap>,
}

impl Found {
    /// Volume, slot and generation by the label; none where that is no leg's name, or may have been cut short.
    pub fn named(&self) -> Option<(&str, i32, u32)> {
        naming::parse_leg(&self.label).filter(|_| !self.is_cut())
    }

    /// The label is as long as a label can be: what it says may be the beginning of a longer name.
    pub fn is_cut(&self) -> bool {
        self.label.encode_utf16().count() >= 36
    }

    /// For people.
    pub fn place(&self) -> String {
        format!("{} on {} ({})", self.label, self.node, self.drive)
    }
}

impl Member {
    /// The mirror set that a slot of this array is of: legs of one set hold the same blocks.
    pub fn set_of(&self, slot: u32) -> u32 {
        slot / self.set_slots().max(1)
    }

    /// Slots of a mirror set.
    pub fn set_slots(&self) -> u32 {
        if self.level == 1 { self.slots } else { self.near.unwrap_or(0) }
    }

    /// Whether this superblock has `other` for a member in the slot that it says of itself.
    pub fn knows(&self, other: &Self) -> bool {
        let role = other.number.and_then(|n| self.roles.get(usize::try_from(n).ok()?).copied().flatten());
        other.slot.is_some() && role == other.slot
    }
}
