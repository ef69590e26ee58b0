//! What arrived: accepted batches, what was deduplicated, and the counts of everything.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::LedgerMode;
use super::check::Facts;

/// Seconds of which [`Counts::seconds`] tells.
const SECONDS_KEPT: usize = 60;

/// An accepted batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// API key that it came with.
    pub key: Arc<str>,
    /// Its `source_request_id`; without one it cannot be deduplicated.
    pub id: Option<String>,
    /// Its JSON as it stood in the request that brought it first.
    pub batch: Bytes,
    /// How often it came: 1 and the number of duplicates.
    pub received: u64,
    /// It came to the historical endpoint.
    pub historical: bool,
    /// Events that the historical endpoint dropped in silence; they are still in `batch`.
    pub dropped_events: u64,
}

/// What has happened since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests to the two bulk endpoints, also those whose connection was dropped.
    pub requests: u64,
    /// Replies sent, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that an injected fault closed without a reply.
    pub connections_dropped: u64,
    /// Distinct batches accepted: what is in the ledger.
    pub batches: u64,
    /// Events in those batches.
    pub events: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Batches answered 202 and not stored, since their id was there already.
    pub duplicates: u64,
    /// Duplicates whose bytes were not those of the first: a sender's mistake.
    pub conflicts: u64,
    /// Different ids seen, for each API key apart.
    pub distinct_ids: u64,
    /// Accepted batches without a `source_request_id`.
    pub without_id: u64,
    /// What of `batches` came to the historical endpoint.
    pub historical_batches: u64,
    /// What of `events` came to the historical endpoint.
    pub historical_events: u64,
    /// Batches that the historical endpoint dropped whole, in silence.
    pub dropped_batches: u64,
    /// Events that the historical endpoint dropped in silence, those of dropped batches included.
    pub dropped_events: u64,
    /// The last minute, oldest first; seconds without a request are left out.
    pub seconds: Vec<Second>,
}

/// One second of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Seconds since the stand-in started.
    pub at: u64,
    /// Requests answered 202, or accepted and then dropped.
    pub accepted: u64,
    /// Batches in those, duplicates included: what the rate limit counts.
    pub batches: u64,
    /// Events in those.
    pub events: u64,
    /// Requests answered 429.
    pub throttled: u64,
}

/// One request's batches, checked and let through.
pub(super) struct Arrival<'a> {
    pub(super) key: &'a Arc<str>,
    pub(super) batches: Vec<(Bytes, Facts)>,
    /// Whether it came to the historical endpoint.
    pub(super) historical: bool,
    /// Seconds since the stand-in started.
    pub(super) second: u64,
}

/// Enough of a batch to see whether a second one with its id differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    crc: u32,
    length: u32,
}

#[derive(Debug)]
pub(super) struct Ledger {
    mode: LedgerMode,
    accepted: Vec<Accepted>,
    /// Hash of key and id → print of the batch. At ten million ids the chance that two share a
    /// hash is one in 370,000, and it would show as a conflict.
    ids: HashMap<u64, Print>,
    /// Hash of key and id → place in `accepted`; kept in full mode only.
    places: HashMap<u64, usize>,
    hasher: RandomState,
    counts: Counts,
    seconds: VecDeque<Second>,
}

