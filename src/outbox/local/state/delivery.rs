//! A listed delivery: its segments that count, where its rows went, the claims on it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::delivery::{DeliveryCursor, DeliveryState, Tally};
use crate::outbox::local::files::segment::SegmentFile;
use crate::outbox::local::state::rows::{Bits, Counters, DeliveryRow, Letter, SegmentRow};

/// A committed delivery. Many wait at once, or are kept to be looked at, and of these most have no
/// counters or no claims: then there is no room for them.
#[derive(Debug)]
pub(in crate::outbox) struct Delivery {
    pub row: Arc<DeliveryRow>,
    /// Those that have not settled, and the last one until all have.
    pub segments: Segments,
    /// `None`: nothing of it has settled.
    counters: Option<Box<Counters>>,
    /// `None`: nothing of it was claimed.
    flight: Option<Box<Flight>>,
}

/// Segments of one delivery, in the order of their numbers; nearly always there is one.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Segments(Vec<Segment>);

/// A segment that has work left.
#[derive(Debug)]
pub(in crate::outbox) struct Segment {
    pub row: SegmentRow,
    /// `None`: no entry has settled.
    pub settled: Option<Bits>,
    /// Open while entries of it are claimed.
    pub file: Option<Arc<SegmentFile>>,
}

/// The claims on one delivery.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Flight {
    pub claimed: HashMap<u32, Tally>,
    /// Claimed once and given back.
    pub released: BTreeSet<u32>,
    /// Every ordinal from here on has not been claimed yet.
    pub cursor: u32,
    /// Weight of the claims, replayed letters of this delivery included.
    pub tally: Tally,
}

/// What a claim found.
pub(in crate::outbox) enum Pick {
    /// Nothing waits, or all that may be sent now is in flight.
    Nothing,
    /// A segment has to be opened first.
    Open {
        position: u64,
        row: SegmentRow,
        id: DeliveryId,
    },
    /// These are claimed now.
    Entries {
        position: u64,
        delivery: Arc<DeliveryRow>,
        entries: Vec<(u32, Arc<SegmentFile>)>,
    },
    /// These are claimed now.
    Letters(Vec<(u64, Letter, Arc<DeliveryRow>)>),
}

impl Segments {
    fn place(&self, number: u32) -> Result<usize, usize> {
        self.0
            .binary_search_by_key(&number, |segment| segment.row.summary.number)
    }

