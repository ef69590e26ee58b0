//! Events that are not custom ones: which kind a row is, and what only screen views and commerce
//! events have.

use core::ops::Range;

use super::cells::{MOST_VALUE_CHARACTERS, Spelling, note_missing, text_value};
use super::error::Rejection;
use super::limits::{MOST_ATTRIBUTES, MOST_NAME_CHARACTERS};
use super::notes::{Note, Tally};
use super::tags::{CommerceTag, PRODUCT_ACTIONS};
use super::values;
use crate::model::Row;
use crate::record::{EventKind, PurchaseWriter};

/// Slots of the columns, in Looker's order.
#[derive(Clone, Debug, Default)]
pub(super) struct CommerceColumns {
    pub(super) screen: Vec<usize>,
    action: Vec<usize>,
    pub(super) transaction: Vec<usize>,
    amounts: [Vec<usize>; 3],
    coupon: Vec<usize>,
    currency: Vec<usize>,
    product: [Vec<usize>; 7],
    /// Slot and `"name":`
    attributes: Vec<(usize, Box<str>)>,
}

/// Members of `product_action`, as `CommerceColumns::amounts` has them.
const AMOUNTS: [&str; 3] = ["total_amount", "tax_amount", "shipping_amount"];
/// Members of a product, as `ProductField` numbers them; the last two are numbers.
const PRODUCT: [&str; 7] = [
    "id", "name", "brand", "category", "variant", "price", "quantity",
];
const PRODUCT_TEXTS: usize = 5;
const PRODUCT_ACTION: &str = "events[].data.product_action";

/// Whether a path in a batch is one that only an event of a kind of its own has.
pub(super) fn needs_event_type(path: &str) -> bool {
    path.starts_with(PRODUCT_ACTION)
        || ["events[].data.screen_name", "events[].data.currency_code"].contains(&path)
}

/// The kind of a row's event; null is a custom one.
pub(super) fn event_kind(
    row: &Row<'_>,
    slots: &[usize],
    columns: &[String],
    tally: &mut Tally,
) -> Result<EventKind, Rejection> {
    let found = first_word(row, slots, tally, |word| {
        EventKind::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(word))
    });
    match found {
        Some((_, Some(kind))) => Ok(kind),
        Some((slot, None)) => Err(Rejection::EventType(column(columns, slot))),
        None => Ok(EventKind::Custom),
    }
}

/// Writes `"screen_name":…`.
pub(super) fn write_screen(
    row: &Row<'_>,
    slots: &[usize],
    out: &mut Vec<u8>,
    spelling: Spelling,
    tally: &mut Tally,
) -> Result<(), Rejection> {
    let start = out.len();
    let name = ("screen_name", slots, MOST_NAME_CHARACTERS);
    text_member(out, row, name, spelling, tally);
    if out.len() == start {
        return Err(Rejection::NoScreenName);
    }
    // It is the first member.
    out.remove(start);
    Ok(())
}

impl CommerceColumns {
    /// Gives a column its place; the path of its values in a batch, and all columns of that place.
    pub(super) fn place(
        &mut self,
        tag: CommerceTag,
        slot: usize,
        attribute: &str,
        json: impl FnOnce(&str) -> Result<Box<str>, String>,
    ) -> Result<(String, &[usize]), String> {
        let (name, slots) = match tag {
            CommerceTag::Action => (".action", &mut self.action),
            CommerceTag::TransactionId => (".transaction_id", &mut self.transaction),
            CommerceTag::TotalAmount => (".total_amount", &mut self.amounts[0]),
            CommerceTag::TaxAmount => (".tax_amount", &mut self.amounts[1]),
            CommerceTag::ShippingAmount => (".shipping_amount", &mut self.amounts[2]),
            CommerceTag::CouponCode => (".coupon_code", &mut self.coupon),
            CommerceTag::CurrencyCode => {
                self.currency.push(slot);
                return Ok(("events[].data.currency_code".to_owned(), &self.currency));
            }
            CommerceTag::Product(field) => {
                let at = field as usize;
                self.product[at].push(slot);
                let path = format!("{PRODUCT_ACTION}.products[].{}", PRODUCT[at]);
                return Ok((path, &self.product[at]));
            }
            CommerceTag::ProductAttribute => {
                let name = json(attribute)?;
                if self.attributes.iter().any(|(_, known)| *known == name) {
                    return Err("another column has the same name".to_owned());
                }
                self.attributes.push((slot, name));
                let path = format!("{PRODUCT_ACTION}.products[].custom_attributes.\"{attribute}\"");
                return Ok((path, &[]));
            }
        };
        slots.push(slot);
        Ok((format!("{PRODUCT_ACTION}{name}"), slots))
    }

    /// Makes what is written independent of the order of the columns.
    pub(super) fn sort_by_name(&mut self) {
        self.attributes.sort_by(|(_, a), (_, b)| a.cmp(b));
    }

    /// Begins a commerce event with its key: what it does and the transaction, if there is one.
    pub(super) fn begin(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        columns: &[String],
        tally: &mut Tally,
    ) -> Result<Begun, Rejection> {
        let action = match first_word(row, &self.action, tally, product_action) {
            Some((_, Some(action))) => action,
            Some((slot, None)) => {
                return Err(Rejection::ProductAction(column(columns, slot)));
            }
            None => PRODUCT_ACTIONS[0],
        };
        let mut writer = PurchaseWriter::begin(out);
        let start = out.len();
        out.extend_from_slice(action.as_bytes());
        let end = out.len();
        // Equal texts have one spelling, else rows of one transaction could differ.
        let spelling = Spelling {
            canonical: true,
            ..Spelling::default()
        };
        let id = ("transaction_id", &*self.transaction, MOST_VALUE_CHARACTERS);
        text_member(out, row, id, spelling, tally);
        if out.len() == end {
            out.truncate(start);
        }
        let transaction = out.len() - out.len().min(end);
        let is_grouped = writer.end_key(out);
        Ok(Begun {
            writer,
            action,
            transaction: (end, transaction),
            is_grouped,
        })
    }

