//! The bodies of one delivery that is being taken in, put into blocks.

use super::blocks::Block;
use super::take_in::{Stored, TakeIn};
use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;

/// Bytes of blocks that one statement carries, about.
const TOGETHER: usize = 1 << 20;

/// See the module.
pub(in crate::outbox) struct Copying<'a> {
    into: &'a TakeIn,
    delivery: DeliveryId,
    block: Block,
    rejects: Block,
    full: Vec<Block>,
    full_rejects: Vec<Block>,
    waiting: usize,
    stored: Stored,
    /// Whether it is stored, or only counted, since it was before.
    store: bool,
}

impl<'a> Copying<'a> {
    pub fn new(into: &'a TakeIn, delivery: DeliveryId, store: bool) -> Self {
        Self {
            into,
            delivery,
            block: Block::default(),
            rejects: Block::default(),
            full: Vec::new(),
            full_rejects: Vec::new(),
            waiting: 0,
            stored: Stored::default(),
            store,
        }
    }

    /// A sealed request. They come in their order, and some may be left out.
    pub fn entry(&mut self, ordinal: u32, record: &[u8], tally: Tally) -> Result<(), Error> {
        let next = self.block.first + u64::from(self.block.entries);
        if u64::from(ordinal) != next {
            let gap = Block::starting(u64::from(ordinal));
            let before = std::mem::replace(&mut self.block, gap);
            self.full(before)?;
        }
        self.stored.bytes += record.len() as u64;
        match self.block.push(record, tally) {
            Some(full) => self.full(full),
            None => Ok(()),
        }
    }

    /// A sealed row that could not be mapped.
    pub fn rejected(&mut self, record: &[u8]) -> Result<(), Error> {
        self.stored.bytes += record.len() as u64;
        self.stored.kept += 1;
        if let Some(full) = self.rejects.push(record, Tally::default()) {
            self.waiting += full.size();
            self.full_rejects.push(full);
        }
        self.send(TOGETHER)
    }

    /// A sealed dead letter.
    pub fn letter(&mut self, id: u64, record: Vec<u8>) -> Result<(), Error> {
        self.full(Block {
            first: letter_place(id),
            entries: 1,
            places: Vec::new(),
            body: record,
        })
    }

    /// Stores what is left, and says what was stored in all.
    pub fn end(mut self) -> Result<Stored, Error> {
        let last = std::mem::take(&mut self.block);
        self.full(last)?;
        let rejects = std::mem::take(&mut self.rejects);
        if rejects.entries > 0 {
            self.full_rejects.push(rejects);
        }
        self.send(0)?;
        Ok(self.stored)
    }

    fn full(&mut self, block: Block) -> Result<(), Error> {
        if block.entries > 0 {
            self.stored.blocks += 1;
            self.stored.entries += u64::from(block.entries);
            self.waiting += block.size();
            self.full.push(block);
        }
        self.send(TOGETHER)
    }

    /// Stores what waits, if it is so many bytes.
    fn send(&mut self, from: usize) -> Result<(), Error> {
        if self.waiting < from {
            return Ok(());
        }
        self.waiting = 0;
        let (blocks, rejects) = (
            std::mem::take(&mut self.full),
            std::mem::take(&mut self.full_rejects),
        );
        match self.store {
            true => self.into.store(self.delivery, blocks, rejects),
            false => Ok(()),
        }
    }
}

/// The place among the blocks where a letter lies until it is one: below those of requests.
fn letter_place(id: u64) -> u64 {
    (-1 - id as i64) as u64
}
