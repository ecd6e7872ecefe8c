//! What the blocks of a batch are, and what is in them.

use super::BLOCK;

/// First bytes of a written block.
const MAGIC: &[u8; 8] = b"meshstor";
/// Blocks that one batch writes.
const PER_BATCH: u64 = 32;

/// Size and seed of a run.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of blocks.
    pub blocks: u64,
    /// Tells one run from another on the same disk.
    pub seed: u64,
}

impl Shape {
    /// The blocks that `batch` writes. The first batches write every block once, in order, so that all is known soon.
    pub fn batch(&self, batch: u64) -> Vec<u64> {
        let start = (batch - 1) * PER_BATCH;
        if start < self.blocks {
            return (start..self.blocks.min(start + PER_BATCH)).collect();
        }
        (0..PER_BATCH).map(|i| mix(self.seed ^ mix(batch * PER_BATCH + i)) % self.blocks).collect()
    }
}

/// splitmix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a written block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// The batch that wrote it.
    pub batch: u64,
    /// The run that wrote it.
    pub seed: u64,
}

impl Block {
    /// Fills `bytes` (of [`BLOCK`] bytes): magic, number, batch, seed, noise, CRC-32 of all before it.
    pub fn encode(&self, bytes: &mut [u8]) {
        let (body, sum) = bytes.split_at_mut(BLOCK - 4);
        let head = [*MAGIC, self.number.to_le_bytes(), self.batch.to_le_bytes(), self.seed.to_le_bytes()].concat();
        let mut noise = mix(self.seed ^ mix(self.number) ^ self.batch);
        for (at, word) in body.chunks_mut(8).enumerate() {
            if let Some(known) = head.get(at * 8..at * 8 + 8) {
                word.copy_from_slice(known);
            } else {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word.copy_from_slice(&noise.to_le_bytes()[..word.len()]);
            }
        }
        sum.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    }

    /// What a block says, `None` for zeros.
    ///
    /// # Errors
    /// A block that is neither zeros nor whole.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let word =
            |at: usize| bytes.get(at * 8..at * 8 + 8).and_then(|w| w.try_into().ok()).map_or(0, u64::from_le_bytes);
        let found = Self { number: word(1), batch: word(2), seed: word(3) };
        let mut expected = vec![0; BLOCK];
        found.encode(&mut expected);
        if expected == bytes { Ok(Some(found)) } else { Err("neither zeros nor a whole block of the writer") }
    }
}
