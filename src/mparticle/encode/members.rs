//! Members of a batch that take more than a copy: the user's ids, attributes that may be deleted,
//! where events come from, and the data plan.

use core::ops::Range;

use crate::mapping::{DELETED, Names};
use crate::record::settings;

use super::latest::name;
use super::text::push_member;

/// The data plan that mParticle checks batches against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPlan {
    /// `plan_id`
    pub id: String,
    /// `plan_version`; without one mParticle takes the latest.
    pub version: Option<u32>,
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

/// Whether a person's attributes go with this batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attributes {
    Now,
    Later,
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

/// Bytes of [`push_origin`] and [`push_batch_columns`] beside names, values and the data plan.
pub(super) const ORIGIN_FRAME: usize = 128;

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

/// Takes a record's device section apart: members of `device_info` to `json`, and what
/// [`push_origin`] and [`push_batch_columns`] write to `origin`.
pub(super) fn split_device(
    section: &[u8],
    names: &Names,
    plan: &str,
    json: &mut Vec<u8>,
    origin: &mut Vec<u8>,
) {
    let (mut ip, mut location) = (None, None);
    // Those of a place are in front of them.
    let batch_columns = names.device_info() as u16;
    for (slot, literal) in settings(section) {
        match Some(slot) {
            slot if slot == names.ip => ip = Some(literal),
            slot if slot == names.location => location = Some(literal),
            Some(slot) if slot >= batch_columns => {}
            _ => push_member(json, name(&names.device, slot), literal),
        }
    }
    push_origin(origin, ip, location, plan);
    if names.has_batch_columns() {
        let value = |wanted| {
            let mut settings = settings(section);
            settings.find_map(|(slot, literal)| (slot == wanted).then_some(literal))
        };
        push_batch_columns(origin, names, value);
    }
}

/// Writes `partner_identities` and `consent_state`, as far as there is something to write. `value` is
/// that of a slot.
pub(super) fn push_batch_columns<'a>(
    out: &mut Vec<u8>,
    names: &Names,
    value: impl Fn(u16) -> Option<&'a [u8]>,
) {
    let object = |out: &mut Vec<u8>, before: &str, slots: &Range<u16>| {
        let start = out.len();
        out.extend_from_slice(before.as_bytes());
        let empty = out.len();
        for slot in slots.clone() {
            if let Some(literal) = value(slot) {
                if out.len() > empty {
                    out.push(b',');
                }
                out.extend_from_slice(name(&names.device, slot).as_bytes());
                out.extend_from_slice(literal);
            }
        }
        match out.len() > empty {
            true => out.push(b'}'),
            false => out.truncate(start),
        }
    };
    object(out, ",\"partner_identities\":{", &names.partners);
    let start = out.len();
    object(out, ",\"consent_state\":{\"gdpr\":{", &names.gdpr);
    let before = match out.len() > start {
        true => ",\"ccpa\":{",
        false => ",\"consent_state\":{\"ccpa\":{",
    };
    object(out, before, &names.ccpa);
    if out.len() > start {
        out.push(b'}');
    }
}