    /// Writes what the event has beside the members of every event: these have been written since
    /// it has begun. `name` are the columns of its name. Returns where that stands.
    pub(super) fn end(
        &self,
        begun: Begun,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        name: &[usize],
        spelling: Spelling,
        tally: &mut Tally,
    ) -> Range<usize> {
        let most = MOST_NAME_CHARACTERS;
        let start = out.len() + ",\"event_name\":".len();
        text_member(out, row, ("event_name", name, most), spelling, tally);
        let name = start..out.len();
        let screen = ("screen_name", &*self.screen, most);
        text_member(out, row, screen, spelling, tally);
        let most = MOST_VALUE_CHARACTERS;
        let currency = ("currency_code", &*self.currency, most);
        text_member(out, row, currency, spelling, tally);
        out.extend_from_slice(b",\"product_action\":{\"action\":\"");
        out.extend_from_slice(begun.action.as_bytes());
        out.push(b'"');
        let (start, length) = begun.transaction;
        out.extend_from_within(start..start + length);
        for (name, slots) in AMOUNTS.into_iter().zip(&self.amounts) {
            number_member(out, row, name, slots, tally);
        }
        let coupon = ("coupon_code", &*self.coupon, most);
        text_member(out, row, coupon, spelling, tally);
        begun.writer.end_head(out);
        self.write_product(row, out, spelling, tally);
        name
    }

    /// Writes the row's product; nothing when there is nothing to say of it.
    fn write_product(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        spelling: Spelling,
        tally: &mut Tally,
    ) {
        let start = out.len();
        for (at, (name, slots)) in PRODUCT.into_iter().zip(&self.product).enumerate() {
            if at < PRODUCT_TEXTS {
                let text = (name, slots.as_slice(), MOST_VALUE_CHARACTERS);
                text_member(out, row, text, spelling, tally);
            } else {
                number_member(out, row, name, slots, tally);
            }
        }
        self.write_attributes(row, out, spelling, tally);
        if out.len() > start {
            // For the comma of the first member.
            out[start] = b'{';
            out.push(b'}');
        }
    }

    /// A product's attributes are texts.
    fn write_attributes(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        spelling: Spelling,
        tally: &mut Tally,
    ) {
        let begin = out.len();
        out.extend_from_slice(b",\"custom_attributes\":{");
        let mut written = 0;
        for (slot, name) in &self.attributes {
            let start = out.len();
            if written > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            let there = text_value(out, row, *slot, MOST_VALUE_CHARACTERS, spelling, tally);
            if there && written < MOST_ATTRIBUTES {
                written += 1;
                continue;
            }
            out.truncate(start);
            if there {
                tally.add(Note::TooMany, *slot, row.number);
            }
        }
        match written {
            0 => out.truncate(begin),
            _ => out.push(b'}'),
        }
    }
}

/// A commerce event whose key has been written.
pub(super) struct Begun {
    writer: PurchaseWriter,
    action: &'static str,
    /// Where `,"transaction_id":…` stands in the key, and its length.
    transaction: (usize, usize),
    /// Rows with the same key are one event.
    pub(super) is_grouped: bool,
}

fn product_action(word: &str) -> Option<&'static str> {
    let word = match word {
        // As the schema spells it everywhere else.
        "remove_from_wishlist" => "remove_from_wish_list",
        word => word,
    };
    PRODUCT_ACTIONS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(word))
}

/// The first of the columns that has a word, and what it means.
fn first_word<T>(
    row: &Row<'_>,
    slots: &[usize],
    tally: &mut Tally,
    mean: impl Fn(&str) -> Option<T>,
) -> Option<(usize, Option<T>)> {
    slots.iter().find_map(|&slot| {
        let value = row.value(slot);
        match values::plain_text(value).as_deref().map(str::trim) {
            Some("") => None,
            Some(word) => Some((slot, mean(word))),
            None if note_missing(value, slot, row.number, tally) => None,
            None => Some((slot, None)),
        }
    })
}

/// Writes `,"name":"…"`, of so many characters at most, from the first of the columns that is not null or empty.
fn text_member(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    (name, slots, most): (&str, &[usize], usize),
    spelling: Spelling,
    tally: &mut Tally,
) {
    let start = out.len();
    if slots.is_empty() {
        return;
    }
    begin_member(out, name);
    let there = slots
        .iter()
        .any(|&slot| text_value(out, row, slot, most, spelling, tally));
    if !there {
        out.truncate(start);
    }
}

/// Writes `,"name":1.50` from the first of the columns that is a number.
fn number_member(out: &mut Vec<u8>, row: &Row<'_>, name: &str, slots: &[usize], tally: &mut Tally) {
    for &slot in slots {
        let value = row.value(slot);
        let text = values::literal_text(value);
        match text.as_deref().map(str::trim) {
            Some("") => {}
            Some(text) => match values::number_within(text, f64::MAX) {
                Some(literal) => {
                    begin_member(out, name);
                    out.extend_from_slice(literal.as_bytes());
                    return;
                }
                None => tally.add(Note::NotANumber, slot, row.number),
            },
            None => {
                if !note_missing(value, slot, row.number, tally) {
                    tally.add(Note::NotANumber, slot, row.number);
                }
            }
        }
    }
}

fn begin_member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn column(columns: &[String], slot: usize) -> String {
    columns.get(slot).cloned().unwrap_or_default()
}
