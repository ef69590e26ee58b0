//! The writer of one delivery: a thread that hands requests to the store, which compresses and
//! writes them, while the worker makes the next ones. By then the delivery has come in whole, so a
//! core is free.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{IngestError, Store};
use crate::changes::Session;
use crate::mparticle::encode::{Batch, Sink, Unsendable};
use crate::mparticle::era::Era;
use crate::record::RecordView;

/// Requests that wait for the writer: enough that neither side waits for the other over one large
/// request, and at most some 1 MB.
const WAITING: usize = 4;

/// What the worker hands to the writer.
enum Ready {
    Request(Request),
    Rejected {
        row: u64,
        reason: String,
        text: Vec<u8>,
    },
}

/// A request's batches, one after the other, each with its end and rows.
#[derive(Default)]
struct Request {
    era: Era,
    bytes: Vec<u8>,
    ends: Vec<(usize, u32)>,
}

/// Takes what the encoder makes and hands it on.
pub struct Feeder<'a> {
    ready: SyncSender<Ready>,
    /// Set in a delivery that sends only changes.
    session: Option<&'a mut Session>,
    /// Requests that have been written, to be filled again.
    spare: Receiver<Request>,
    rejected: &'a mut u64,
    first_reason: &'a mut Option<String>,
}

/// Runs `make` with a [`Feeder`] whose requests go to `store` on a thread of their own. Returns when
/// all of them are there. Rows that no batch can hold are counted.
///
/// # Errors
/// The store's, else those of `make`.
pub fn write<S: Store, T>(
    store: &mut S,
    session: Option<&mut Session>,
    rejected: &mut u64,
    first_reason: &mut Option<String>,
    make: impl FnOnce(&mut Feeder<'_>) -> Result<T, IngestError>,
) -> Result<T, IngestError> {
    let (ready, work) = sync_channel(WAITING);
    let (done, spare) = sync_channel(WAITING);
    let span = tracing::Span::current();
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn_scoped(scope, move || {
                span.in_scope(|| store_all(store, &work, &done))
            })
            .map_err(IngestError::Thread)?;
        let mut feeder = Feeder {
            ready,
            session,
            spare,
            rejected,
            first_reason,
        };
        let made = make(&mut feeder);
        // The end of the channel ends the writer.
        drop(feeder);
        // What stopped the writer is why the worker could not go on.
        writer.join().unwrap_or(Err(IngestError::Panicked))?;
        made
    })
}

fn store_all<S: Store>(
    store: &mut S,
    work: &Receiver<Ready>,
    done: &SyncSender<Request>,
) -> Result<(), IngestError> {
    while let Ok(ready) = work.recv() {
        match ready {
            Ready::Request(request) => {
                store.request(request.era, &request.batches())?;
                // A worker that has spare ones enough, or is done, needs no more.
                let _ = done.try_send(request);
            }
            Ready::Rejected { row, reason, text } => store.reject(row, &reason, &text)?,
        }
    }
    Ok(())
}

impl Request {
    fn fill(&mut self, era: Era, batches: &[Batch<'_>]) {
        self.era = era;
        self.bytes.clear();
        self.ends.clear();
        for batch in batches {
            self.bytes.extend_from_slice(batch.json);
            self.ends.push((self.bytes.len(), batch.rows));
        }
    }

    fn batches(&self) -> Vec<Batch<'_>> {
        let mut start = 0;
        let batches = self.ends.iter().map(|&(end, rows)| {
            let json = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            Batch { json, rows }
        });
        batches.collect()
    }
}

impl Feeder<'_> {
    fn hand_on(&self, ready: Ready) -> Result<(), IngestError> {
        // Only a writer that failed has hung up, and `write` reports its error instead of this.
        self.ready.send(ready).map_err(|_| IngestError::Panicked)
    }
}