impl Ledger {
    pub(super) fn new(mode: LedgerMode) -> Self {
        Self {
            mode,
            accepted: Vec::new(),
            ids: HashMap::new(),
            places: HashMap::new(),
            hasher: RandomState::new(),
            counts: Counts::default(),
            seconds: VecDeque::new(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            distinct_ids: self.ids.len() as u64,
            seconds: self.seconds.iter().copied().collect(),
            ..self.counts.clone()
        }
    }

    pub(super) fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    pub(super) fn mode(&self) -> LedgerMode {
        self.mode
    }

    pub(super) fn request(&mut self) {
        self.counts.requests += 1;
    }

    pub(super) fn reply(&mut self, status: u16, second: u64) {
        *self.counts.statuses.entry(status).or_default() += 1;
        if status == 429 {
            self.second(second).throttled += 1;
        }
    }

    pub(super) fn connection_dropped(&mut self) {
        self.counts.connections_dropped += 1;
    }

    pub(super) fn record(&mut self, arrival: Arrival<'_>) {
        let events = arrival.batches.iter().map(|(_, facts)| facts.events);
        let events = events.sum::<u64>();
        let count = arrival.batches.len() as u64;
        let second = self.second(arrival.second);
        second.accepted += 1;
        second.batches += count;
        second.events += events;
        for (batch, facts) in arrival.batches {
            self.batch(arrival.key, batch, facts, arrival.historical);
        }
    }

    fn batch(&mut self, key: &Arc<str>, batch: Bytes, facts: Facts, historical: bool) {
        let place = self.accepted.len();
        if let Some(id) = &facts.id {
            let hash = self.hasher.hash_one((key, id));
            let print = Print {
                crc: crc32c::crc32c(&batch),
                length: batch.len() as u32,
            };
            if let Some(first) = self.ids.get(&hash) {
                self.counts.duplicates += 1;
                self.counts.conflicts += u64::from(*first != print);
                if let Some(stored) = self.places.get(&hash)
                    && let Some(stored) = self.accepted.get_mut(*stored)
                {
                    stored.received += 1;
                }
                return;
            }
            self.ids.insert(hash, print);
            let dropped_whole = historical && facts.old_events == 0;
            if self.mode == LedgerMode::Full && !dropped_whole {
                self.places.insert(hash, place);
            }
        } else {
            self.counts.without_id += 1;
        }
        let dropped_events = match historical {
            true => facts.events - facts.old_events,
            false => 0,
        };
        self.counts.dropped_events += dropped_events;
        if historical && facts.old_events == 0 {
            self.counts.dropped_batches += 1;
            return;
        }
        self.counts.batches += 1;
        self.counts.events += facts.events - dropped_events;
        self.counts.bytes += batch.len() as u64;
        if historical {
            self.counts.historical_batches += 1;
            self.counts.historical_events += facts.old_events;
        }
        if self.mode == LedgerMode::Full {
            self.accepted.push(Accepted {
                key: Arc::clone(key),
                id: facts.id,
                batch,
                received: 1,
                historical,
                dropped_events,
            });
        }
    }

    /// The entry of this second. Requests may finish a little out of order.
    fn second(&mut self, at: u64) -> &mut Second {
        let found = self.seconds.iter().rposition(|second| second.at <= at);
        let place = match found {
            Some(place) if self.seconds[place].at == at => place,
            other => {
                let place = other.map_or(0, |place| place + 1);
                let fresh = Second {
                    at,
                    ..Second::default()
                };
                self.seconds.insert(place, fresh);
                place
            }
        };
        let mut cut = 0;
        let newest = self.seconds.back().map_or(at, |newest| newest.at);
        while place > cut && self.seconds[cut].at + (SECONDS_KEPT as u64) <= newest {
            cut += 1;
        }
        self.seconds.drain(..cut);
        &mut self.seconds[place - cut]
    }
}

/// One line of `GET /sandbox/ledger`, without the line break.
#[derive(Serialize)]
struct Line<'a> {
    id: Option<&'a str>,
    key: &'a str,
    received: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    historical: bool,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_events: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Accepted {
    /// Appends `{"id":…,"key":…,"received":…,"batch":…}` and a line break.
    pub(super) fn write_line(&self, out: &mut Vec<u8>) {
        let line = Line {
            id: self.id.as_deref(),
            key: &self.key,
            received: self.received,
            historical: self.historical,
            dropped_events: self.dropped_events,
        };
        if serde_json::to_writer(&mut *out, &line).is_err() {
            return; // Writing to memory does not fail.
        }
        out.pop(); // The closing brace.
        out.extend_from_slice(b",\"batch\":");
        // Line breaks in JSON can only stand between tokens, where a space says the same.
        out.extend(self.batch.iter().map(|&byte| match byte {
            b'\n' | b'\r' => b' ',
            other => other,
        }));
        out.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(id: Option<&str>, events: u64, old_events: u64) -> Facts {
        Facts {
            id: id.map(str::to_owned),
            events,
            old_events,
        }
    }

    fn arrive(ledger: &mut Ledger, key: &str, batches: &[(&'static str, Facts)], historical: bool) {
        ledger.record(Arrival {
            key: &Arc::from(key),
            batches: batches
                .iter()
                .map(|(batch, facts)| (Bytes::from_static(batch.as_bytes()), facts.clone()))
                .collect(),
            historical,
            second: 0,
        });
    }

    #[test]
    fn a_repeated_id_is_counted_and_not_stored_and_other_bytes_are_a_conflict() {
        for mode in [LedgerMode::Full, LedgerMode::Counts] {
            let mut ledger = Ledger::new(mode);
            let a = ("{1}", facts(Some("a"), 2, 0));
            arrive(&mut ledger, "key", &[a.clone(), a.clone()], false);
            arrive(
                &mut ledger,
                "key",
                &[("{2}", facts(Some("a"), 2, 0))],
                false,
            );
            arrive(&mut ledger, "other key", &[a], false);
            arrive(&mut ledger, "key", &[("{}", facts(None, 0, 0))], false);
            let counts = ledger.counts();
            assert_eq!((counts.batches, counts.events, counts.bytes), (3, 4, 8));
            assert_eq!((counts.duplicates, counts.conflicts), (2, 1));
            assert_eq!((counts.distinct_ids, counts.without_id), (2, 1));
            let received: Vec<_> = ledger.accepted().iter().map(|a| a.received).collect();
            match mode {
                LedgerMode::Full => assert_eq!(received, [3, 1, 1]),
                LedgerMode::Counts => assert!(received.is_empty()),
            }
        }
    }

    #[test]
    fn the_historical_endpoint_drops_young_events_and_batches_left_empty() {
        let mut ledger = Ledger::new(LedgerMode::Full);
        arrive(
            &mut ledger,
            "key",
            &[
                ("{old}", facts(Some("old"), 3, 3)),
                ("{mixed}", facts(Some("mixed"), 3, 1)),
                ("{young}", facts(Some("young"), 3, 0)),
                ("{empty}", facts(Some("empty"), 0, 0)),
            ],
            true,
        );
        let counts = ledger.counts();
        assert_eq!((counts.batches, counts.events), (2, 4));
        assert_eq!((counts.dropped_batches, counts.dropped_events), (2, 5));
        assert_eq!(
            (counts.historical_batches, counts.historical_events),
            (2, 4)
        );
        assert!(ledger.accepted().iter().all(|one| one.historical));
        assert_eq!(ledger.accepted()[1].dropped_events, 2);
        // A dropped batch keeps its id, and a second one of its id finds no place in the ledger.
        arrive(
            &mut ledger,
            "key",
            &[("{young}", facts(Some("young"), 3, 3))],
            true,
        );
        assert_eq!(ledger.counts().duplicates, 1);
        assert_eq!(ledger.accepted().len(), 2);
    }

    #[test]
    fn the_last_minute_is_kept_by_second() {
        let mut ledger = Ledger::new(LedgerMode::Counts);
        for second in [0, 5, 4, 5, 59, 60, 200] {
            ledger.reply(429, second);
            let seconds = ledger.counts().seconds;
            assert!(seconds.windows(2).all(|pair| pair[0].at < pair[1].at));
            assert!(seconds.iter().all(|entry| entry.at + 60 > second.max(5)));
        }
        ledger.reply(429, 141);
        ledger.reply(429, 3);
        let seconds = ledger.counts().seconds;
        let kept: Vec<_> = seconds.iter().map(|second| second.at).collect();
        assert_eq!(kept, [3, 141, 200]);
    }

    #[test]
    fn a_ledger_line_is_one_line_of_json() {
        let accepted = Accepted {
            key: Arc::from("k\"1"),
            id: Some("a\nb".into()),
            batch: Bytes::from_static(b"{\r\n \"x\": 1.50\n}"),
            received: 2,
            historical: false,
            dropped_events: 0,
        };
        let mut out = Vec::new();
        accepted.write_line(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"id\":\"a\\nb\",\"key\":\"k\\\"1\",\"received\":2,\"batch\":{   \"x\": 1.50 }}\n"
        );
    }
}
