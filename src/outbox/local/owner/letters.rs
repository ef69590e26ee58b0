//! Dead letters that are sent again or thrown away, on the owner's thread.

use crate::outbox::delivery::Tally;
use crate::outbox::letter::{LetterId, Moved};
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::rows::{Bits, Letter};

/// Takes slices out of their letters; replayed ones become letters that wait.
pub(in crate::outbox) fn move_letters(
    keeper: &mut Keeper,
    ids: &[(LetterId, u32)],
    replay: bool,
    change: &mut Change,
) -> Moved {
    let index = keeper.shared.index();
    let mut moved = Moved::default();
    let mut turn = None;
    for group in ids.chunk_by(|(one, _), (other, _)| one.letter == other.letter) {
        let Some(id) = group.first().map(|(id, _)| id.letter) else {
            continue;
        };
        let letter = change.letter(&index, id);
        let movable = |letter: &Letter| {
            letter.queued.is_none() && !(replay && index.is_cancelled(letter.position))
        };
        let Some(mut letter) = letter.filter(movable) else {
            continue;
        };
        let mut taken = Bits::none(letter.live.bytes().len() as u32 * 8);
        let mut tally = Tally::default();
        for (id, rows) in group {
            if letter.live.set(id.slice, false) {
                taken.set(id.slice, true);
                tally += Tally {
                    rows: u64::from(*rows),
                    batches: 1,
                };
            }
        }
        if tally.batches == 0 {
            continue;
        }
        moved.letters += tally.batches;
        moved.rows += tally.rows;
        letter.tally -= tally;
        change.undead(&index, letter.position, tally, !replay);
        if replay {
            let turn = *turn.get_or_insert_with(|| change.take_position(&index));
            let waiting = Letter {
                live: taken,
                tally,
                queued: Some(turn),
                ..letter.clone()
            };
            change.add_letter(&index, waiting);
        }
        if letter.live.count() == 0 {
            change.drop_letter(id);
        } else {
            change.put_letter(id, letter);
        }
    }
    moved
}
