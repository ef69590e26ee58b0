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

use super::{Encoder, Sink, Unsendable};

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

impl Encoder {
    /// Adds a record of a delivery that has purchases.
    pub(super) fn push_perhaps_purchase<S: Sink>(
        &mut self,
        record: RecordView<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if self.purchases.order != Some(record.user) {
            self.end_purchases(sink)?;
            self.purchases.order = Some(record.user);
        }
        let (mark, parts) = Mark::split(record.event);
        if mark.kind != EventKind::Commerce {
            return self.push_whole(record, 1, sink);
        }
        let purchase = Purchase::read(parts);
        if !purchase.key.is_empty() {
            return self.add_to_purchase(record, mark, purchase, sink);
        }
        let mut event = std::mem::take(&mut self.purchases.event);
        write_event(&mut event, mark, purchase.head, [purchase.product]);
        let whole = RecordView {
            event: &event,
            ..record
        };
        let pushed = self.push_whole(whole, 1, sink);
        self.purchases.event = event;
        pushed
    }

    /// Writes the purchases whose rows have all come.
    pub(super) fn end_purchases<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let Some(user) = self.purchases.order.take() else {
            return Ok(());
        };
        let mut event = std::mem::take(&mut self.purchases.event);
        for mut open in std::mem::take(&mut self.purchases.open) {
            let Some(&row) = open.rows.first() else {
                continue;
            };
            let mut products = open.products();
            if self.content.is_some() {
                products.sort_unstable();
            }
            write_event(&mut event, open.mark, &open.head, products);
            let record = RecordView {
                row,
                user,
                identities: &open.identities,
                device: &open.device,
                attributes: &[],
                event: &event,
            };
            if self.too_large(&record).is_some() {
                self.refuse(&mut open, user, sink)?;
            } else {
                self.push_whole(record, open.rows.len() as u32, sink)?;
            }
        }
        self.purchases.event = event;
        Ok(())
    }

    fn add_to_purchase<S: Sink>(
        &mut self,
        record: RecordView<'_>,
        mark: Mark,
        purchase: Purchase<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let is_it = |open: &Open| open.key == purchase.key && open.identities == record.identities;
        let known = self.purchases.open.iter().position(is_it);
        let mut open = match known {
            Some(at) => self.purchases.open.swap_remove(at),
            None => {
                if self.purchases.open.len() >= MOST_OPEN {
                    self.end_purchases(sink)?;
                    self.purchases.order = Some(record.user);
                }
                Open::new(&record, mark, purchase)
            }
        };
        if known.is_some() && open.rows.is_empty() {
            let rows = 0;
            sink.unsendable(record, self.too_large_purchase(rows))?;
            self.purchases.open.push(open);
            return Ok(());
        }
        open.add(&record, mark, purchase, self.content.is_some());
        let too_large = self.too_large(&record).is_some();
        if too_large || open.size() > self.settings.max_batch_bytes {
            self.refuse(&mut open, record.user, sink)?;
        } else {
            // The event comes when it is whole; what the row says of the user counts from now on.
            let at = self.person(&record, sink)?;
            self.people[at].note_in_any_order(&record);
        }
        self.purchases.open.push(open);
        Ok(())
    }

    /// Refuses the rows of a purchase, and those that are still to come.
    fn refuse<S: Sink>(
        &mut self,
        open: &mut Open,
        user: u64,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let why = self.too_large_purchase(open.rows.len());
        for row in std::mem::take(&mut open.rows) {
            let record = RecordView {
                row,
                user: user & !EVENT_BITS,
                identities: &open.identities,
                device: &open.device,
                attributes: &[],
                event: &[],
            };
            sink.unsendable(record, why)?;
        }
        (open.head, open.products, open.ends) = Default::default();
        Ok(())
    }

    fn too_large_purchase(&self, rows: usize) -> Unsendable {
        Unsendable::Purchase {
            rows,
            most: self.settings.max_batch_bytes,
        }
    }
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
