//! What each column of a delivery is for, decided once from its header.

use super::batch_columns::{BatchColumns, CONSENT, Object};
use super::cells::Spelling;
use super::commerce::needs_event_type;
use super::error::PlanError;
use super::event::EventColumns;
use super::historical::{Ages, Historical};
use super::identity::Cleaning;
use super::limits::MOST_ATTRIBUTES;
use super::names::{Names, json_name};
use super::notes::Tally;
use super::pivot::{PivotColumn, PivotedMeasures, Pivots};
use super::placeholders::Placeholders;
use super::spelling::{misspelt, nearest_tag, not_a_tag};
use super::tags::{self, DeviceType, Identity, Tag};
use super::time::Times;
use super::typed::{AttributeTypes, Type};
use super::{DELETED, Nulls, Settings, Untagged, columns};
use crate::model::{DataType, Field, FieldKind, Header};
use crate::record::FIRST_ATTRIBUTE;

/// Columns that a plan can hold: settings name their slot in 16 bits.
const MOST_COLUMNS: usize = u16::MAX as usize;
/// Where a place on the globe stands in a batch.
const LOCATION: &str = "context.location";

/// The mapping of one delivery.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) data_type: DataType,
    pub(super) columns: Vec<String>,
    pub(super) fates: Vec<ColumnFate>,
    pub(super) names: Names,
    pub(super) identities: Vec<IdentityColumns>,
    pub(super) device: Vec<DeviceColumn>,
    pub(super) ip: Vec<usize>,
    pub(super) latitude: Vec<usize>,
    pub(super) longitude: Vec<usize>,
    pub(super) batch_columns: BatchColumns,
    pub(super) attributes: Vec<usize>,
    pub(super) pivots: Pivots,
    pub(super) event: EventColumns,
    /// What is written for a user attribute that is null.
    pub(super) null: &'static [u8],
    pub(super) spelling: Spelling,
    pub(super) skip_sent: bool,
    pub(super) placeholders: Placeholders,
    pub(super) key: [u8; 16],
}

/// What became of one column of the result, for people who look for a missing tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnFate {
    /// The column's full name.
    pub column: String,
    /// Where its values go, as a path in a batch; `None`: nowhere.
    pub goes_to: Option<String>,
    /// Why it goes nowhere, or what to know of where it goes.
    pub remark: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct IdentityColumns {
    pub(super) identity: Identity,
    /// `"email":`
    pub(super) member: Box<str>,
    pub(super) slots: Vec<usize>,
    pub(super) cleaning: Cleaning,
}

#[derive(Clone, Debug)]
pub(super) struct DeviceColumn {
    pub(super) slot: usize,
    pub(super) kind: DeviceType,
}

impl Plan {
    /// Decides what each column is for. `key` makes the hashes that order users unforeseeable;
    /// any 16 bytes that are the same for the whole delivery will do.
    ///
    /// # Errors
    /// See [`PlanError`]: what makes the delivery as a whole senseless.
    pub fn new(header: &Header, settings: &Settings, key: [u8; 16]) -> Result<Self, PlanError> {
        let mut plan = Self::place_all(header, settings, key)?;
        if plan.identities.is_empty() {
            return Err(misspelt_identity(header).unwrap_or(PlanError::NoIdentity));
        }
        if plan.columns.len() > MOST_COLUMNS {
            return Err(PlanError::TooManyColumns(plan.columns.len()));
        }
        plan.identities.sort_by_key(|columns| columns.identity);
        let event_mode = settings.data_type == DataType::Event;
        if event_mode
            && settings.historical == Historical::Always
            && plan.event.timestamp.is_empty()
        {
            return Err(PlanError::HistoricalWithoutTime);
        }
        if skips_sent(settings) {
            let event = &plan.event;
            let nothing = event.timestamp.is_empty() && event.event_id.is_empty();
            let transactions = !event.kind.is_empty() && !event.commerce.transaction.is_empty();
            if nothing && !transactions {
                return Err(PlanError::NothingTellsApart);
            }
            plan.sort_by_name();
        }
        if event_mode {
            plan.shorten_events();
        }
        Ok(plan)
    }

