//! A change carried out: written as one sled batch, then put into the index.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Change;
use crate::model::DeliveryId;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::{
    Account, CHUNK, Counters, DeadFileRow, Key, Letter, Meta, Webhook, encode_bytes,
};

/// What is to be done once a change is durable.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Effects {
    /// Files whose last entry has settled: path, size, and whether to keep it as damaged.
    pub spent: Vec<(PathBuf, u64, bool)>,
    /// Deliveries that have settled whole.
    pub finished: Vec<DeliveryId>,
    /// Something can be claimed that could not be before.
    pub wake: bool,
}

impl Change {
    /// The change as sled takes it.
    pub fn batch(&self, index: &Index) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (&position, delivery) in &self.added {
            batch.insert(Key::Delivery(position).encode(), delivery.row.encode());
            for segment in delivery.segments.iter() {
                let key = Key::Segment(position, segment.row.summary.number).encode();
                batch.insert(key, segment.row.encode());
            }
        }
        for (&position, counters) in &self.counters {
            let key = Key::Counters(position).encode();
            match *counters == Counters::default() {
                true => batch.remove(key),
                false => batch.insert(key, counters.encode()),
            }
        }
        for (&(position, number), segment) in &self.segments {
            let key = Key::Segment(position, number).encode();
            if segment.gone {
                batch.remove(key);
                for chunk in 0..segment.row.summary.entries.div_ceil(CHUNK) {
                    batch.remove(Key::Bits(position, number, chunk).encode());
                }
                continue;
            }
            batch.insert(key, segment.row.encode());
            for &chunk in &segment.touched {
                let key = Key::Bits(position, number, chunk).encode();
                batch.insert(key, encode_bytes(segment.bits.chunk(chunk)));
            }
        }
        for &position in &self.removed {
            batch.remove(Key::Delivery(position).encode());
            batch.remove(Key::Counters(position).encode());
        }
        put(
            &mut batch,
            &self.letters,
            |id| Key::Letter(*id),
            Letter::encode,
        );
        put(
            &mut batch,
            &self.dead_files,
            |n| Key::DeadFile(*n),
            DeadFileRow::encode,
        );
        for (&(position, ordinal), lost) in &self.lost_entries {
            let key = Key::LostEntry(position, ordinal).encode();
            match lost {
                true => batch.insert(key, Vec::new()),
                false => batch.remove(key),
            }
        }
        put(
            &mut batch,
            &self.lost_letters,
            |id| Key::LostLetter(*id),
            Letter::encode,
        );
        put(
            &mut batch,
            &self.webhooks,
            |key| Key::Webhook(*key),
            Webhook::encode,
        );
        put(
            &mut batch,
            &self.accounts,
            |id| Key::Account(*id),
            Account::encode,
        );
        put(
            &mut batch,
            &self.notes,
            |&(id, topic)| Key::Note(id, topic),
            |text| encode_bytes(text),
        );
        put(
            &mut batch,
            &self.attempts,
            |id| Key::Attempt(*id),
            |row| row.encode(),
        );
        let meta = Meta {
            next_position: self.next_position.unwrap_or(index.next_position),
            next_letter: self.next_letter.unwrap_or(index.next_letter),
        };
        batch.insert(Key::Meta.encode(), meta.encode());
        batch
    }

    /// Puts a change that is durable into the index.
    pub fn apply(self, index: &mut Index, layout: &Layout) -> Effects {
        let mut effects = Effects::default();
        for (position, delivery) in self.added {
            index.receiving.remove(&delivery.row.info.id);
            effects.wake = true;
            index.insert_delivery(position, Box::new(delivery));
        }
        for (position, counters) in self.counters {
            if let Some(delivery) = index.deliveries.get_mut(&position) {
                *delivery.counters_mut() = counters;
            }
        }
        for ((position, number), change) in self.segments {
            let Some(delivery) = index.deliveries.get_mut(&position) else {
                continue;
            };
            delivery.land(&change.row, &change.bits);
            let (id, destination) = (delivery.row.info.id, delivery.row.info.destination);
            if change.gone {
                delivery.segments.remove(number);
                effects.spent.push((
                    layout.segment(id, number),
                    change.row.summary.bytes,
                    change.row.damaged,
                ));
                if delivery.segments.is_empty() {
                    effects.finished.push(id);
                    effects.wake = true;
                    delivery.forget_claims();
                    index.leave_queue(destination, position);
                }
            } else if let Some(segment) = delivery.segments.get_mut(number) {
                segment.row = change.row;
                if change.rewritten {
                    segment.file = None;
                }
                segment.settled = Some(change.bits);
            }
        }
        for (id, letter) in self.letters {
            effects.wake = true;
            index.remove_letter(id);
            if let Some(letter) = letter {
                index.insert_letter(id, letter);
            }
        }
        for position in self.removed {
            index.remove_delivery(position);
        }
        for (number, row) in self.dead_files {
            match row {
                Some(row) => index.dead_files.entry(number).or_default().row = row,
                None => {
                    index.dead_files.remove(&number);
                }
            }
        }
        for (entry, lost) in self.lost_entries {
            match lost {
                true => index.lost_entries.insert(entry),
                false => index.lost_entries.remove(&entry),
            };
        }
        for (id, letter) in self.lost_letters {
            match letter {
                Some(letter) => index.lost_letters.insert(id, letter),
                None => index.lost_letters.remove(&id),
            };
        }
        for (key, webhook) in self.webhooks {
            match webhook {
                Some(webhook) => index.webhooks.insert(key, webhook),
                None => index.webhooks.remove(&key),
            };
        }
        for (id, account) in self.accounts {
            match account {
                Some(account) => index.accounts.insert(id, account),
                None => index.accounts.remove(&id),
            };
        }
        for (key, note) in self.notes {
            match note {
                Some(text) => index.notes.insert(key, text),
                None => index.notes.remove(&key),
            };
        }
        for (id, attempt) in self.attempts {
            match attempt {
                Some(row) => {
                    index.attempts.insert(id, row);
                }
                None => {
                    index.attempts.remove(&id);
                    index.unsaved.remove(&id);
                }
            }
        }
        index.next_position = index.next_position.max(self.next_position.unwrap_or(0));
        index.next_letter = index.next_letter.max(self.next_letter.unwrap_or(0));
        effects
    }
}

fn put<K, V>(
    batch: &mut sled::Batch,
    rows: &BTreeMap<K, Option<V>>,
    key: impl Fn(&K) -> Key,
    encode: impl Fn(&V) -> Vec<u8>,
) {
    for (name, row) in rows {
        match row {
            Some(row) => batch.insert(key(name).encode(), encode(row)),
            None => batch.remove(key(name).encode()),
        }
    }
}
