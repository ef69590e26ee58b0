//! The names of what a record holds by slot only: once for the whole delivery.

use super::limits::MOST_NAME_CHARACTERS;
use core::ops::Range;

/// JSON names (with quotes and colon) of the slots in a record's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `"looker_<view>.<dimension>":` for each user attribute.
    pub attributes: Vec<Box<str>>,
    /// `"<field>":` for each `device_info` member; behind them, what else belongs to the place
    /// that events come from and is a member of the batch.
    pub device: Vec<Box<str>>,
    /// The slot in `device` that holds the batch's `ip`.
    pub ip: Option<u16>,
    /// The slot in `device` that holds `context.location`.
    pub location: Option<u16>,
    /// The slots in `device` that hold `partner_identities`, by partner.
    pub partners: Range<u16>,
    /// Those of `consent_state.gdpr`, by purpose.
    pub gdpr: Range<u16>,
    /// Those of `consent_state.ccpa`, by purpose.
    pub ccpa: Range<u16>,
    /// `"looker_<view>.<dimension>":` for each custom attribute, if a record's event section holds
    /// its members by slot (see [`Members`](crate::record::Members)); `None`: they are written out.
    pub event: Option<Vec<Box<str>>>,
    /// Rows may be purchases; those of one transaction come one after the other, see
    /// [`EVENT_BITS`](super::EVENT_BITS).
    pub purchases: bool,
}

impl Names {
    /// Whether batches may have `partner_identities` or `consent_state`.
    pub fn has_batch_columns(&self) -> bool {
        let objects = [&self.partners, &self.gdpr, &self.ccpa];
        objects.into_iter().any(|range| !range.is_empty())
    }

    /// Bytes that a batch with all of them needs for names.
    pub fn bytes(&self) -> usize {
        let event = self.event.iter().flatten();
        let names = self.attributes.iter().chain(&self.device).chain(event);
        names.map(|name| name.len() + 1).sum()
    }

    /// How many slots of `device` are members of `device_info`.
    pub fn device_info(&self) -> usize {
        let objects = [&self.partners, &self.gdpr, &self.ccpa];
        let object = objects.into_iter().find(|range| !range.is_empty());
        self.ip
            .or(self.location)
            .or(object.map(|range| range.start))
            .map_or(self.device.len(), usize::from)
    }
}

/// `"name":`, or why mParticle would not take the name.
pub(super) fn json_name(name: &str) -> Result<Box<str>, String> {
    if name.chars().count() > MOST_NAME_CHARACTERS {
        return Err(format!(
            "its attribute's name would be longer than the {MOST_NAME_CHARACTERS} characters that mParticle takes"
        ));
    }
    let mut json = serde_json::Value::from(name).to_string();
    json.push(':');
    Ok(json.into_boxed_str())
}
