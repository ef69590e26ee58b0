//! One set of identities, and the events that wait for their batch.

use crate::mapping::Names;
use crate::mparticle::route::Route;
use crate::record::RecordView;

use super::latest::Latest;
use super::members::split_device;

/// One set of identities.
#[derive(Debug, Default)]
pub(super) struct Person {
    pub(super) identities: Vec<u8>,
    pub(super) first_row: u64,
    pub(super) last_row: u64,
    pub(super) rows: u32,
    pub(super) attributes: Latest,
    /// User mode only.
    pub(super) device: Latest,
    /// Event mode only.
    pub(super) devices: Vec<Device>,
    spare: Vec<Device>,
}

/// The events of a person from one device.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// The settings as they stand in the record: what tells devices apart.
    key: Vec<u8>,
    /// Members of `device_info`.
    pub(super) json: Vec<u8>,
    /// `ip` and `context`.
    pub(super) origin: Vec<u8>,
    pub(super) events: Vec<u8>,
    pub(super) count: usize,
    /// Rows that the events are of.
    pub(super) rows: u32,
    pub(super) first_row: u64,
    pub(super) last_row: u64,
    pub(super) route: Route,
}

impl Person {
    /// Takes note of a row among rows that come in any order. The first of those with attributes names
    /// the batches of attributes: each is noted once, so that no name is used twice.
    pub(super) fn note_in_any_order(&mut self, record: &RecordView<'_>) {
        if self.attributes.count == 0 {
            self.first_row = record.row;
        } else if !record.attributes.is_empty() {
            self.first_row = self.first_row.min(record.row);
        }
        self.last_row = self.last_row.max(record.row);
        self.attributes.set_if_later(record.attributes, record.row);
    }

    /// Where the device of a record is kept whose event goes to `route`.
    pub(super) fn device(
        &mut self,
        record: &RecordView<'_>,
        route: Route,
        names: &Names,
        plan: &str,
    ) -> usize {
        let known = self
            .devices
            .iter()
            .rposition(|device| device.key == record.device && device.route == route);
        if let Some(known) = known {
            return known;
        }
        let mut device = self.spare_device();
        device.describe(record.device, names, plan);
        device.first_row = record.row;
        device.route = route;
        self.devices.push(device);
        self.devices.len() - 1
    }

    /// An empty device, with memory that was used before if there is some.
    pub(super) fn spare_device(&mut self) -> Device {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a device's memory to be used again. One is what almost every delivery needs; more would
    /// only hold memory.
    pub(super) fn retire(&mut self, mut device: Device) {
        device.clear();
        if self.spare.is_empty() {
            self.spare.push(device);
        }
    }

    pub(super) fn retire_devices(&mut self) {
        while let Some(device) = self.devices.pop() {
            self.retire(device);
        }
    }

    pub(super) fn clear(&mut self) {
        self.identities.clear();
        self.rows = 0;
        self.attributes.clear();
        self.device.clear();
        self.retire_devices();
    }
}

impl Device {
    /// `section` is the device of a record.
    pub(super) fn describe(&mut self, section: &[u8], names: &Names, plan: &str) {
        self.key.extend_from_slice(section);
        split_device(section, names, plan, &mut self.json, &mut self.origin);
    }

    /// Bytes that it takes of each batch.
    pub(super) fn size(&self) -> usize {
        self.json.len() + self.origin.len()
    }

    /// Its events went out; the next one is of this row.
    pub(super) fn restart(&mut self, row: u64) {
        self.events.clear();
        self.count = 0;
        self.rows = 0;
        self.first_row = row;
    }

    fn clear(&mut self) {
        self.key.clear();
        self.json.clear();
        self.origin.clear();
        self.restart(0);
    }
}
