//! What a generated row holds: user-level values are functions of the seed and the user, row-level
//! values of the seed and the row, so that nothing need be kept to compare against.

use std::sync::LazyLock;

use crate::clock::UnixMillis;

const DAY_MS: u64 = 86_400_000;
/// Timestamp of row 0: twenty days before this process asked first, since mParticle takes events older
/// than thirty elsewhere. The same for the life of the process, so that what arrived can be compared.
static FIRST_MS: LazyLock<u64> =
    LazyLock::new(|| (UnixMillis::now().0 / DAY_MS).saturating_sub(20) * DAY_MS);
/// From row to row, so that times are unique and rise with the row.
const STEP_MS: u64 = 137;

/// What row `number` of a shape holds, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedRow {
    /// Position in the delivery, from 0.
    pub number: u64,
    /// Which of the shape's users, from 0.
    pub user: u64,
    /// `users.id`, tagged `mp_customer_id`.
    pub customer_id: String,
    /// `users.email`, tagged `mp_email`.
    pub email: String,
    /// `users.plan`, tagged `mp_user_attribute`.
    pub plan: &'static str,
    /// `users.ltv`, tagged `mp_user_attribute`: the literal digits of a JSON number.
    pub lifetime_value: String,
    /// `devices.brand`, tagged `mp_device_info`.
    pub brand: &'static str,
    /// The event of the row; none in a user shape.
    pub event: Option<ExpectedEvent>,
    /// What only a user shape has.
    pub profile: Option<ExpectedProfile>,
}

/// The event-level columns of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedEvent {
    /// `events.name`, tagged `mp_event_name`.
    pub name: &'static str,
    /// `events.type`, tagged `mp_custom_event_type`.
    pub kind: &'static str,
    /// `events.time`, tagged `mp_timestamp_unixtime_ms`; unique, rising with the row.
    pub timestamp_ms: u64,
    /// `events.category`, tagged `mp_custom_attribute`.
    pub category: &'static str,
    /// `events.page`, tagged `mp_custom_attribute`; holds the row's number, so it is unique.
    pub page: String,
    /// `events.price`, tagged `mp_custom_attribute`: the literal digits of a JSON number.
    pub price: String,
}

/// The columns of a user shape that an event shape lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedProfile {
    /// `users.country`, tagged `mp_user_attribute`; a function of the user.
    pub country: &'static str,
    /// `users.visits`, tagged `mp_user_attribute`: the row's number, so that it can be seen which
    /// row of a user won.
    pub visits: u64,
}

/// A string as JSON has it between the quotes, and what it means.
pub(super) struct Word {
    pub(super) raw: &'static str,
    pub(super) text: &'static str,
}

const fn plain(text: &'static str) -> Word {
    Word { raw: text, text }
}

/// The user-level values of a user, not yet written out.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub(super) seed: u64,
    pub(super) number: u64,
    hash: u64,
}

impl User {
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let hash = mix(seed ^ mix(number));
        Self { seed, number, hash }
    }

    /// `1f00-00012345`: the seed's mark and the user's number.
    pub(super) fn write_customer_id(self, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mark = mix(self.seed);
        out.extend((0..4).map(|digit| HEX[(mark >> (4 * digit) & 15) as usize]));
        out.push(b'-');
        write_padded(out, self.number, 8);
    }

    /// `maria.okafor.12345@example.com`
    pub(super) fn write_email(self, out: &mut Vec<u8>) {
        out.extend_from_slice(pick(&FIRST_NAMES, self.hash).as_bytes());
        out.push(b'.');
        out.extend_from_slice(pick(&LAST_NAMES, self.hash >> 8).as_bytes());
        out.push(b'.');
        write_number(out, self.number);
        out.extend_from_slice(b"@example.com");
    }

    pub(super) fn plan(self) -> &'static Word {
        pick(&PLANS, self.hash >> 16)
    }

    pub(super) fn brand(self) -> &'static Word {
        pick(&BRANDS, self.hash >> 24)
    }

    pub(super) fn country(self) -> &'static Word {
        pick(&COUNTRIES, self.hash >> 32)
    }

    pub(super) fn write_lifetime_value(self, out: &mut Vec<u8>) {
        write_cents(out, (self.hash >> 40) % 1_000_000);
    }
}

/// The row-level values of an event row, not yet written out.
#[derive(Clone, Copy)]
pub(super) struct Event {
    number: u64,
    hash: u64,
}