    pub fn get(&self, number: u32) -> Option<&Segment> {
        self.place(number).ok().map(|at| &self.0[at])
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut Segment> {
        self.place(number).ok().map(|at| &mut self.0[at])
    }

    pub fn last(&self) -> Option<&Segment> {
        self.0.last()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Segment> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Segment> {
        self.0.iter_mut()
    }

    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|segment| segment.row.summary.number)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a segment, or takes it in the place of the one of its number.
    pub fn insert(&mut self, segment: Segment) {
        match self.place(segment.row.summary.number) {
            Ok(at) => self.0[at] = segment,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, segment);
            }
        }
    }

    pub fn remove(&mut self, number: u32) {
        if let Ok(at) = self.place(number) {
            self.0.remove(at);
        }
        if self.0.is_empty() {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

impl Segment {
    /// Entries that have not settled.
    pub fn entries_left(&self) -> u64 {
        let row = &self.row;
        u64::from(row.summary.entries.saturating_sub(row.settled_entries))
    }

    /// Whether the entry at this place of the segment has settled.
    pub(in crate::outbox) fn has_settled(&self, place: u32) -> bool {
        self.settled.as_ref().is_some_and(|bits| bits.get(place))
    }
}

impl Delivery {
    pub fn new(row: DeliveryRow) -> Self {
        Self {
            row: Arc::new(row),
            segments: Segments::default(),
            counters: None,
            flight: None,
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters.as_deref().copied().unwrap_or_default()
    }

    pub fn counters_mut(&mut self) -> &mut Counters {
        self.counters.get_or_insert_default()
    }

    /// Weight of what is claimed, replayed letters included.
    pub fn in_flight(&self) -> Tally {
        self.flight
            .as_ref()
            .map_or(Tally::default(), |flight| flight.tally)
    }

    pub fn flight_mut(&mut self) -> &mut Flight {
        self.flight.get_or_insert_default()
    }

    /// What a claimed entry weighs; `None`: it is not claimed.
    pub fn claimed(&self, ordinal: u32) -> Option<Tally> {
        self.flight.as_ref()?.claimed.get(&ordinal).copied()
    }

    /// Gives a claim back. One that is not held is not an error.
    pub fn release(&mut self, ordinal: u32) {
        if let Some(flight) = &mut self.flight
            && let Some(tally) = flight.claimed.remove(&ordinal)
        {
            flight.tally -= tally;
            flight.released.insert(ordinal);
        }
    }

    /// Ends the claims on these entries of a segment.
    pub fn land(&mut self, segment: &SegmentRow, settled: &Bits) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        let landed = |ordinal: &u32, _: &mut Tally| {
            segment.holds(*ordinal) && settled.get(*ordinal - segment.summary.first)
        };
        for (_, tally) in flight.claimed.extract_if(landed) {
            flight.tally -= tally;
        }
    }

    /// Forgets what was claimed of it, when nothing is any more and nothing can be.
    pub fn forget_claims(&mut self) {
        if self.segments.is_empty() && self.in_flight() == Tally::default() {
            self.flight = None;
        }
    }

    /// Takes the claims over, and the files that are open, from the same delivery of an index before.
    pub fn take_over(&mut self, old: &mut Self) {
        if let Some(mut flight) = old.flight.take() {
            flight.tally = Tally::default();
            flight.claimed.retain(|&ordinal, _| {
                self.segment_of(ordinal).is_some_and(|segment| {
                    !segment.has_settled(ordinal - segment.row.summary.first)
                })
            });
            for tally in flight.claimed.values() {
                flight.tally += *tally;
            }
            self.flight = Some(flight);
        }
        for segment in self.segments.iter_mut() {
            // One that was written anew is another file.
            let summary = segment.row.summary;
            let same = old.segments.get(summary.number);
            let same = same.filter(|old| old.row.summary == summary);
            segment.file = same.and_then(|segment| segment.file.as_ref().map(Arc::clone));
        }
    }

    /// What neither settled nor flies.
    pub fn waiting(&self) -> Tally {
        let mut waiting = self.row.totals.mapped();
        waiting -= self.counters().settled();
        waiting -= self.in_flight();
        waiting
    }

    /// What is in its segments and has not settled.
    pub fn unsettled(&self) -> Tally {
        let mut sum = Tally::default();
        for segment in self.segments.iter() {
            sum += segment.row.left();
        }
        sum
    }

    /// Rows that could not be mapped, without those that were erased.
    pub fn rejected(&self) -> u64 {
        let totals = &self.row.totals;
        totals
            .rows_rejected
            .saturating_sub(self.counters().erased_rejected)
    }

    /// The segment that holds an ordinal.
    pub fn segment_of(&self, ordinal: u32) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| segment.row.holds(ordinal))
    }

    /// `position` is its own.
    pub fn state(&self, position: u64) -> DeliveryState {
        let (info, totals) = (&self.row.info, &self.row.totals);
        let counters = self.counters();
        DeliveryState {
            id: info.id,
            cursor: DeliveryCursor::at(position),
            destination: info.destination,
            destination_label: (*info.label).to_owned(),
            title: (*info.title).to_owned(),
            link: info.link.as_deref().map(str::to_owned),
            received: info.received,
            committed: self.row.committed,
            rows_in: totals.rows_in,
            users: totals.users,
            batches: totals.batches,
            requests: totals.requests,
            waiting: self.waiting(),
            in_flight: self.in_flight(),
            delivered: counters.delivered,
            dead: counters.dead,
            discarded: counters.discarded,
            damaged: counters.damaged,
            cancelled: counters.cancelled,
            cancelled_at: counters.cancelled_at,
            erased: counters.all_erased(),
            rejected: self.rejected(),
            held: false,
            unchanged: totals.rows_unchanged,
            notes: totals.notes.clone(),
            settled: self.is_settled(),
            finished: counters.finished,
        }
    }

    /// Nothing of it waits or flies.
    pub fn is_settled(&self) -> bool {
        self.segments.is_empty()
            && self.waiting() == Tally::default()
            && self.in_flight() == Tally::default()
    }

    /// Claims up to `max` of its entries, but those that are being erased. `position` is its own.
    pub fn pick(&mut self, position: u64, max: usize, erasing: &BTreeSet<(u64, u32)>) -> Pick {
        let erased = |ordinal: u32| erasing.contains(&(position, ordinal));
        let mut entries = Vec::new();
        let flight = self.flight.get_or_insert_default();
        let mut segments = self.segments.iter();
        let mut current = segments.next();
        while entries.len() < max {
            let mut released = flight.released.iter().copied();
            let again = released.find(|ordinal| !erased(*ordinal));
            let ordinal = again.unwrap_or(flight.cursor);
            let past = |segment: &&Segment| {
                let summary = &segment.row.summary;
                ordinal >= summary.first + summary.entries
            };
            while current.as_ref().is_some_and(past) {
                current = segments.next();
            }
            let Some(segment) = current else {
                break;
            };
            let first = segment.row.summary.first;
            if erased(ordinal) {
                // Its turn comes when what is meant of it is gone.
                flight.released.insert(ordinal);
                flight.cursor = ordinal + 1;
                continue;
            }
            if ordinal < first {
                // The segments between have settled and are gone.
                flight.released.remove(&ordinal);
                flight.cursor = flight.cursor.max(first);
                continue;
            }
            let settled = segment.has_settled(ordinal - first);
            if !settled && !flight.claimed.contains_key(&ordinal) {
                let Some(file) = &segment.file else {
                    if entries.is_empty() {
                        return Pick::Open {
                            position,
                            row: segment.row,
                            id: self.row.info.id,
                        };
                    }
                    break;
                };
                // One without a place is damaged, and the opening of its segment said so.
                if let Some(place) = file.place(ordinal) {
                    let tally = place.tally();
                    flight.claimed.insert(ordinal, tally);
                    flight.tally += tally;
                    entries.push((ordinal, Arc::clone(file)));
                }
            }
            flight.released.remove(&ordinal);
            if again.is_none() {
                flight.cursor = ordinal + 1;
            }
        }
        if entries.is_empty() {
            return Pick::Nothing;
        }
        Pick::Entries {
            position,
            delivery: Arc::clone(&self.row),
            entries,
        }
    }
}
