//! What must hold for any bytes: shared by the fuzz targets and by the replay of their corpus.

use std::fmt::Write as _;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use looker_feed::clock::UnixMillis;
use looker_feed::config;
use looker_feed::decode::{Decoder, Envelope, EnvelopeLimits, Limits, Part, Step};
use looker_feed::drain::Reply;
use looker_feed::mparticle::reply;
use looker_feed::outbox::{probe, probe_sealed};

/// A property of any bytes.
pub type Property = fn(&[u8]);

/// By the name of its fuzz target and of its corpus.
pub const ALL: [(&str, Property); 5] = [
    ("decode", decode),
    ("envelope", envelope),
    ("config", configuration),
    ("outbox", outbox),
    ("reply", answer),
];

/// The first byte says how the rest is cut.
fn cut(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((first, rest)) => (usize::from(*first).max(1), rest),
        None => (1, data),
    }
}

/// A result document ends the same way however it is cut, and what is accepted is JSON.
pub fn decode(data: &[u8]) {
    let (size, text) = cut(data);
    let (whole, accepted) = steps(text, usize::MAX);
    let (cut, _) = steps(text, size);
    assert_eq!(whole, cut, "cut at {size}");
    if accepted {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        serde_json::from_slice::<serde::de::IgnoredAny>(text).expect("what is accepted is JSON");
    }
}

fn steps(text: &[u8], size: usize) -> (String, bool) {
    let mut decoder = Decoder::new(Limits {
        max_row_bytes: 1 << 10,
        max_header_bytes: 1 << 12,
        max_columns: 8,
        max_depth: 10,
    });
    decoder.select(&["a", "b"]);
    let mut chunks = text.chunks(size.min(text.len().max(1)));
    let mut seen = String::new();
    loop {
        let step = decoder.next();
        let written = match &step {
            Ok(Step::NeedBytes) => {
                match chunks.next() {
                    Some(chunk) => decoder.push(chunk),
                    None => decoder.close(),
                }
                continue;
            }
            Ok(Step::EarlyRow(bytes)) => write!(seen, "early {bytes:?} "),
            Ok(Step::Header(header)) => write!(seen, "header {:?} ", header.fields),
            Ok(Step::Row(row)) => write!(
                seen,
                "row {} {:?} {:?} ",
                row.number,
                row.value(0),
                row.value(1)
            ),
            Ok(Step::End(header)) => write!(seen, "end {header:?}"),
            Err(error) => write!(seen, "error {error}"),
        };
        written.expect("a string takes all");
        match step {
            Ok(Step::End(_)) => return (seen, true),
            Err(_) => return (seen, false),
            Ok(_) => {}
        }
    }
}

/// An execute request gives the same sections and the same document however it is cut.
pub fn envelope(data: &[u8]) {
    let (size, text) = cut(data);
    let (whole, cut) = (parts(text, usize::MAX), parts(text, size));
    // Of a request that is too large and wrong in another way too, either is named.
    let too_large = |error: &String| error.contains("more than");
    if let (Err(one), Err(other)) = (&whole.2, &cut.2)
        && (too_large(one) || too_large(other))
    {
        return;
    }
    assert_eq!(whole, cut, "cut at {size}");
}

fn parts(text: &[u8], size: usize) -> (Vec<String>, Vec<u8>, Result<(), String>) {
    let mut envelope = Envelope::new(EnvelopeLimits {
        max_sections_bytes: 1 << 12,
        max_depth: 10,
    });
    let mut chunks = text.chunks(size.min(text.len().max(1)));
    let (mut sections, mut document) = (Vec::new(), Vec::new());
    loop {
        match envelope.next() {
            Ok(Part::NeedBytes) => match chunks.next() {
                Some(chunk) => envelope.push(chunk),
                None => envelope.close(),
            },
            Ok(Part::Section { name, json }) => {
                serde_json::from_slice::<serde::de::IgnoredAny>(json).expect("a section is JSON");
                sections.push(format!("{name} {json:?}"));
            }
            Ok(Part::AttachmentBegins { mimetype, form }) => {
                sections.push(format!("{mimetype:?} {form:?}"));
            }
            Ok(Part::Attachment(bytes)) => document.extend_from_slice(bytes),
            Ok(Part::End) => return (sections, document, Ok(())),
            // How much of a document is handed on before a fault depends on the cut, and the place of
            // a fault in base64 is that of its group.
            Err(error) => return (sections, Vec::new(), Err(error.problem.to_string())),
        }
    }
}

/// A configuration is accepted, or refused in one line that does not quote a secret.
pub fn configuration(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("looker-feed.toml");
    std::fs::write(&path, data).expect("a file");
    let env = std::iter::once((
        "LOOKER_FEED_INTAKE__SECRET".to_owned(),
        "hunter2hunter2".to_owned(),
    ));
    if let Err(error) = config::load(Some(&path), env) {
        let message = error.to_string();
        assert!(!message.is_empty());
        assert!(!message.contains("hunter2hunter2"), "{message}");
    }
}

/// Any bytes, in the place of any part of a file and with right checksums, are read or refused.
pub fn outbox(data: &[u8]) {
    let found = probe(data);
    assert!(found.records <= data.len(), "{found:?}");

    let length = (data.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length), data).to_le_bytes();
    probe(&[b"LFr2", &length[..], &crc, data].concat());

    let header = [&b"LFOUTBOX\x02\x00"[..], data].concat();
    probe(&[&header[..], &crc32c::crc32c(&header).to_le_bytes()].concat());

    let framed = [data, &length, &[0; 4]].concat();
    let crc = crc32c::crc32c(&framed).to_le_bytes();
    probe(&[&framed[..], &crc, b"LFe1"].concat());

    let sealed = probe_sealed(data);
    assert!(sealed.opened <= sealed.records, "{sealed:?}");
}

/// The first two bytes are the status, lines with a colon are headers up to an empty one, the rest
/// is the body. What comes out is bounded and printable.
pub fn answer(data: &[u8]) {
    let (status, rest) = data.split_at(data.len().min(2));
    let status = 100 + status.iter().fold(0, |sum, byte| sum + u16::from(*byte)) % 500;
    let mut headers = HeaderMap::new();
    let mut lines = rest.split(|byte| *byte == b'\n');
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let body = lines.collect::<Vec<_>>().join(&b'\n');
    let words = match reply::read(status, &headers, &body, UnixMillis(1_800_000_000_000)) {
        Reply::Accepted { percent_used } => {
            assert!(percent_used.is_none_or(|percent| percent <= 100));
            return;
        }
        Reply::Throttled { exceeded, .. } => format!("{exceeded:?}"),
        Reply::Unavailable { what, .. } => what,
        Reply::Unauthorized { words, .. }
        | Reply::Unexpected { words, .. }
        | Reply::Rejected { words, .. }
        | Reply::TooLarge { words } => words,
    };
    assert!(words.chars().count() <= reply::MAX_WORDS + 10, "{words}");
    assert!(!words.chars().any(char::is_control), "{words:?}");
}
