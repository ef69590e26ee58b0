//! A dead letter whose payload a person has mended.
//!
//! Nothing is overwritten: the mended payload becomes a record of its own behind the others, with
//! the place of the old one in its delivery, and the old one is let go in the same change of the
//! state. Durable before the answer. After a crash between the two the old letter is there as it
//! was; when the state is lost and rebuilt, the later record of a place is the one that counts,
//! which is the mended one.

use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::letter::LetterId;
use crate::outbox::local::files::read::sound;
use crate::outbox::local::owner::command::Loss;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::owner::lose;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::rows::{Bits, Letter};
use crate::outbox::record::Slice;

/// Writes the mended record and puts the exchange into the change.
pub(in crate::outbox) fn edit(
    keeper: &mut Keeper,
    id: LetterId,
    payload: &[u8],
    change: &mut Change,
) -> Result<Option<LetterId>, Error> {
    keeper.shared.check_healthy()?;
    let letter = change.letter(&keeper.shared.index(), id.letter);
    let known = keeper.shared.index().letter(id.letter);
    let dead = |letter: &Letter| letter.queued.is_none() && letter.live.get(id.slice);
    let (Some(mut old), Some((delivery, _))) = (letter.filter(dead), known) else {
        return Ok(None);
    };
    let read = sound(keeper.shared.read_letter(delivery, &old));
    let Some(read) = read.map_err(|error| keeper.unreadable(error))? else {
        lose::lose(keeper, &[Loss::Letter(id.letter)], change);
        return Err(Error::Damaged {
            what: format!("dead letter {}", id.letter).into(),
        });
    };
    let Some((meta, rows)) = read.mended(id) else {
        return Ok(None);
    };
    let slices = [Slice {
        bytes: payload,
        rows,
    }];
    let place = keeper.append_dead(&meta, old.ordinal, &slices)?;
    keeper.sync_dead()?;
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
    let index = keeper.shared.index();
    if old.live.count() == 0 {
        change.drop_letter(id.letter);
    } else {
        change.put_letter(id.letter, old);
    }
    let letter = change.add_letter(&index, mended);
    drop(index);
    if let Some((number, length)) = keeper.dead.current() {
        change.set_dead_file(&keeper.shared.index(), number, length);
    }
    keeper.dead.roll();
    Ok(Some(LetterId { letter, slice: 0 }))
}
