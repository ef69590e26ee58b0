//! JSON's grammar (RFC 8259) as a machine that can stop at any byte and go on with the next chunk.
//!
//! It keeps nothing of what it reads: the reader watches where keys and values begin and end, and
//! takes from the bytes what it wants.

use super::plain::{plain_member, plain_run};

/// Tolerated before a document.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Nesting that the machine can hold; one bit a level.
const DEEPEST: usize = 128;

/// What begins with a value's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// What the last consumed byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The opening quote of an object's key.
    KeyBegin,
    /// The closing quote of an object's key.
    KeyEnd,
    /// The first byte of a value (the quote, of a string).
    ValueBegin(Kind),
    /// The last byte of a value. For a number nothing more is consumed.
    ValueEnd,
}

/// An event, and how many arrays and objects stand around it (the value itself not counted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) event: Event,
    pub(super) depth: usize,
}

/// What stands next in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// An element; none of its bytes is consumed.
    Item,
    /// The closing bracket; it is not consumed.
    Close,
}

/// How the text breaks JSON's grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something else where a value must begin.
    #[error("a value is missing")]
    NoValue,
    /// `NaN`, `Infinity` or a misspelt literal.
    #[error("this is not a JSON literal (JSON has true, false and null; no NaN, no Infinity)")]
    Literal,
    /// A number against the grammar: leading zero, no digits after the point, and so on.
    #[error("this is not a JSON number")]
    Number,
    /// Something else where a key's opening quote must stand, for example after a trailing comma.
    #[error("a key in quotes is missing")]
    NoKey,
    /// No colon after a key.
    #[error("the colon after a key is missing")]
    NoColon,
    /// Neither comma nor closing bracket after a value.
    #[error("a comma or a closing bracket is missing")]
    NoComma,
    /// A backslash sequence that JSON does not have.
    #[error("a string has an invalid escape sequence")]
    Escape,
    /// A raw character below U+0020 in a string.
    #[error("a string has a raw control character")]
    Control,
    /// More arrays and objects inside each other than the limit.
    #[error("arrays and objects are nested too deeply")]
    TooDeep,
    /// Something other than white space after the root's end.
    #[error("something follows after the end of the document")]
    Trailing,
}

/// A fault, and where it is, counted from the first byte handed to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) at: usize,
    pub(super) fault: Fault,
}

/// The machine. A new one expects one value.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    state: State,
    /// Bit `n` is set when level `n` is an object.
    objects: u128,
    depth: usize,
    max_depth: usize,
    /// Events with more depth than this are not reported.
    watch: usize,
    /// Nothing is reported before the end of the value with this depth.
    muted: Option<usize>,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must come.
    Value,
    /// After `[`: a value or `]`.
    FirstValue,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After a comma in an object.
    Key,
    Colon,
    /// After a value in a container: comma or the closing bracket.
    After,
    String {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
    },
    Number(Progress),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
    /// The one value has ended.
    Done,
}

