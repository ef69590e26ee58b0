//! (room: outbox) TEMPORARY stand-in with the announced API; replaced on merge.
#![allow(missing_docs)]
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
#[derive(Clone, Debug)]
pub struct Claim {
    pub delivery: DeliveryId,
    pub ordinal: u64,
    pub account: Arc<[u8]>,
    pub slices: Vec<Bytes>,
    pub rows: Vec<u32>,
    pub received: UnixMillis,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    pub slice: usize,
    pub reason: String,
    pub attempts: u32,
    pub first_try: UnixMillis,
    pub last_try: UnixMillis,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub delivery: DeliveryId,
    pub ordinal: u64,
    pub dead: Vec<Dead>,
}
#[derive(Clone, Debug, Default)]
pub struct Settled {}
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("closed")]
    Closed,
}
#[derive(Clone, Debug)]
pub struct DestinationState {
    pub id: DestinationId,
    pub label: String,
    pub deliveries: u64,
}
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);
type Queue = Vec<(DeliveryId, BTreeMap<u64, (Claim, bool)>)>;
struct Inner {
    queues: Mutex<BTreeMap<DestinationId, Queue>>,
    watch: watch::Sender<u64>,
}
impl Outbox {
    pub fn claim(&self, id: DestinationId, max: usize) -> Result<Vec<Claim>, Error> {
        let mut queues = self.0.queues.lock().unwrap();
        let Some((_, head)) = queues.get_mut(&id).and_then(|q| q.first_mut()) else {
            return Ok(vec![]);
        };
        Ok(head
            .values_mut()
            .filter(|e| !e.1)
            .take(max)
            .map(|e| {
                e.1 = true;
                e.0.clone()
            })
            .collect())
    }
    pub fn settle(&self, batch: Vec<Settlement>) -> Result<Settled, Error> {
        let mut queues = self.0.queues.lock().unwrap();
        for s in batch {
            for q in queues.values_mut() {
                for (d, es) in q.iter_mut() {
                    if *d == s.delivery {
                        es.remove(&s.ordinal);
                    }
                }
                q.retain(|(_, es)| !es.is_empty());
            }
        }
        drop(queues);
        self.0.watch.send_modify(|v| *v += 1);
        Ok(Settled {})
    }
    pub fn release(&self, delivery: DeliveryId, ordinals: &[u64]) {
        let mut queues = self.0.queues.lock().unwrap();
        for (d, es) in queues.values_mut().flatten() {
            if *d == delivery {
                for o in ordinals {
                    if let Some(e) = es.get_mut(o) {
                        e.1 = false;
                    }
                }
            }
        }
        drop(queues);
        self.0.watch.send_modify(|v| *v += 1);
    }
    pub fn destinations(&self) -> Vec<DestinationState> {
        let queues = self.0.queues.lock().unwrap();
        queues
            .iter()
            .filter(|(_, q)| !q.is_empty())
            .map(|(id, q)| DestinationState {
                id: *id,
                label: "test".into(),
                deliveries: q.len() as u64,
            })
            .collect()
    }
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.watch.subscribe()
    }
}
