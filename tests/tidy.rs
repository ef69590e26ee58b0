//! House rules that a compiler does not hold: which room may use which, how long a file may be,
//! and what must not stand in the source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which rooms each room may use: the dependency table of the crate's page. `model`, `clock` and
/// `shutdown` are nobody's secret and may be used by all.
const ROOMS: [(&str, &[&str]); 25] = [
    ("model", &[]),
    ("clock", &[]),
    ("shutdown", &[]),
    ("record", &[]),
    ("seal", &[]),
    ("tls", &[]),
    ("telemetry", &[]),
    ("decode", &[]),
    ("mapping", &["record"]),
    ("group", &["record", "seal"]),
    (
        "mparticle::encode",
        &["mapping", "record", "mparticle::era", "mparticle::limits"],
    ),
    ("mparticle::era", &[]),
    ("mparticle::limits", &[]),
    ("mparticle::edit", &[]),
    (
        "mparticle::client",
        &["drain", "mparticle::era", "mparticle::reply"],
    ),
    ("mparticle::reply", &["drain"]),
    ("outbox", &["seal"]),
    ("drain", &["outbox"]),
    (
        "ingest",
        &[
            "decode",
            "mapping",
            "group",
            "mparticle::encode",
            "mparticle::era",
            "outbox",
            "record",
            "seal",
        ],
    ),
    ("config", &["mapping"]),
    ("intake", &["config", "decode", "seal", "tls"]),
    ("control", &[]),
    ("notify", &["control"]),
    ("sandbox", &[]),
    ("looker", &["sandbox"]),
];

/// The composition root and the command line wire the rooms and may use them all.
const ROOTS: [&str; 3] = ["app", "cli", "lib"];
const EVERYBODY: [&str; 3] = ["model", "clock", "shutdown"];

/// Longer files have usually become two nouns.
const MOST_LINES: usize = 620;

fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(
        found.len() > 1,
        "there is something to check in {directory}"
    );
    found
}

fn name(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// `src/mparticle/encode/tests.rs` is in the room `mparticle::encode`, `src/drain/lane.rs` in
/// `drain`.
fn room_of(path: &Path) -> String {
    let name = name(path);
    let parts: Vec<_> = name
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/')
        .collect();
    match parts.as_slice() {
        ["mparticle", "mod"] => "lib".to_owned(),
        ["mparticle", second, ..] => format!("mparticle::{second}"),
        [first, ..] => (*first).to_owned(),
        [] => String::new(),
    }
}

/// The rooms that a source names behind `crate::`.
fn uses(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let words: Vec<String> = rest
            .split("::")
            .take(2)
            .map(|word| {
                word.chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect()
            })
            .collect();
        match words.as_slice() {
            [first, second] if first == "mparticle" => {
                used.insert(format!("mparticle::{second}"));
            }
            [first, ..] if !first.is_empty() => {
                used.insert(first.clone());
            }
            _ => {}
        }
    }
    used
}

#[test]
fn each_room_uses_only_the_rooms_that_it_may() {
    let table: BTreeMap<_, _> = ROOMS.into_iter().collect();
    let mut wrong = Vec::new();
    for path in sources("src") {
        let room = room_of(&path);
        if ROOTS.contains(&room.as_str()) || room == "main" {
            continue;
        }
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!(
                "{}: the room {room} is not in the table",
                name(&path)
            ));
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("a source");
        for used in uses(&text) {
            let own = used == room;
            let free = EVERYBODY.contains(&used.as_str());
            if !own && !free && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} may not use {used}", name(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_pure_rooms_know_no_runtime_no_network_and_no_clock() {
    let forbidden = [
        "tokio",
        "hyper",
        "axum",
        "Instant",
        "SystemTime",
        "std::net",
        "UnixMillis::now",
    ];
    let mut wrong = Vec::new();
    for path in sources("src") {
        let room = room_of(&path);
        let pure = [
            "model",
            "record",
            "decode",
            "mapping",
            "group",
            "mparticle::encode",
        ];
        if !pure.contains(&room.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for (at, line) in code.enumerate() {
            for word in forbidden {
                if line.contains(word) {
                    wrong.push(format!("{}:{}: {word}", name(&path), at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_short_enough_to_be_one_noun() {
    let long: Vec<_> = sources("src")
        .into_iter()
        .filter_map(|path| {
            let lines = std::fs::read_to_string(&path)
                .expect("a source")
                .lines()
                .count();
            (lines > MOST_LINES).then(|| format!("{}: {lines} lines", name(&path)))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_unfinished_and_nothing_unbounded_is_left_in_the_source() {
    // Put together here, so that this file does not find itself.
    let words = [
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["dbg", "!("].concat(),
        ["unbounded", "_channel"].concat(),
        ["#[ign", "ore"].concat(),
    ];
    let mut found = Vec::new();
    for path in sources("src").into_iter().chain(sources("tests")) {
        let text = std::fs::read_to_string(&path).expect("a source");
        for (at, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", name(&path), at + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_comes_from_outside_is_never_unwrapped() {
    let mut found = Vec::new();
    for path in sources("src") {
        let file = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let of_tests = path.components().any(|part| part.as_os_str() == "tests");
        if file == "tests" || file.ends_with("_tests") || of_tests {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        // Tests stand at the end of a file.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, line) in code.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            if !comment && (line.contains(".unwrap()") || line.contains(".expect(")) {
                found.push(format!("{}:{}: {}", name(&path), at + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