    /// What each column would be for, also where the columns together make no plan, so that a
    /// person sees what is missing.
    pub fn preview(header: &Header, settings: &Settings) -> Result<Vec<ColumnFate>, PlanError> {
        Ok(Self::place_all(header, settings, [0; 16])?.fates)
    }

    fn place_all(header: &Header, settings: &Settings, key: [u8; 16]) -> Result<Self, PlanError> {
        let skip_sent = skips_sent(settings);
        let spelling = Spelling {
            strip_html: settings.strip_html,
            canonical: skip_sent,
        };
        let (null, event_null): (&[u8], &[u8]) = match settings.nulls {
            Nulls::Omit => (b"", b""),
            Nulls::Null => (b"null", b"null"),
            Nulls::Delete => (DELETED, b""),
        };
        let mut plan = Self {
            data_type: settings.data_type,
            columns: Vec::new(),
            fates: Vec::new(),
            names: Names::default(),
            identities: Vec::new(),
            device: Vec::new(),
            ip: Vec::new(),
            latitude: Vec::new(),
            longitude: Vec::new(),
            batch_columns: BatchColumns::new(settings.placeholders.clone()),
            attributes: Vec::new(),
            pivots: Pivots::default(),
            event: EventColumns {
                times: Times::new(header.timezone.as_deref(), settings.plausible, settings.now),
                most_names: settings.max_event_names,
                null: event_null,
                spelling,
                must_be_distinct: skip_sent,
                ages: Ages {
                    historical: settings.historical,
                    now: settings.now,
                },
                ..EventColumns::default()
            },
            null,
            spelling,
            skip_sent,
            placeholders: settings.placeholders.clone(),
            key,
        };
        for field in &header.fields {
            let fate = plan.place(field, header, settings)?;
            plan.fates.push(fate);
        }
        plan.place_origin();
        plan.place_batch_columns();
        plan.place_kinds();
        Ok(plan)
    }

    /// The columns that a row must be asked for, in the order of a row's slots.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What became of each column of the result, in Looker's order.
    pub fn fates(&self) -> &[ColumnFate] {
        &self.fates
    }

    /// Names of the slots in the records' settings.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Whether the rows so far make a delivery.
    #[inline]
    pub fn check(&self, tally: &Tally) -> Result<(), PlanError> {
        if !tally.event_names().is_beyond() {
            return Ok(());
        }
        let names = self
            .event
            .name
            .iter()
            .filter_map(|slot| self.columns.get(*slot));
        let names: Vec<_> = names.map(String::as_str).collect();
        Err(PlanError::TooManyEventNames {
            most: self.event.most_names,
            columns: names.join(", "),
        })
    }

    /// How many different names of events may be sent.
    pub fn most_event_names(&self) -> usize {
        self.event.most_names
    }

