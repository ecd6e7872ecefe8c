//! The write cache of a drive, as a model: what was written since the last flush lies over the medium, and a power cut decides
//! what of it the medium gets.
//!
//! What a drive may do is taken from what block devices promise. After a flush, all that was written before is on the medium.
//! Without one, each sector holds after a power cut what it held at *some* moment since the last flush: the drive wrote in any
//! order, and a write of many sectors may be torn between two of them.

use std::collections::BTreeMap;
use std::io;

/// Bytes that the cache keeps together; older contents of a page are kept too, until the flush.
pub const PAGE: usize = 4096;
/// Bytes that a power cut never tears: the logical block of the lab's drives.
pub const SECTOR: usize = 512;
/// Versions of pages that are kept at most: 64 MiB. A full cache is written back, as a drive does with its own.
const ROOM: usize = (64 << 20) / PAGE;

/// What keeps its content without power.
pub trait Medium {
    /// Fills `into` with what lies at `at`.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Puts `from` at `at`.
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()>;
}

/// What becomes, at a power cut, of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// All of it is gone: the most that a drive may lose.
    Nothing,
    /// Chance decides by this seed, for each page or (in one page of two) for each sector of it.
    Chance(u64),
}

/// What a power cut took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Pages that held something unflushed.
    pub unflushed: usize,
    /// Those of them that do not hold the newest of it.
    pub lost: usize,
}

type Page = Box<[u8; PAGE]>;

/// A write cache over a medium.
pub struct Cache<M> {
    medium: M,
    /// By page number: its content after each write since the last flush, the newest last.
    pages: BTreeMap<u64, Vec<Page>>,
    versions: usize,
}

impl<M: Medium> Cache<M> {
    /// An empty cache.
    pub fn new(medium: M) -> Self {
        Self { medium, pages: BTreeMap::new(), versions: 0 }
    }

    /// What a guest sees: the newest of everything.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        for piece in pieces(at, into.len()) {
            let part = &mut into[piece.from..piece.from + piece.length];
            match self.newest(piece.page) {
                Some(page) => part.copy_from_slice(&page[piece.within..piece.within + piece.length]),
                None => self.medium.read(piece.at(), part)?,
            }
        }
        Ok(())
    }

    /// Takes a write; nothing of it need be on the medium.
    pub fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        for piece in pieces(at, from.len()) {
            let mut page = self.whole(piece.page)?;
            page[piece.within..piece.within + piece.length]
                .copy_from_slice(&from[piece.from..piece.from + piece.length]);
            self.pages.entry(piece.page).or_default().push(page);
            self.versions += 1;
        }
        if self.versions > ROOM { self.flush() } else { Ok(()) }
    }

    /// Zeroes `length` bytes: a write like any other.
    pub fn zero(&mut self, at: u64, length: u64) -> io::Result<()> {
        let zeros = [0; 64 * PAGE];
        let mut done = 0;
        while done < length {
            let now = (length - done).min(zeros.len() as u64);
            self.write(at + done, &zeros[..usize::try_from(now).unwrap_or(0)])?;
            done += now;
        }
        Ok(())
    }

    /// Has everything on the medium before it returns. After an error what was not written is in the cache still.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(entry) = self.pages.first_entry() {
            if let Some(page) = entry.get().last() {
                self.medium.write(*entry.key() * PAGE as u64, &page[..])?;
            }
            self.versions -= entry.remove().len();
        }
        Ok(())
    }

    /// A power cut: the cache is empty, and the medium has of it what `survival` leaves.
    pub fn cut(&mut self, survival: Survival) -> io::Result<Loss> {
        let pages = std::mem::take(&mut self.pages);
        self.versions = 0;
        let mut loss = Loss { unflushed: pages.len(), lost: 0 };
        let Survival::Chance(seed) = survival else { return Ok(Loss { lost: loss.unflushed, ..loss }) };
        let mut chance = Chance(seed);
        for (number, versions) in pages {
            let mut old = [0; PAGE];
            self.medium.read(number * PAGE as u64, &mut old)?;
            let torn = chance.below(2) == 1;
            let unit = if torn { SECTOR } else { PAGE };
            let mut left = old;
            for start in (0..PAGE).step_by(unit) {
                // The content of the medium is one more version, the oldest.
                let chosen = chance.below(versions.len() as u64 + 1);
                let version = usize::try_from(chosen).ok().and_then(|n| n.checked_sub(1)).and_then(|n| versions.get(n));
                if let Some(page) = version {
                    left[start..start + unit].copy_from_slice(&page[start..start + unit]);
                }
            }
            loss.lost += usize::from(versions.last().is_some_and(|newest| newest[..] != left[..]));
            self.medium.write(number * PAGE as u64, &left)?;
        }
        Ok(loss)
    }

    /// Pages that hold something unflushed.
    pub fn unflushed(&self) -> usize {
        self.pages.len()
    }

    fn newest(&self, page: u64) -> Option<&Page> {
        self.pages.get(&page)?.last()
    }

    fn whole(&self, number: u64) -> io::Result<Page> {
        if let Some(page) = self.newest(number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE]);
        self.medium.read(number * PAGE as u64, &mut page[..])?;
        Ok(page)
    }
}

/// A part of a request that lies in one page.
struct Piece {
    page: u64,
    within: usize,
    /// Where it begins in the request's buffer.
    from: usize,
    length: usize,
}

impl Piece {
    fn at(&self) -> u64 {
        self.page * PAGE as u64 + self.within as u64
    }
}

fn pieces(at: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = at + from as u64;
        let within = usize::try_from(start % PAGE as u64).unwrap_or(0);
        let piece = Piece { page: start / PAGE as u64, within, from, length: (PAGE - within).min(length - from) };
        from += piece.length;
        (piece.length > 0).then_some(piece)
    })
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