/// How far a number has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Scanner {
    /// Expects one value; reports events with at most `watch` containers around them.
    pub(super) fn new(max_depth: usize, watch: usize) -> Self {
        Self {
            state: State::Value,
            objects: 0,
            depth: 0,
            max_depth: max_depth.min(DEEPEST),
            watch,
            muted: None,
            escaped: false,
        }
    }

    /// Reports events up to another depth from now on.
    pub(super) fn watch(&mut self, depth: usize) {
        self.watch = depth;
    }

    /// Reports nothing but the end of the value whose key has just ended.
    pub(super) fn mute_value(&mut self) {
        self.muted = Some(self.depth);
    }

    /// Whether the key or string that ended last has a backslash.
    pub(super) fn escaped(&self) -> bool {
        self.escaped
    }

    /// Whether the value's first byte has been read.
    pub(super) fn started(&self) -> bool {
        self.depth > 0 || self.state != State::Value
    }

    /// Whether the value has ended; only white space may follow.
    pub(super) fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Consumes bytes up to the next event, or all of them.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<(usize, Option<Seen>), Stuck> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.muted.is_some() {
                let passed = self.pass_over_muted(bytes.get(at..).unwrap_or_default());
                if passed > 0 {
                    at += passed;
                    continue;
                }
            }
            let event = match self.state {
                State::String { key } => {
                    at += plain_run(bytes.get(at..).unwrap_or_default());
                    match bytes.get(at) {
                        None => break,
                        Some(b'"') => self.string_end(key),
                        Some(b'\\') => {
                            self.escaped = true;
                            self.state = State::Escape { key };
                            None
                        }
                        Some(_) => return stuck(at, Fault::Control),
                    }
                }
                State::Number(digits) => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let (length, digits) = digits.over(rest);
                    self.state = State::Number(digits);
                    at += length;
                    if at == bytes.len() {
                        break;
                    }
                    if !digits.complete() {
                        return stuck(at, Fault::Number);
                    }
                    if let Some(seen) = self.value_end() {
                        return Ok((at, Some(seen)));
                    }
                    continue;
                }
                State::Escape { key } => {
                    self.state = match byte {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                            State::String { key }
                        }
                        b'u' => State::Hex { key, left: 4 },
                        _ => return stuck(at, Fault::Escape),
                    };
                    None
                }
                State::Hex { key, left } => {
                    if !byte.is_ascii_hexdigit() {
                        return stuck(at, Fault::Escape);
                    }
                    self.state = match left {
                        1 => State::String { key },
                        _ => State::Hex {
                            key,
                            left: left - 1,
                        },
                    };
                    None
                }
                State::Literal(rest) => match rest.split_first() {
                    Some((&want, rest)) if want == byte => {
                        self.state = State::Literal(rest);
                        match rest {
                            [] => self.value_end(),
                            _ => None,
                        }
                    }
                    _ => return stuck(at, Fault::Literal),
                },
                _ if is_space(byte) => None,
                _ => match self.structure(byte) {
                    Ok(event) => event,
                    Err(fault) => return stuck(at, fault),
                },
            };
            at += 1;
            if event.is_some() {
                return Ok((at, event));
            }
        }
        Ok((at, None))
    }

    /// In an object: consumes members that are whole in `bytes`, written without white space, with a plain
    /// key that does not matter, by it and the number of containers around it, and a value without parts but
    /// plain strings. What it does not consume is for [`step`](Self::step).
    pub(super) fn pass_over(
        &mut self,
        bytes: &[u8],
        matters: impl Fn(usize, &[u8]) -> bool,
    ) -> usize {
        let is_place = match self.state {
            State::FirstKey => true,
            State::After => self.in_object(),
            _ => false,
        };
        // A list that nests too deeply is found by the step.
        if !is_place || self.depth >= self.max_depth {
            return 0;
        }
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (comma, member) = match (self.state, rest) {
                (State::FirstKey, member) => (0, member),
                (_, [b',', member @ ..]) => (1, member),
                _ => return at,
            };
            let Some(length) = plain_member(member, |key| matters(self.depth, key)) else {
                return at;
            };
            at += comma + length;
            self.state = State::After;
        }
    }

    #[inline(never)] // It would only make the step slower.
    fn pass_over_muted(&mut self, bytes: &[u8]) -> usize {
        self.pass_over(bytes, |_, _| false)
    }

    /// In an array: skips white space and the comma before the next element. `None` when the
    /// bytes ran out before.
    pub(super) fn next_element(&mut self, bytes: &[u8]) -> Result<(usize, Option<Element>), Stuck> {
        for (at, &byte) in bytes.iter().enumerate() {
            match (self.state, byte) {
                (_, b' ' | b'\n' | b'\t' | b'\r') => {}
                (State::After, b',') => self.state = State::Value,
                (State::After | State::FirstValue, b']') => return Ok((at, Some(Element::Close))),
                (State::Value, b']') => return stuck(at, Fault::NoValue),
                (State::After, _) => return stuck(at, Fault::NoComma),
                _ => return Ok((at, Some(Element::Item))),
            }
        }
        Ok((bytes.len(), None))
    }

    /// The value that began last, an array's element or a string, was read elsewhere to its end.
    pub(super) fn read_elsewhere(&mut self) {
        self.value_end();
    }

    fn structure(&mut self, byte: u8) -> Result<Option<Seen>, Fault> {
        match (self.state, byte) {
            (State::FirstValue, b']') | (State::FirstKey, b'}') => Ok(self.close()),
            (State::Value | State::FirstValue, _) => self.value_begin(byte).map(Some),
            (State::FirstKey | State::Key, b'"') => {
                self.escaped = false;
                self.state = State::String { key: true };
                Ok(Some(Event::KeyBegin))
            }
            (State::FirstKey | State::Key, _) => Err(Fault::NoKey),
            (State::Colon, b':') => {
                self.state = State::Value;
                Ok(None)
            }
            (State::Colon, _) => Err(Fault::NoColon),
            (State::After, b',') => {
                self.state = if self.in_object() {
                    State::Key
                } else {
                    State::Value
                };
                Ok(None)
            }
            (State::After, b'}') if self.in_object() => Ok(self.close()),
            (State::After, b']') if !self.in_object() => Ok(self.close()),
            (State::Done, _) => Err(Fault::Trailing),
            _ => Err(Fault::NoComma),
        }
        .map(|event| event.and_then(|event| self.seen(event, byte)))
    }

    fn value_begin(&mut self, byte: u8) -> Result<Event, Fault> {
        let kind = match byte {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::String,
            b'-' | b'0'..=b'9' => Kind::Number,
            b't' => Kind::True,
            b'f' => Kind::False,
            b'n' => Kind::Null,
            b'N' | b'I' => return Err(Fault::Literal),
            _ => return Err(Fault::NoValue),
        };
        self.state = match kind {
            Kind::Object => self.open(true)?,
            Kind::Array => self.open(false)?,
            Kind::String => {
                self.escaped = false;
                State::String { key: false }
            }
            Kind::Number => State::Number(match byte {
                b'-' => Progress::Minus,
                b'0' => Progress::Zero,
                _ => Progress::Whole,
            }),
            Kind::True => State::Literal(b"rue"),
            Kind::False => State::Literal(b"alse"),
            Kind::Null => State::Literal(b"ull"),
        };
        Ok(Event::ValueBegin(kind))
    }

    fn open(&mut self, object: bool) -> Result<State, Fault> {
        if self.depth >= self.max_depth {
            return Err(Fault::TooDeep);
        }
        let bit = 1_u128 << self.depth;
        self.objects = if object {
            self.objects | bit
        } else {
            self.objects & !bit
        };
        self.depth += 1;
        Ok(if object {
            State::FirstKey
        } else {
            State::FirstValue
        })
    }

    fn close(&mut self) -> Option<Event> {
        self.depth = self.depth.saturating_sub(1);
        self.after_value();
        Some(Event::ValueEnd)
    }

    fn string_end(&mut self, key: bool) -> Option<Seen> {
        if !key {
            return self.value_end();
        }
        self.state = State::Colon;
        self.report(Event::KeyEnd, self.depth)
    }

    fn value_end(&mut self) -> Option<Seen> {
        self.after_value();
        self.report(Event::ValueEnd, self.depth)
    }

    fn after_value(&mut self) {
        self.state = if self.depth == 0 {
            State::Done
        } else {
            State::After
        };
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    /// An opening bracket has already been counted when its event is made.
    fn seen(&mut self, event: Event, byte: u8) -> Option<Seen> {
        let opened = matches!(event, Event::ValueBegin(_)) && matches!(byte, b'{' | b'[');
        self.report(event, self.depth - usize::from(opened))
    }

    fn report(&mut self, event: Event, depth: usize) -> Option<Seen> {
        if let Some(muted) = self.muted {
            if event != Event::ValueEnd || depth != muted {
                return None;
            }
            self.muted = None;
        }
        (depth <= self.watch).then_some(Seen { event, depth })
    }
}

impl Progress {
    fn then(self, byte: u8) -> Option<Self> {
        use Progress::*;
        Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus | Whole, b'0'..=b'9') => Whole,
            (Zero | Whole, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Whole | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            _ => return None,
        })
    }

    /// Goes on over what belongs to the number; returns how many bytes that were.
    fn over(mut self, bytes: &[u8]) -> (usize, Self) {
        for (at, &byte) in bytes.iter().enumerate() {
            match self.then(byte) {
                Some(next) => self = next,
                None => return (at, self),
            }
        }
        (bytes.len(), self)
    }

    fn complete(self) -> bool {
        use Progress::*;
        matches!(self, Zero | Whole | Fraction | ExponentDigits)
    }
}

/// JSON's white space.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

fn stuck<T>(at: usize, fault: Fault) -> Result<T, Stuck> {
    Err(Stuck { at, fault })
}

#[cfg(test)]
mod tests;
