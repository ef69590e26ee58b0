//! The writer of one delivery: a thread that hands requests to the store, which compresses and
//! writes them, while the worker makes the next ones. By then the delivery has come in whole, so a
//! core is free.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{IngestError, Reason, Store};
use crate::changes::Session;
use crate::mparticle::encode::{Batches, Sink, Unsendable};
use crate::mparticle::route::Route;
use crate::record::RecordView;

/// What is handed over at once has at least so many bytes: to wake the writer takes as long as to make
/// some of them.
const CHUNK: usize = 128 << 10;
/// Chunks that wait for the writer: enough that neither side waits for the other over one large
/// request. Half a MiB, and one request for each more.
const WAITING: usize = 4;
/// Requests that have been written and wait to be filled again: about those of all chunks.
const SPARE: usize = 32;

/// What the worker hands to the writer.
enum Ready {
    Request(Route, Batches),
    Rejected {
        row: u64,
        reason: String,
        text: Vec<u8>,
    },
}

/// Takes what the encoder makes and hands it on.
pub struct Feeder<'a> {
    ready: SyncSender<Vec<Ready>>,
    chunk: Vec<Ready>,
    /// Bytes of the chunk.
    size: usize,
    /// Set in a delivery that sends only changes.
    session: Option<&'a mut Session>,
    /// Requests that have been written, to be filled again.
    spare: Receiver<Batches>,
    rejected: &'a mut u64,
    first_reason: &'a mut Option<String>,
}

/// Runs `make` with a [`Feeder`] whose requests go to `store` on a thread of their own. Returns when
/// all of them are there. Rows that no batch can hold are counted.
pub fn write<S: Store, T>(
    store: &mut S,
    session: Option<&mut Session>,
    rejected: &mut u64,
    first_reason: &mut Option<String>,
    make: impl FnOnce(&mut Feeder<'_>) -> Result<T, IngestError>,
) -> Result<T, IngestError> {
    let (ready, work) = sync_channel(WAITING);
    let (done, spare) = sync_channel(SPARE);
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
            chunk: Vec::new(),
            size: 0,
            session,
            spare,
            rejected,
            first_reason,
        };
        let made = make(&mut feeder);
        let handed_on = feeder.hand_on();
        // The end of the channel ends the writer.
        drop(feeder);
        // What stopped the writer is why the worker could not go on.
        writer.join().unwrap_or(Err(IngestError::Panicked))?;
        handed_on.and(made)
    })
}

fn store_all<S: Store>(
    store: &mut S,
    work: &Receiver<Vec<Ready>>,
    done: &SyncSender<Batches>,
) -> Result<(), IngestError> {
    for ready in work.iter().flatten() {
        match ready {
            Ready::Request(route, batches) => {
                let list: Vec<_> = batches.iter().collect();
                store.request(route, &list)?;
                // A worker that has spare ones enough, or is done, needs no more.
                let _ = done.try_send(batches);
            }
            Ready::Rejected { row, reason, text } => {
                let reason = Reason {
                    kind: &reason,
                    value: None,
                };
                store.reject(row, reason, &text)?;
            }
        }
    }
    Ok(())
}

impl Feeder<'_> {
    fn add(&mut self, ready: Ready, bytes: usize) -> Result<(), IngestError> {
        self.chunk.push(ready);
        self.size += bytes;
        match self.size < CHUNK {
            true => Ok(()),
            false => self.hand_on(),
        }
    }

    fn hand_on(&mut self) -> Result<(), IngestError> {
        self.size = 0;
        let chunk = std::mem::take(&mut self.chunk);
        // Only a writer that failed has hung up, and `write` reports its error instead of this.
        self.ready.send(chunk).map_err(|_| IngestError::Panicked)
    }
}

impl Sink for Feeder<'_> {
    type Error = IngestError;

    fn request(&mut self, route: Route, batches: &mut Batches) -> Result<(), IngestError> {
        let spare = self.spare.try_recv().unwrap_or_default();
        let full = std::mem::replace(batches, spare);
        let bytes = full.bytes();
        self.add(Ready::Request(route, full), bytes)
    }

    fn unsendable(&mut self, record: RecordView<'_>, why: Unsendable) -> Result<(), IngestError> {
        *self.rejected += 1;
        let reason = why.to_string();
        let text = [b"{", record.identities, b"}"].concat();
        self.first_reason.get_or_insert_with(|| reason.clone());
        let (row, bytes) = (record.row, reason.len() + text.len());
        self.add(Ready::Rejected { row, reason, text }, bytes)
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
    use crate::mparticle::encode::Batch;

    /// A request's route, and its batches with their rows.
    type Ready = (Route, Vec<(Vec<u8>, u32)>);

    /// Keeps requests until it is full.
    #[derive(Default)]
    struct Kept {
        requests: Vec<Ready>,
        rejected: Vec<u64>,
        most: usize,
    }

    impl Store for Kept {
        fn request(&mut self, route: Route, batches: &[Batch<'_>]) -> Result<(), IngestError> {
            if self.requests.len() == self.most {
                return Err(IngestError::Query("full".to_owned()));
            }
            let batches = batches.iter();
            let request = batches.map(|batch| (batch.json.to_vec(), batch.rows));
            self.requests.push((route, request.collect()));
            Ok(())
        }

        fn reject(&mut self, row: u64, _: Reason<'_>, _: &[u8]) -> Result<(), IngestError> {
            self.rejected.push(row);
            Ok(())
        }
    }

    fn feed(feeder: &mut Feeder<'_>, requests: &[Ready]) -> Result<(), IngestError> {
        requests.iter().try_for_each(|(route, request)| {
            let mut batches = Batches::default();
            for (json, rows) in request {
                batches.push(Batch { json, rows: *rows });
            }
            feeder.request(*route, &mut batches)
        })
    }

    fn requests(count: u32) -> Vec<Ready> {
        let batch = |n: u32, at: u32| (format!("{{{n}, {at}}}").repeat(n as usize).into_bytes(), n);
        (0..count)
            .map(|n| {
                let route = [Route::Current, Route::Historical][n as usize % 2];
                (route, (0..n % 4).map(|at| batch(n, at)).collect())
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
