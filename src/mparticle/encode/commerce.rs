//! Rows that are parts of a purchase, to one event with all its products.
//!
//! Rows of a user that share a transaction come one after the other (the mapping gives them the same
//! order key), so that one purchase at a time is held, and at most as much of it as a batch may be.
//! A purchase that is larger is refused whole, row by row: half of it, with the total of all, would
//! be a wrong purchase, and two halves would be two. (What its rows say of the user may stand.)
//!
//! What the rows say of the purchase as a whole (time, total, attributes, device) is taken from its
//! first row. In a delivery that skips what was sent, where the order of rows must not matter, it is
//! taken from the row that sorts first, and products are sorted.

use crate::mapping::EVENT_BITS;
use crate::record::{EventKind, Mark, Purchase, RecordView};

use super::sink::{Sink, Unsendable};
use super::users::Users;

/// Purchases with the same order key that are held at once. Keys are hashes of 24 bits that nobody
/// can foresee, so that more than one is rare.
const MOST_OPEN: usize = 16;
/// What a row costs of the memory of a purchase, beside its product.
const ROW: usize = 16;

/// The purchases whose rows are coming.
#[derive(Debug, Default)]
pub(super) struct Purchases {
    /// The order key of the rows that are coming.
    order: Option<u64>,
    open: Vec<Open>,
    /// The event of a purchase that is whole.
    event: Vec<u8>,
}

/// One purchase.
#[derive(Debug, Default)]
struct Open {
    identities: Vec<u8>,
    key: Vec<u8>,
    /// What tells of the purchase as a whole.
    mark: Mark,
    device: Vec<u8>,
    head: Vec<u8>,
    /// One after the other, with their ends.
    products: Vec<u8>,
    ends: Vec<usize>,
    /// Empty: it is too large, and its rows have been refused.
    rows: Vec<u64>,
}

impl Purchases {
    /// Takes a record of a delivery that has purchases, and hands on what is whole.
    pub(super) fn push<S: Sink>(
        &mut self,
        record: RecordView<'_>,
        users: &mut Users,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if self.order != Some(record.user) {
            self.end(users, sink)?;
            self.order = Some(record.user);
        }
        let (mark, parts) = Mark::split(record.event);
        if mark.kind != EventKind::Commerce {
            return users.push(record, 1, sink);
        }
        let purchase = Purchase::read(parts);
        if !purchase.key.is_empty() {
            return self.add(record, mark, purchase, users, sink);
        }
        write_event(&mut self.event, mark, purchase.head, [purchase.product]);
        let whole = RecordView {
            event: &self.event,
            ..record
        };
        users.push(whole, 1, sink)
    }

    /// Hands on the purchases whose rows have all come.
    pub(super) fn end<S: Sink>(&mut self, users: &mut Users, sink: &mut S) -> Result<(), S::Error> {
        let Some(user) = self.order.take() else {
            return Ok(());
        };
        for mut open in std::mem::take(&mut self.open) {
            let Some(&row) = open.rows.first() else {
                continue;
            };
            let mut products = open.products();
            if users.come_in_any_order() {
                products.sort_unstable();
            }
            write_event(&mut self.event, open.mark, &open.head, products);
            let record = RecordView {
                row,
                user,
                identities: &open.identities,
                device: &open.device,
                attributes: &[],
                event: &self.event,
            };
            if users.too_large(&record) {
                refuse(&mut open, user, users.most_bytes(), sink)?;
            } else {
                users.push(record, open.rows.len() as u32, sink)?;
            }
        }
        Ok(())
    }

    fn add<S: Sink>(
        &mut self,
        record: RecordView<'_>,
        mark: Mark,
        purchase: Purchase<'_>,
        users: &mut Users,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let most = users.most_bytes();
        let is_it = |open: &Open| open.key == purchase.key && open.identities == record.identities;
        let known = self.open.iter().position(is_it);
        let mut open = match known {
            Some(at) => self.open.swap_remove(at),
            None => {
                if self.open.len() >= MOST_OPEN {
                    self.end(users, sink)?;
                    self.order = Some(record.user);
                }
                Open::new(&record, mark, purchase)
            }
        };
        if known.is_some() && open.rows.is_empty() {
            sink.unsendable(record, Unsendable::Purchase { rows: 0, most })?;
            self.open.push(open);
            return Ok(());
        }
        open.add(&record, mark, purchase, users.come_in_any_order());
        if users.too_large(&record) || open.size() > most {
            refuse(&mut open, record.user, most, sink)?;
        } else {
            // The event comes when it is whole; what the row says of the user counts from now on.
            users.note(&record, sink)?;
        }
        self.open.push(open);
        Ok(())
    }
}

/// Refuses the rows of a purchase, and those that are still to come.
fn refuse<S: Sink>(open: &mut Open, user: u64, most: usize, sink: &mut S) -> Result<(), S::Error> {
    let rows = open.rows.len();
    for row in std::mem::take(&mut open.rows) {
        let record = RecordView {
            row,
            user: user & !EVENT_BITS,
            identities: &open.identities,
            device: &open.device,
            attributes: &[],
            event: &[],
        };
        sink.unsendable(record, Unsendable::Purchase { rows, most })?;
    }
    (open.head, open.products, open.ends) = Default::default();
    Ok(())
}

impl Open {
    fn new(record: &RecordView<'_>, mark: Mark, purchase: Purchase<'_>) -> Self {
        Self {
            identities: record.identities.to_vec(),
            key: purchase.key.to_vec(),
            mark,
            device: record.device.to_vec(),
            head: purchase.head.to_vec(),
            ..Self::default()
        }
    }

    /// Adds a row. If rows come in any order, the row that sorts first tells of the whole.
    fn add(
        &mut self,
        record: &RecordView<'_>,
        mark: Mark,
        purchase: Purchase<'_>,
        in_any_order: bool,
    ) {
        self.rows.push(record.row);
        if !purchase.product.is_empty() {
            self.products.extend_from_slice(purchase.product);
            self.ends.push(self.products.len());
        }
        let this = (purchase.head, record.device);
        if in_any_order && this < (&self.head, &self.device) {
            self.mark = mark;
            self.head.clear();
            self.head.extend_from_slice(purchase.head);
            self.device.clear();
            self.device.extend_from_slice(record.device);
        }
    }

    fn size(&self) -> usize {
        self.head.len() + self.products.len() + self.rows.len() * ROW
    }

    fn products(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let ends = self.ends.iter();
        let products = ends.filter_map(|&end| {
            let product = self.products.get(start..end);
            start = end;
            product
        });
        products.collect()
    }
}

/// Writes the event section of a whole purchase: its mark, and its members.
fn write_event<'a>(
    out: &mut Vec<u8>,
    mark: Mark,
    head: &[u8],
    products: impl IntoIterator<Item = &'a [u8]>,
) {
    out.clear();
    out.push(mark.byte());
    out.extend_from_slice(head.strip_prefix(b",").unwrap_or(head));
    let mut products = products
        .into_iter()
        .filter(|product| !product.is_empty())
        .peekable();
    if products.peek().is_some() {
        out.extend_from_slice(b",\"products\":");
        let mut before = b'[';
        for product in products {
            out.push(before);
            out.extend_from_slice(product);
            before = b',';
        }
        out.push(b']');
    }
    // `product_action`, which the head leaves open.
    out.push(b'}');
}
