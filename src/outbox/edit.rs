//! A dead letter whose payload a person has mended.
//!
//! Nothing is overwritten: the mended payload becomes a record of its own behind the others, with
//! the place of the old one in its delivery, and the old one is let go in the same change of the
//! state. Durable before the answer. After a crash between the two the old letter is there as it
//! was; when the state is lost and built anew, the later record of a place is the one that counts,
//! which is the mended one.

use super::Outbox;
use super::change::Change;
use super::codec::cut;
use super::dead::{DeadMeta, LetterId, MAX_REASON};
use super::delivery::Tally;
use super::error::Error;
use super::owner::{Command, Loss, Owner};
use super::record::Slice;
use super::state::{Bits, Letter};

/// Ends the reason of a letter that is not what was sent any more.
const EDITED: &str = " (edited since)";

impl Outbox {
    /// Puts another payload into a dead letter and returns its new name; `None`: it is not there,
    /// or it waits to be sent again. Its rows, its tries and its reason stay. Durable on return.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The payload is too large for a record, or the outbox refuses writes: the letter is as it
    /// was. Or the disk failed: then it may have been exchanged all the same, under another name.
    pub fn edit(&self, id: LetterId, payload: Vec<u8>) -> Result<Option<LetterId>, Error> {
        self.ask(|reply| Command::Edit(id, payload, reply))
    }
}

impl Owner {
    /// Writes the mended record and puts the exchange into the change.
    pub(super) fn edit(
        &mut self,
        id: LetterId,
        payload: &[u8],
        change: &mut Change,
    ) -> Result<Option<LetterId>, Error> {
        self.shared().check_healthy()?;
        let letter = change.letter(&self.shared().index(), id.letter);
        let known = self.shared().index().letter(id.letter);
        let dead = |letter: &Letter| letter.queued.is_none() && letter.live.get(id.slice);
        let (Some(mut old), Some((delivery, _))) = (letter.filter(dead), known) else {
            return Ok(None);
        };
        let Ok(read) = self.shared().read_letter(delivery, &old) else {
            self.lose(&[Loss::Letter(id.letter)], change);
            return Ok(None);
        };
        let at = id.slice as usize;
        let (Some(slice), Some(&rows)) = (read.meta.slices.get(at), read.record.rows.get(at))
        else {
            return Ok(None);
        };
        let mut slice = slice.clone();
        if !slice.reason.ends_with(EDITED) {
            slice.reason = cut(&slice.reason, MAX_REASON - EDITED.len()).to_owned() + EDITED;
        }
        let meta = DeadMeta {
            replaces: Some(id.letter),
            slices: vec![slice],
            ..read.meta
        };
        let slices = [Slice {
            bytes: payload,
            rows,
        }];
        let place = self.append_dead(&meta, old.ordinal, &slices)?;
        self.sync_dead()?;
        let tally = Tally {
            rows: u64::from(rows),
            batches: 1,
        };
        let mended = Letter {
            file: place.file,
            offset: place.offset,
            length: place.length,
            live: Bits::all(1),
            tally,
            ..old.clone()
        };
        old.live.set(id.slice, false);
        old.tally -= tally;
        let index = self.shared().index();
        if old.live.count() == 0 {
            change.drop_letter(id.letter);
        } else {
            change.put_letter(id.letter, old);
        }
        let letter = change.add_letter(&index, mended);
        drop(index);
        if let Some((number, length)) = self.dead.current() {
            change.set_dead_file(number, Some(length));
        }
        self.dead.roll();
        Ok(Some(LetterId { letter, slice: 0 }))
    }
}
