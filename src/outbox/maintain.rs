//! What the owner does when nobody waits: old deliveries and webhook ids are forgotten, empty
//! dead-letter files removed, sled's file copied when it has grown.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::change::Change;
use super::delivery::Tally;
use super::layout::{SegmentName, parse_segment_name};
use super::owner::{IDLE, Owner};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;

impl Owner {
    /// What is not urgent: old deliveries and webhook ids are forgotten, empty dead-letter files
    /// removed, sled's file copied when it has grown.
    pub fn maintain(&mut self) {
        if self.store.is_none() {
            return;
        }
        let mut change = Change::default();
        let mut rejected = Vec::new();
        if std::mem::take(&mut self.sweep_due) {
            self.sweep(&mut change);
        }
        if std::mem::take(&mut self.history_due) {
            rejected = self.forget_history(&mut change);
        }
        if Instant::now() >= self.webhooks_due {
            self.webhooks_due = Instant::now() + IDLE;
            self.forget_webhooks(&mut change);
            self.shared().count_set_aside();
        }
        self.remove_empty_dead_files(&mut change);
        if !change.is_empty() {
            self.make_durable(change, Vec::new());
        }
        if self.store.is_none() {
            return;
        }
        for path in rejected {
            let bytes = path.metadata().map_or(0, |meta| meta.len());
            self.shared().remove_spent(&path, bytes, false);
        }
        if let Some(store) = self.store.take_if(|store| store.wants_compaction()) {
            match store.compact() {
                Ok(store) => {
                    self.shared().capacity.set_state(store.size());
                    self.store = Some(store);
                }
                Err(error) => {
                    self.fail(error);
                }
            }
        }
    }

    /// Takes the oldest settled deliveries beyond the history out, and returns their files of
    /// rejected rows.
    fn forget_history(&self, change: &mut Change) -> Vec<PathBuf> {
        let old = self.old_deliveries();
        if old.is_empty() {
            return Vec::new();
        }
        // A segment that is there, or comes back after a loss of power, without the row that says
        // that it has settled, would be taken for a delivery that the state has not heard of.
        let layout = &self.shared().layout;
        let left = match self.remove_segments_of(&old) {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "the history of the outbox could not be shortened");
                return Vec::new();
            }
        };
        let index = self.shared().index();
        let mut files = Vec::new();
        for (id, position) in old {
            if !left.contains(&id) {
                files.push(layout.rejected(id));
                change.remove_delivery(&index, position);
            }
        }
        files.retain(|path| path.exists());
        files
    }

    fn old_deliveries(&self) -> HashMap<DeliveryId, u64> {
        let index = self.shared().index();
        let settled: Vec<(DeliveryId, u64)> = index
            .deliveries
            .iter()
            .filter(|(_, delivery)| {
                delivery.is_settled() && delivery.counters.dead == Tally::default()
            })
            .map(|(position, delivery)| (delivery.row.info.id, *position))
            .collect();
        let excess = settled.len().saturating_sub(self.shared().settings.history);
        settled.into_iter().take(excess).collect()
    }

    /// Makes sure that no segment of these is there; returns those of which one is.
    fn remove_segments_of(
        &self,
        old: &HashMap<DeliveryId, u64>,
    ) -> io::Result<HashSet<DeliveryId>> {
        let (layout, disk) = (&self.shared().layout, &self.shared().disk);
        let mut left = HashSet::new();
        for entry in fs::read_dir(layout.segments())? {
            let path = entry?.path();
            let name = path.file_name().and_then(parse_segment_name);
            if let Some(SegmentName::Segment(id, _)) = name
                && old.contains_key(&id)
                && disk.remove(&path).is_err()
            {
                left.insert(id);
            }
        }
        disk.sync_directory(&layout.segments())?;
        Ok(left)
    }

    fn forget_webhooks(&self, change: &mut Change) {
        let memory = self.shared().settings.webhook_memory.as_millis();
        let now = UnixMillis::now().0;
        for (&key, webhook) in &self.shared().index().webhooks {
            if u128::from(now.saturating_sub(webhook.committed.0)) > memory {
                change.forget_webhook(key);
            }
        }
    }

    /// The file's row goes only when its removal is durable: a file without one would be taken
    /// for letters that the state has not heard of.
    fn remove_empty_dead_files(&mut self, change: &mut Change) {
        let empty: Vec<(u32, u64)> = self
            .shared()
            .index()
            .dead_files
            .iter()
            .filter(|(_, file)| file.letters == 0)
            .map(|(number, file)| (*number, file.length))
            .collect();
        if empty.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for (number, length) in empty {
            self.dead.leave(number);
            let path = self.shared().layout.dead(number);
            if self.shared().remove_spent(&path, length, false) {
                gone.push(number);
            }
        }
        let directory = self.shared().layout.dead_directory();
        match self.shared().disk.sync_directory(&directory) {
            Ok(()) => gone
                .into_iter()
                .for_each(|number| change.set_dead_file(number, None)),
            Err(error) => tracing::warn!(%error, "dead-letter files could not be forgotten"),
        }
    }
}
