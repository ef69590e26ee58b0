//! The body of Looker's execute request, read while it arrives.
//!
//! All of it is small but `attachment.data`, the pushed result document, which comes as JSON in a
//! JSON string, as inline JSON, or as base64 in a JSON string. That one is handed on piece by piece;
//! the rest is collected, root key by root key, up to a limit.

use std::ops::Range;

use super::scan::{BYTE_ORDER_MARK, Event, Fault, Kind, Scanner, Seen, Stuck, is_space};
use super::sentences::text;
use super::unescape::{Base64, NotBase64, Unescape};

/// What an execute request may cost before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeLimits {
    /// Bytes of all that is not `attachment.data`, over the whole request.
    pub max_sections_bytes: usize,
    /// Arrays and objects inside each other, the root included. At most 128.
    pub max_depth: usize,
}

impl Default for EnvelopeLimits {
    fn default() -> Self {
        Self {
            max_sections_bytes: 1 << 20,
            max_depth: 64,
        }
    }
}

/// Reads one execute request. Push a chunk, call [`next`](Self::next) until it asks for bytes, and
/// so on; [`close`](Self::close) when no more come. Sections hold secrets: it has no `Debug`.
pub struct Envelope {
    buffer: Vec<u8>,
    at: usize,
    before: u64,
    closed: bool,
    stage: Stage,
    scanner: Scanner,
    copy: Copied,
    /// The key that is being read, or was read last: of the root, and in `attachment`.
    key: Vec<u8>,
    name: String,
    member: String,
    section: Vec<u8>,
    /// In an `attachment` that is an object.
    in_attachment: bool,
    attachment_seen: bool,
    mimetype: Option<String>,
    /// Where in `section` the attachment's member begins that is being read.
    member_start: usize,
    document: Document,
    /// The piece that was handed on last.
    piece: Vec<u8>,
    sections_bytes: usize,
    limits: EnvelopeLimits,
    failed: Option<EnvelopeError>,
}

/// What [`Envelope::next`] has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// All that was pushed is read: push more, or close.
    NeedBytes,
    /// A root key and its value: `type`, `scheduled_plan`, `data`, `form_params` and what else
    /// there is, null included. `attachment` comes as it is, without its `data`.
    Section {
        /// The key.
        name: &'a str,
        /// The value, well-formed JSON in UTF-8.
        json: &'a [u8],
    },
    /// `attachment.data` begins. It is not null; no piece at all follows when it is empty.
    AttachmentBegins {
        /// `attachment.mimetype`, when it came before `data`.
        mimetype: Option<&'a str>,
        /// How the document is wrapped.
        form: AttachmentForm,
    },
    /// The next bytes of the result document, unwrapped, for a [`Decoder`](super::Decoder).
    Attachment(&'a [u8]),
    /// The request is complete.
    End,
}

/// How `attachment.data` holds the result document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachmentForm {
    /// A JSON string that holds the document's text.
    Text,
    /// A JSON string that holds the document's bytes in base64.
    Base64,
    /// The document itself, an object or an array.
    Inline,
}