    /// One sentence for each column of which the person who tagged it should know something.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.fates.iter().filter_map(|fate| {
            let remark = fate.remark.as_ref()?;
            let end = if remark.ends_with('?') { "" } else { "." };
            Some(format!("Column {}: {remark}{end}", fate.column))
        })
    }

    /// Gives the columns of a place their slots, behind those of the device.
    fn place_origin(&mut self) {
        let device = &mut self.names.device;
        if !self.ip.is_empty() {
            self.names.ip = Some(device.len() as u16);
            device.push("\"ip\":".into());
        }
        if !self.latitude.is_empty() && !self.longitude.is_empty() {
            self.names.location = Some(device.len() as u16);
            device.push("\"location\":".into());
            return;
        }
        self.give_up(
            |path| path.starts_with(LOCATION),
            "not sent: a place needs a column with mp_latitude and one with mp_longitude",
        );
    }

    /// Gives ids at partners and consents their slots, behind those of a place.
    fn place_batch_columns(&mut self) {
        if self.batch_columns.consent_time.is_empty() {
            self.batch_columns.drop_consents();
            self.give_up(
                |path| path.starts_with(CONSENT),
                "not sent: mParticle needs the time of a consent: tag its column mp_consent_timestamp",
            );
        }
        self.batch_columns.name(&mut self.names);
    }

    /// Columns that turn out to go nowhere, and why.
    fn give_up(&mut self, which: impl Fn(&str) -> bool, why: &str) {
        for fate in &mut self.fates {
            if fate.goes_to.as_deref().is_some_and(&which) {
                fate.goes_to = None;
                fate.remark = Some(why.to_owned());
            }
        }
    }

    /// Without a column that says what kind an event is, all are custom events.
    fn place_kinds(&mut self) {
        self.names.purchases = !self.event.kind.is_empty();
        if !self.event.kind.is_empty() {
            return;
        }
        self.give_up(
            needs_event_type,
            "not sent: it is for screen views or commerce events, and no column with mp_event_type says which rows are such",
        );
    }

    /// Has events written by slot. Not where they are compared by their text, not where some are put
    /// together from several rows, and not where names come with the rows.
    fn shorten_events(&mut self) {
        let attributes = &self.event.attributes;
        let slots = usize::from(u16::MAX - FIRST_ATTRIBUTE);
        let named = !self.event.pivoted.is_empty();
        if self.skip_sent || named || !self.event.kind.is_empty() || attributes.len() > slots {
            return;
        }
        let names = attributes.iter().map(|(_, name)| name.clone());
        self.names.event = Some(names.collect());
        self.event.by_slot = true;
    }

    /// Makes what is written of a row independent of the order of the columns.
    fn sort_by_name(&mut self) {
        self.event.attributes.sort_by(|(_, a), (_, b)| a.cmp(b));
        self.event.commerce.sort_by_name();
        let origin = self.names.device.split_off(self.names.device_info());
        let names = std::mem::take(&mut self.names.device);
        let mut columns: Vec<_> = self.device.drain(..).zip(names).collect();
        columns.sort_by(|(_, a), (_, b)| a.cmp(b));
        (self.device, self.names.device) = columns.into_iter().unzip();
        self.names.device.extend(origin);
    }

    /// Decides one column's fate.
    fn place(
        &mut self,
        field: &Field,
        header: &Header,
        settings: &Settings,
    ) -> Result<ColumnFate, PlanError> {
        let fate = |goes_to: Option<String>, remark: Option<String>| ColumnFate {
            column: field.name.clone(),
            goes_to,
            remark,
        };
        let mut tags = field
            .tags
            .iter()
            .map(|tag| tag.trim())
            .filter(|tag| tag.starts_with("mp_"));
        let first = tags.next();
        let more = tags.next().is_some();
        let misspelt = match first {
            Some(_) => None,
            None => misspelt(field),
        };
        let tag = match first {
            Some(text) => match tags::tag(text) {
                Some(tag) => tag,
                None => {
                    let why = not_a_tag(text, nearest_tag(text));
                    return Ok(fate(None, Some(format!("not sent: {why}"))));
                }
            },
            None if is_pivoted(field, header)
                && settings.pivoted_measures == PivotedMeasures::Refuse =>
            {
                return Ok(fate(None, None));
            }
            None => match (settings.untagged, settings.data_type) {
                (Untagged::UserAttribute, DataType::User) => Tag::UserAttribute,
                (Untagged::EventAttribute, DataType::Event) => Tag::CustomAttribute,
                _ => {
                    let why = misspelt.map(|(text, meant)| not_a_tag(text, Some(meant)));
                    return Ok(fate(None, why.map(|why| format!("not sent: {why}"))));
                }
            },
        };
        if let Some(pivot) = header.pivots.first()
            && is_pivoted(field, header)
            && !passed_over(tag, settings)
        {
            return match self.place_pivoted(field, tag, settings) {
                Some(goes_to) => {
                    let remark = format!(
                        "the query pivots on {pivot}, so there is a value for each pivot value"
                    );
                    Ok(fate(Some(goes_to), Some(remark)))
                }
                None => Err(PlanError::Pivoted {
                    column: field.name.clone(),
                    tag: first.unwrap_or_default().to_owned(),
                    pivot: pivot.clone(),
                }),
            };
        }
        Ok(match self.assign(field, tag, settings) {
            Ok((path, remark)) => {
                let second = more.then(|| {
                    format!(
                        "it has several mp_ tags and only the first, {}, counts",
                        first.unwrap_or_default()
                    )
                });
                let misspelt = misspelt.map(|(text, meant)| not_a_tag(text, Some(meant)));
                fate(Some(path), remark.or(second).or(misspelt))
            }
            Err(why) => fate(None, Some(format!("not sent: {why}"))),
        })
    }

    /// Gives a pivoted column its place, as a path in a batch; `None` if it has none.
    fn place_pivoted(&mut self, field: &Field, tag: Tag, settings: &Settings) -> Option<String> {
        let name = format!("looker_{}", field.name);
        let column = PivotColumn::new(self.columns.len(), name, settings.pivoted_measures)?;
        let shown = column.shown_name();
        let path = match (tag, settings.data_type) {
            (Tag::UserAttribute, _) => {
                self.pivots.push(column);
                format!("user_attributes.\"{shown}\"")
            }
            (Tag::CustomAttribute, DataType::Event) => {
                self.event.pivoted.push(column);
                format!("events[].data.custom_attributes.\"{shown}\"")
            }
            _ => return None,
        };
        self.push_column(field, settings);
        Some(path)
    }

    /// Gives a column its place; the path of its values in a batch, and a remark. An error says
    /// why the column has no place.
    fn assign(
        &mut self,
        field: &Field,
        tag: Tag,
        settings: &Settings,
    ) -> Result<(String, Option<String>), String> {
        let dimension = field.name.rsplit('.').next().unwrap_or(&field.name);
        let slot = self.columns.len();
        let attribute = format!("looker_{}", field.name);
        let event_only = |what: &str| format!("{what} is for event data and this is user data");
        let twice = |columns: &[usize]| {
            (columns.len() > 1).then(|| {
                "another column has the same tag; the first of them that is not null is sent"
                    .to_owned()
            })
        };
        let place = |columns: &mut Vec<usize>, name: &str| {
            columns.push(slot);
            (format!("events[].data.{name}"), twice(columns))
        };
        let event_mode = settings.data_type == DataType::Event;
        let placed = match tag {
            Tag::Identity(identity) => {
                let name = identity.wire_name(settings.identity_names);
                let known = self
                    .identities
                    .iter()
                    .position(|columns| columns.identity == identity);
                let at = known.unwrap_or_else(|| {
                    self.identities.push(IdentityColumns {
                        identity,
                        member: format!("\"{name}\":").into(),
                        slots: Vec::new(),
                        cleaning: Cleaning {
                            strip_html: settings.strip_html,
                            trim: settings.trim_identities,
                            lowercase: settings.lowercase_email && identity == Identity::Email,
                        },
                    });
                    self.identities.len() - 1
                });
                let slots = &mut self.identities[at].slots;
                slots.push(slot);
                let path = match identity {
                    Identity::Mpid => name.to_owned(),
                    _ => format!("user_identities.{name}"),
                };
                (path, twice(slots))
            }
            Tag::Ip => {
                self.ip.push(slot);
                ("ip".to_owned(), twice(&self.ip))
            }
            Tag::Latitude => {
                self.latitude.push(slot);
                (format!("{LOCATION}.latitude"), twice(&self.latitude))
            }
            Tag::Longitude => {
                self.longitude.push(slot);
                (format!("{LOCATION}.longitude"), twice(&self.longitude))
            }
            Tag::PartnerIdentity | Tag::ConsentGdpr | Tag::ConsentCcpa => {
                let (object, path) = match tag {
                    Tag::ConsentGdpr => (Object::Gdpr, "consent_state.gdpr"),
                    Tag::ConsentCcpa => (Object::Ccpa, "consent_state.ccpa"),
                    _ => (Object::Partners, "partner_identities"),
                };
                self.batch_columns
                    .put(object, slot, json_name(dimension)?)?;
                (format!("{path}.\"{dimension}\""), None)
            }
            Tag::ConsentTime => {
                self.batch_columns.consent_time.push(slot);
                let path = "every consent's timestamp_unixtime_ms".to_owned();
                (path, twice(&self.batch_columns.consent_time))
            }
            Tag::UserAttribute => {
                let json = json_name(&attribute)?;
                if self.names.attributes.contains(&json) {
                    return Err("another column has the same name".to_owned());
                }
                self.names.attributes.push(json);
                self.attributes.push(slot);
                (format!("user_attributes.\"{attribute}\""), None)
            }
            Tag::DeviceInfo => {
                let (name, kind) = tags::device_field(dimension).ok_or_else(|| {
                    format!("mParticle's device_info has no field named {dimension}")
                })?;
                let json = json_name(name)?;
                if self.names.device.contains(&json) {
                    return Err(format!("another column fills device_info.{name} already"));
                }
                self.names.device.push(json);
                self.device.push(DeviceColumn { slot, kind });
                (format!("device_info.{name}"), None)
            }
            Tag::CustomAttribute if event_mode => {
                let json = json_name(&attribute)?;
                if self.event.attributes.iter().any(|(_, name)| *name == json) {
                    return Err("another column has the same name".to_owned());
                }
                self.event.attributes.push((slot, json));
                let path = format!("events[].data.custom_attributes.\"{attribute}\"");
                let crowded = (self.event.attributes.len() > MOST_ATTRIBUTES).then(|| {
                    format!(
                        "there are more than {MOST_ATTRIBUTES} custom attributes, the most that mParticle takes of an event; of each row the first {MOST_ATTRIBUTES} that are not null are sent"
                    )
                });
                (path, crowded)
            }
            Tag::EventType if event_mode => {
                self.event.kind.push(slot);
                ("events[].event_type".to_owned(), twice(&self.event.kind))
            }
            Tag::ScreenName if event_mode => place(&mut self.event.commerce.screen, "screen_name"),
            Tag::Commerce(tag) if event_mode => {
                let commerce = &mut self.event.commerce;
                let (path, slots) = commerce.place(tag, slot, &attribute, json_name)?;
                (path, twice(slots))
            }
            Tag::EventName if event_mode => place(&mut self.event.name, "event_name"),
            Tag::CustomEventType if event_mode => {
                place(&mut self.event.custom_type, "custom_event_type")
            }
            Tag::EventId if event_mode => place(&mut self.event.event_id, "event_id"),
            Tag::Timestamp if event_mode => {
                if columns::holds_days(field) {
                    self.event.days.push(slot);
                }
                let (path, twice) = place(&mut self.event.timestamp, "timestamp_unixtime_ms");
                (path, columns::coarse_timeframe(field).or(twice))
            }
            Tag::SessionId if event_mode => place(&mut self.event.session_id, "session_id"),
            Tag::SessionUuid if event_mode => place(&mut self.event.session_uuid, "session_uuid"),
            Tag::CustomAttribute => return Err(event_only("mp_custom_attribute")),
            _ => return Err(event_only("its tag")),
        };
        self.push_column(field, settings);
        Ok(placed)
    }

    /// Gives a column the next slot.
    fn push_column(&mut self, field: &Field, settings: &Settings) {
        self.columns.push(field.name.clone());
        if settings.attribute_types == AttributeTypes::Typed {
            let lookml = field.lookml_type.as_deref();
            self.event.types.push(Type::of(lookml));
        }
    }
}

/// Skipping what was sent is a choice for events only: profiles have no ids.
fn skips_sent(settings: &Settings) -> bool {
    settings.skip_sent && settings.data_type == DataType::Event
}

/// A column that goes nowhere for its tag would do no harm by its pivot.
fn passed_over(tag: Tag, settings: &Settings) -> bool {
    settings.pivoted_measures != PivotedMeasures::Refuse
        && settings.data_type == DataType::User
        && tag.is_of_events()
}

fn is_pivoted(field: &Field, header: &Header) -> bool {
    !header.pivots.is_empty() && field.kind != FieldKind::Dimension
}

/// The first column that was meant to be an identity.
fn misspelt_identity(header: &Header) -> Option<PlanError> {
    header.fields.iter().find_map(|field| {
        let (tag, meant) = misspelt(field)?;
        matches!(tags::tag(meant), Some(Tag::Identity(_))).then(|| PlanError::MisspeltIdentity {
            column: field.name.clone(),
            tag: tag.to_owned(),
            meant,
        })
    })
}
