//! Members of a batch that take more than a copy: the user's ids, attributes that may be deleted,
//! where events come from, and the data plan.

use crate::mapping::{DELETED, Names};
use crate::record::settings;

use super::latest::name;
use super::{Device, Encoder};

/// The data plan that mParticle checks batches against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPlan {
    /// `plan_id`
    pub id: String,
    /// `plan_version`; without one mParticle takes the latest.
    pub version: Option<u32>,
}

impl Encoder {
    /// Every batch names this data plan.
    pub fn with_data_plan(mut self, plan: &DataPlan) -> Self {
        let id = serde_json::Value::from(plan.id.as_str());
        self.plan = match plan.version {
            Some(version) => {
                format!("\"data_plan\":{{\"plan_id\":{id},\"plan_version\":{version}}}")
            }
            None => format!("\"data_plan\":{{\"plan_id\":{id}}}"),
        };
        self
    }
}

/// How a record's identities begin when mParticle's own id is among them.
const MPID: &[u8] = b"\"mpid\":";

/// Ends `"user_identities":{`, which has just been written, with the identities of a record.
/// mParticle's own id is a member of the batch beside it.
pub(super) fn push_user(out: &mut Vec<u8>, identities: &[u8]) {
    let Some(after) = identities.strip_prefix(MPID) else {
        out.extend_from_slice(identities);
        out.push(b'}');
        return;
    };
    let end = after
        .iter()
        .position(|byte| *byte == b',')
        .unwrap_or(after.len());
    let (digits, others) = after.split_at(end);
    out.extend_from_slice(others.get(1..).unwrap_or_default());
    out.extend_from_slice(b"},\"mpid\":");
    out.extend_from_slice(digits);
}

/// Writes user attributes one by one, those to be deleted apart.
#[derive(Debug, Default)]
pub(super) struct AttributeWriter {
    set: usize,
    deleted: Vec<u8>,
}

impl AttributeWriter {
    pub(super) fn add(&mut self, out: &mut Vec<u8>, name: &str, literal: &[u8]) {
        if literal == DELETED {
            self.deleted.push(b',');
            let name = name.strip_suffix(':').unwrap_or(name);
            self.deleted.extend_from_slice(name.as_bytes());
            return;
        }
        out.extend_from_slice(match self.set {
            0 => b",\"user_attributes\":{",
            _ => b",",
        });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(literal);
        self.set += 1;
    }

    pub(super) fn end(self, out: &mut Vec<u8>) {
        if self.set > 0 {
            out.push(b'}');
        }
        if let Some(names) = self.deleted.get(1..) {
            out.extend_from_slice(b",\"deleted_user_attributes\":[");
            out.extend_from_slice(names);
            out.push(b']');
        }
    }
}

/// Bytes of [`push_origin`] beside its values and the data plan.
pub(super) const ORIGIN_FRAME: usize = 48;

/// Writes `ip` and `context`, as far as there is something to write. `plan` is the member
/// `data_plan`, or empty.
pub(super) fn push_origin(
    out: &mut Vec<u8>,
    ip: Option<&[u8]>,
    location: Option<&[u8]>,
    plan: &str,
) {
    if let Some(ip) = ip {
        out.extend_from_slice(b",\"ip\":");
        out.extend_from_slice(ip);
    }
    if plan.is_empty() && location.is_none() {
        return;
    }
    out.extend_from_slice(b",\"context\":{");
    out.extend_from_slice(plan.as_bytes());
    if let Some(location) = location {
        if !plan.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"\"location\":");
        out.extend_from_slice(location);
    }
    out.push(b'}');
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

    pub(super) fn clear(&mut self) {
        self.key.clear();
        self.json.clear();
        self.origin.clear();
        self.events.clear();
        self.count = 0;
    }
}

/// Takes a record's device section apart: members of `device_info` to `json`, and what
/// [`push_origin`] writes to `origin`.
fn split_device(
    section: &[u8],
    names: &Names,
    plan: &str,
    json: &mut Vec<u8>,
    origin: &mut Vec<u8>,
) {
    let (mut ip, mut location) = (None, None);
    for (slot, literal) in settings(section) {
        match Some(slot) {
            slot if slot == names.ip => ip = Some(literal),
            slot if slot == names.location => location = Some(literal),
            _ => super::push_member(json, name(&names.device, slot), literal),
        }
    }
    push_origin(origin, ip, location, plan);
}