impl Event {
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let hash = mix(seed.rotate_left(32) ^ mix(number));
        Self { number, hash }
    }

    pub(super) fn name(self) -> &'static str {
        pick(&EVENTS, self.hash).0
    }

    pub(super) fn kind(self) -> &'static str {
        pick(&EVENTS, self.hash).1
    }

    pub(super) fn timestamp_ms(self) -> u64 {
        *FIRST_MS + self.number * STEP_MS
    }

    pub(super) fn category(self) -> &'static Word {
        pick(&CATEGORIES, self.hash >> 8)
    }

    pub(super) fn write_page(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"/p/");
        write_number(out, self.number);
    }

    pub(super) fn write_price(self, out: &mut Vec<u8>) {
        write_cents(out, (self.hash >> 16) % 100_000);
    }
}

/// Row `number` of `user`, as a test wants to see it.
pub(super) fn expected(user: User, number: u64, has_event: bool) -> ExpectedRow {
    let event = Event::new(user.seed, number);
    ExpectedRow {
        number,
        user: user.number,
        customer_id: written(|out| user.write_customer_id(out)),
        email: written(|out| user.write_email(out)),
        plan: user.plan().text,
        lifetime_value: written(|out| user.write_lifetime_value(out)),
        brand: user.brand().text,
        event: has_event.then(|| ExpectedEvent {
            name: event.name(),
            kind: event.kind(),
            timestamp_ms: event.timestamp_ms(),
            category: event.category().text,
            page: written(|out| event.write_page(out)),
            price: written(|out| event.write_price(out)),
        }),
        profile: (!has_event).then(|| ExpectedProfile {
            country: user.country().text,
            visits: number,
        }),
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The finaliser of splitmix64: near numbers get far hashes.
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn pick<T, const N: usize>(from: &'static [T; N], hash: u64) -> &'static T {
    &from[(hash & 0xFF) as usize % N]
}

pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// At least `width` digits, zeros in front.
fn write_padded(out: &mut Vec<u8>, number: u64, width: u32) {
    let mut ten = 10_u64.pow(width - 1);
    while number < ten && ten > 1 {
        out.push(b'0');
        ten /= 10;
    }
    write_number(out, number);
}

/// Two decimals always, so that `12.50` shows whether literal digits are kept.
fn write_cents(out: &mut Vec<u8>, cents: u64) {
    write_number(out, cents / 100);
    out.push(b'.');
    write_padded(out, cents % 100, 2);
}

const FIRST_NAMES: [&str; 8] = [
    "maria", "wei", "amara", "jonas", "fatima", "liam", "sofia", "kenji",
];
const LAST_NAMES: [&str; 8] = [
    "okafor", "larsen", "garcia", "tanaka", "novak", "silva", "kumar", "dubois",
];
const PLANS: [Word; 5] = [
    plain("free"),
    plain("basic"),
    plain("café plus"),
    Word {
        raw: r#"gold \"VIP\""#,
        text: "gold \"VIP\"",
    },
    plain("team"),
];
const BRANDS: [Word; 5] = [
    plain("Apple"),
    plain("Samsung"),
    plain("Google"),
    plain("Xiaomi"),
    plain("Nokia"),
];
const COUNTRIES: [Word; 4] = [
    plain("Brasil"),
    plain("日本"),
    Word {
        raw: r"T\u00fcrkiye",
        text: "Türkiye",
    },
    plain("Kenya"),
];
const EVENTS: [(&str, &str); 6] = [
    ("Product Viewed", "navigation"),
    ("Order Completed", "transaction"),
    ("Products Searched", "search"),
    ("Review Written", "user_content"),
    ("Link Shared", "social"),
    ("Video Played", "media"),
];
const CATEGORIES: [Word; 6] = [
    plain("shoes"),
    plain("outdoor & garden"),
    plain("kitchen"),
    Word {
        raw: r"sport\/team",
        text: "sport/team",
    },
    plain("bücher"),
    Word {
        raw: r"toys \ud83e\uddf8",
        text: "toys 🧸",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_like_the_standard_library_does() {
        for number in [0, 7, 10, 99, 12_345, u64::MAX] {
            assert_eq!(written(|out| write_number(out, number)), number.to_string());
            assert_eq!(
                written(|out| write_padded(out, number, 10)),
                format!("{number:010}")
            );
        }
        assert_eq!(written(|out| write_cents(out, 1_205)), "12.05");
        assert_eq!(written(|out| write_cents(out, 50)), "0.50");
    }

    #[test]
    fn raw_words_mean_their_text() {
        for word in PLANS
            .iter()
            .chain(&BRANDS)
            .chain(&COUNTRIES)
            .chain(&CATEGORIES)
        {
            let text: String = serde_json::from_str(&format!("\"{}\"", word.raw)).unwrap();
            assert_eq!(text, word.text);
        }
    }
}