/// Why a request can't be read (further).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (byte {offset} of the request)")]
pub struct EnvelopeError {
    /// What is wrong.
    #[source]
    pub problem: EnvelopeProblem,
    /// Where: bytes before the place.
    pub offset: u64,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeProblem {
    /// No byte came, or only white space.
    #[error("the request is empty; an action hub's execute request is a JSON object")]
    Empty,
    /// The root is something else.
    #[error("the request is not a JSON object")]
    NotAnObject,
    /// The bytes ended before the root object did.
    #[error("the request is cut off before its end; send it again")]
    Truncated,
    /// Something other than white space after the root object.
    #[error("something follows after the end of the request")]
    Trailing,
    /// The text breaks JSON's grammar.
    #[error("the request is not valid JSON: {0}")]
    Malformed(#[source] Fault),
    /// A key or a section is not UTF-8.
    #[error("the request is not valid UTF-8")]
    NotUtf8,
    /// Passes [`EnvelopeLimits::max_sections_bytes`].
    #[error("the request has more than {limit} bytes beside the attachment's data")]
    SectionsTooLarge {
        /// The limit.
        limit: usize,
    },
    /// Two `attachment` keys, or two `data` keys in it.
    #[error("the request has two attachments")]
    TwoAttachments,
    /// `attachment.data` is a number or a boolean, `attachment` is neither object nor null.
    #[error("the request's `attachment` is not as Looker documents it")]
    Attachment,
    /// A base64 attachment that is none.
    #[error("the request's `attachment.data` is not valid base64")]
    NotBase64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Root keys and the attachment's small members.
    Sections,
    /// In `attachment.data` that is an object or array.
    Inline,
    /// In `attachment.data` that is a string.
    String,
}

/// Where the consumed bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    Nothing,
    Key,
    Section,
}

/// What is known of `attachment.data` while it is read.
#[derive(Debug, Default)]
struct Document {
    seen: bool,
    form: Option<AttachmentForm>,
    unescape: Unescape,
    base64: Base64,
    /// Text of the string that is not handed on yet.
    text: Vec<u8>,
    ended: bool,
    /// `piece` holds the first byte, which is not handed on yet.
    piece_due: bool,
}

/// [`Part`] by places.
enum Found {
    NeedBytes,
    Section,
    Begins(AttachmentForm),
    /// `piece`
    Piece,
    /// A part of the buffer.
    Slice(Range<usize>),
    End,
}

type Wrong = (usize, EnvelopeProblem);

impl Envelope {
    /// At the beginning of a request.
    pub fn new(limits: EnvelopeLimits) -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            before: 0,
            closed: false,
            stage: Stage::Sections,
            scanner: Scanner::new(limits.max_depth, 2),
            copy: Copied::Nothing,
            key: Vec::new(),
            name: String::new(),
            member: String::new(),
            section: Vec::new(),
            in_attachment: false,
            attachment_seen: false,
            mimetype: None,
            member_start: 0,
            document: Document::default(),
            piece: Vec::new(),
            sections_bytes: 0,
            limits,
            failed: None,
        }
    }

    /// Takes the request's next bytes. They are copied: call [`next`](Self::next) until it needs
    /// bytes before the next push, or the buffer grows by every chunk.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.before += self.at as u64;
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// No more bytes come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The next thing in the request.
    ///
    /// # Errors
    /// The request is cut off, damaged or too large; see [`EnvelopeProblem`]. The same error comes
    /// again on further calls.
    // An iterator could not lend parts out of the buffer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Part<'_>, EnvelopeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let found = match self.find() {
            Ok(found) => found,
            Err((at, problem)) => {
                let offset = self.before + (self.at + at) as u64;
                let error = EnvelopeError { problem, offset };
                self.failed = Some(error.clone());
                return Err(error);
            }
        };
        Ok(match found {
            Found::NeedBytes => Part::NeedBytes,
            Found::End => Part::End,
            Found::Section => Part::Section {
                name: &self.name,
                json: &self.section,
            },
            Found::Begins(form) => Part::AttachmentBegins {
                mimetype: self.mimetype.as_deref(),
                form,
            },
            Found::Piece => Part::Attachment(&self.piece),
            Found::Slice(range) => Part::Attachment(self.buffer.get(range).unwrap_or_default()),
        })
    }

    fn find(&mut self) -> Result<Found, Wrong> {
        loop {
            let found = match self.stage {
                Stage::Sections => self.sections()?,
                Stage::Inline => self.inline()?,
                Stage::String => self.string()?,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    fn sections(&mut self) -> Result<Option<Found>, Wrong> {
        let (range, seen) = self.step()?;
        let last = self
            .buffer
            .get(range.clone())
            .and_then(|bytes| bytes.last());
        let last = last.copied().unwrap_or_default();
        self.copy(range)?;
        let Some(seen) = seen else {
            return match self.scanner.done() {
                true if self.closed => Ok(Some(Found::End)),
                _ => self.out_of_bytes().map(Some),
            };
        };
        match (seen.depth, seen.event) {
            (0, Event::ValueBegin(kind)) if kind != Kind::Object => {
                Err((0, EnvelopeProblem::NotAnObject))
            }
            (1, event) => self.on_root(event, last),
            (2, event) if self.in_attachment => self.on_attachment(event, last),
            _ => Ok(None),
        }
    }

    /// A root key, or the first or last byte of its value.
    fn on_root(&mut self, event: Event, byte: u8) -> Result<Option<Found>, Wrong> {
        match event {
            Event::KeyBegin => self.begin_key(),
            Event::KeyEnd => self.name = self.end_key()?,
            Event::ValueBegin(kind) => {
                self.section.clear();
                self.copy = Copied::Section;
                if self.name == "attachment" {
                    if self.attachment_seen {
                        return Err((0, EnvelopeProblem::TwoAttachments));
                    }
                    self.attachment_seen = true;
                    match kind {
                        Kind::Object => {
                            self.in_attachment = true;
                            self.copy = Copied::Nothing;
                        }
                        Kind::Null => {}
                        _ => return Err((0, EnvelopeProblem::Attachment)),
                    }
                }
                self.keep(&[byte])?;
            }
            Event::ValueEnd => {
                self.copy = Copied::Nothing;
                if self.in_attachment {
                    self.in_attachment = false;
                    self.keep(b"}")?;
                }
                if std::str::from_utf8(&self.section).is_err() {
                    return Err((0, EnvelopeProblem::NotUtf8));
                }
                return Ok(Some(Found::Section));
            }
        }
        Ok(None)
    }

    /// A key in the attachment, or the first or last byte of its value.
    fn on_attachment(&mut self, event: Event, byte: u8) -> Result<Option<Found>, Wrong> {
        match event {
            Event::KeyBegin => self.begin_key(),
            Event::KeyEnd => self.member = self.end_key()?,
            Event::ValueBegin(kind) if self.member == "data" => {
                if self.document.seen {
                    return Err((0, EnvelopeProblem::TwoAttachments));
                }
                self.document.seen = kind != Kind::Null;
                match kind {
                    Kind::Null => {}
                    Kind::String => self.stage = Stage::String,
                    Kind::Object | Kind::Array => {
                        self.stage = Stage::Inline;
                        self.piece.push(byte);
                        self.document.piece_due = true;
                        return Ok(Some(Found::Begins(AttachmentForm::Inline)));
                    }
                    _ => return Err((0, EnvelopeProblem::Attachment)),
                }
            }
            Event::ValueBegin(_) => {
                let key = std::mem::take(&mut self.key);
                let comma: &[u8] = if self.section.len() > 1 { b"," } else { b"" };
                for part in [comma, b"\"", &key, b":"] {
                    self.keep(part)?;
                }
                self.key = key;
                self.member_start = self.section.len();
                self.keep(&[byte])?;
                self.copy = Copied::Section;
            }
            Event::ValueEnd => {
                self.copy = Copied::Nothing;
                let value = self.section.get(self.member_start..).unwrap_or_default();
                let content = value
                    .strip_prefix(b"\"")
                    .and_then(|value| value.strip_suffix(b"\""));
                if self.member == "mimetype"
                    && let Some(content) = content
                {
                    let mimetype = text(content, self.scanner.escaped());
                    self.mimetype = Some(mimetype.ok_or((0, EnvelopeProblem::NotUtf8))?);
                }
            }
        }
        Ok(None)
    }

    fn inline(&mut self) -> Result<Option<Found>, Wrong> {
        if std::mem::take(&mut self.document.piece_due) {
            return Ok(Some(Found::Piece));
        }
        let (range, seen) = self.step()?;
        if seen.is_some() {
            self.stage = Stage::Sections;
        } else if range.is_empty() {
            return self.out_of_bytes().map(Some);
        }
        Ok(Some(Found::Slice(range)))
    }

    fn string(&mut self) -> Result<Option<Found>, Wrong> {
        let Some(form) = self.document.form else {
            return self.sniff().map(Some);
        };
        let based = form == AttachmentForm::Base64;
        let unescaped = self.unescape(usize::MAX, based);
        self.piece.clear();
        let document = &mut self.document;
        if based {
            let mut decoded = document.base64.feed(&document.text, &mut self.piece);
            document.text.clear();
            if document.ended && decoded.is_ok() {
                decoded = document.base64.finish(&mut self.piece);
            }
            // Of two faults the first is named, however the request was cut.
            decoded.map_err(|NotBase64| (0, EnvelopeProblem::NotBase64))?;
        } else {
            std::mem::swap(&mut document.text, &mut self.piece);
        }
        unescaped?;
        if document.ended {
            self.scanner.read_elsewhere();
            self.stage = Stage::Sections;
        }
        match (self.piece.is_empty(), document.ended) {
            (false, _) => Ok(Some(Found::Piece)),
            (true, true) => Ok(None),
            (true, false) => self.out_of_bytes().map(Some),
        }
    }

    /// Finds out from the string's first character how it holds the document. It goes byte by byte,
    /// so that what is read by which rules does not depend on how the request was cut.
    fn sniff(&mut self) -> Result<Found, Wrong> {
        loop {
            let text = &mut self.document.text;
            text.drain(..leading_space(text));
            let undecided = text.is_empty() || BYTE_ORDER_MARK.starts_with(text);
            if undecided && !self.document.ended {
                if self.unescape(1, true)? == 0 {
                    return self.out_of_bytes();
                }
                continue;
            }
            let form = match (text.first(), &self.mimetype) {
                (None | Some(b'{' | b'[' | b'<'), _) => AttachmentForm::Text,
                (_, Some(mimetype)) if !mimetype.trim_end().ends_with(";base64") => {
                    AttachmentForm::Text
                }
                _ => AttachmentForm::Base64,
            };
            self.document.form = Some(form);
            return Ok(Found::Begins(form));
        }
    }

    /// Resolves at most `count` bytes of the string into `document.text`; returns how many.
    fn unescape(&mut self, count: usize, raw_breaks: bool) -> Result<usize, Wrong> {
        if self.document.ended {
            return Ok(0);
        }
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let part = rest.get(..count).unwrap_or(rest);
        let document = &mut self.document;
        let (used, ended) = document
            .unescape
            .feed(part, raw_breaks, &mut document.text)
            .map_err(|stuck| malformed(stuck, true))?;
        document.ended = ended;
        self.at += used;
        Ok(used)
    }

    /// Consumes up to the next event.
    fn step(&mut self) -> Result<(Range<usize>, Option<Seen>), Wrong> {
        let started = self.scanner.started();
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let (used, seen) = self
            .scanner
            .step(rest)
            .map_err(|stuck| malformed(stuck, started))?;
        let range = self.at..self.at + used;
        self.at += used;
        Ok((range, seen))
    }

    /// All bytes are consumed and the request has not ended.
    fn out_of_bytes(&self) -> Result<Found, Wrong> {
        match (self.closed, self.scanner.started()) {
            (false, _) => Ok(Found::NeedBytes),
            (true, true) => Err((0, EnvelopeProblem::Truncated)),
            (true, false) => Err((0, EnvelopeProblem::Empty)),
        }
    }

    fn begin_key(&mut self) {
        self.key.clear();
        self.copy = Copied::Key;
    }

    /// `key` is left with its closing quote.
    fn end_key(&mut self) -> Result<String, Wrong> {
        self.copy = Copied::Nothing;
        let raw = self.key.strip_suffix(b"\"").unwrap_or_default();
        text(raw, self.scanner.escaped()).ok_or((0, EnvelopeProblem::NotUtf8))
    }

    fn copy(&mut self, range: Range<usize>) -> Result<(), Wrong> {
        if self.copy == Copied::Nothing {
            return Ok(());
        }
        self.count(range.len())?;
        let bytes = self.buffer.get(range).unwrap_or_default();
        let to = match self.copy {
            Copied::Key => &mut self.key,
            _ => &mut self.section,
        };
        to.extend_from_slice(bytes);
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        self.count(bytes.len())?;
        self.section.extend_from_slice(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Wrong> {
        let limit = self.limits.max_sections_bytes;
        self.sections_bytes = self.sections_bytes.saturating_add(bytes);
        if self.sections_bytes > limit {
            return Err((0, EnvelopeProblem::SectionsTooLarge { limit }));
        }
        Ok(())
    }
}

/// `started`: the root's first byte has been read.
fn malformed(Stuck { at, fault }: Stuck, started: bool) -> Wrong {
    let problem = match fault {
        Fault::Trailing => EnvelopeProblem::Trailing,
        Fault::NoValue if !started => EnvelopeProblem::NotAnObject,
        _ => EnvelopeProblem::Malformed(fault),
    };
    (at, problem)
}

/// White space and byte order marks at the beginning.
fn leading_space(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        match rest.first() {
            Some(&byte) if is_space(byte) => at += 1,
            Some(_) if rest.starts_with(BYTE_ORDER_MARK) => at += BYTE_ORDER_MARK.len(),
            _ => break,
        }
    }
    at
}