impl Sink for Feeder<'_> {
    type Error = IngestError;

    fn request(&mut self, era: Era, batches: &[Batch<'_>]) -> Result<(), IngestError> {
        let mut request = self.spare.try_recv().unwrap_or_default();
        request.fill(era, batches);
        self.hand_on(Ready::Request(request))
    }

    fn unsendable(&mut self, record: RecordView<'_>, why: Unsendable) -> Result<(), IngestError> {
        *self.rejected += 1;
        let reason = why.to_string();
        let text = [b"{", record.identities, b"}"].concat();
        self.first_reason.get_or_insert_with(|| reason.clone());
        self.hand_on(Ready::Rejected {
            row: record.row,
            reason,
            text,
        })
    }

    fn is_known(
        &mut self,
        user: u64,
        fingerprint: Option<u128>,
        people: &[u8],
    ) -> Result<bool, IngestError> {
        match &mut self.session {
            Some(session) => Ok(session.is_known(user, fingerprint, people)?),
            None => Ok(false),
        }
    }

    fn placed(&mut self, first: u64, last: u64) -> Result<(), IngestError> {
        match &mut self.session {
            Some(session) => Ok(session.placed(first, last)?),
            None => Ok(()),
        }
    }

    fn next_gone(&mut self, people: &mut Vec<u8>) -> Result<bool, IngestError> {
        match &mut self.session {
            Some(session) => Ok(session.next_gone(people)?),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request's era, and its batches with their rows.
    type Ready = (Era, Vec<(Vec<u8>, u32)>);

    /// Keeps requests until it is full.
    #[derive(Default)]
    struct Kept {
        requests: Vec<Ready>,
        rejected: Vec<u64>,
        most: usize,
    }

    impl Store for Kept {
        fn request(&mut self, era: Era, batches: &[Batch<'_>]) -> Result<(), IngestError> {
            if self.requests.len() == self.most {
                return Err(IngestError::Query("full".to_owned()));
            }
            let batches = batches.iter();
            let request = batches.map(|batch| (batch.json.to_vec(), batch.rows));
            self.requests.push((era, request.collect()));
            Ok(())
        }

        fn reject(&mut self, row: u64, _: &str, _: &[u8]) -> Result<(), IngestError> {
            self.rejected.push(row);
            Ok(())
        }
    }

    fn feed(feeder: &mut Feeder<'_>, requests: &[Ready]) -> Result<(), IngestError> {
        requests.iter().try_for_each(|(era, request)| {
            let batches = request.iter();
            let batches: Vec<_> = batches
                .map(|(json, rows)| Batch { json, rows: *rows })
                .collect();
            feeder.request(*era, &batches)
        })
    }

    fn requests(count: u32) -> Vec<Ready> {
        let batch = |n: u32, at: u32| (format!("{{{n}, {at}}}").repeat(n as usize).into_bytes(), n);
        (0..count)
            .map(|n| {
                let era = [Era::Current, Era::Historical][n as usize % 2];
                (era, (0..n % 4).map(|at| batch(n, at)).collect())
            })
            .collect()
    }

    #[test]
    fn requests_and_refusals_arrive_whole_and_in_order() {
        let mut kept = Kept {
            most: usize::MAX,
            ..Kept::default()
        };
        let (mut rejected, mut reason) = (2, None);
        let wanted = requests(100);
        let made = write(&mut kept, None, &mut rejected, &mut reason, |feeder| {
            feed(feeder, &wanted)?;
            let record = RecordView::from_parts(17, 0, [0; 4], b"");
            feeder.unsendable(record, Unsendable::TooLarge { bytes: 9, most: 8 })?;
            Ok(5)
        });
        assert_eq!(made.unwrap(), 5);
        assert_eq!(kept.requests, wanted);
        assert_eq!((kept.rejected, rejected), (vec![17], 3));
        assert!(reason.unwrap().contains("9 bytes"));
    }

    #[test]
    fn what_stops_the_store_is_the_error_and_what_stops_the_worker_else() {
        let (mut rejected, mut reason) = (0, None);
        let mut kept = Kept {
            most: 3,
            ..Kept::default()
        };
        let full = write(&mut kept, None, &mut rejected, &mut reason, |feeder| {
            feed(feeder, &requests(1_000))
        });
        assert!(matches!(full, Err(IngestError::Query(_))), "{full:?}");
        kept.most = 1_000;
        let stopped: Result<(), _> = write(&mut kept, None, &mut rejected, &mut reason, |feeder| {
            feed(feeder, &requests(10))?;
            Err(IngestError::Stopped)
        });
        assert!(matches!(stopped, Err(IngestError::Stopped)), "{stopped:?}");
        assert_eq!(kept.requests.len(), 3 + 10);
    }
}
