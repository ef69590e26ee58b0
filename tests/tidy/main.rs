//! House rules that a compiler does not hold: which room may use which, how long a file may be,
//! and what must not stand in the source. Which rooms there are and whom each may use is read from
//! the table on the crate's page.

mod circles;
mod law;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use law::Law;
use source::{Crate, Module, files, is_test, name};

/// The command line's entry is outside of all rooms.
const MAIN: &str = "src/main.rs";

/// Longer files have usually become two nouns.
const MOST_LINES: usize = 620;
/// In a room larger than this a reader needs to know where to begin: its files form no circle.
const LARGE_ROOM: usize = 2_000;

/// Modules and, for each, the rooms that it names and the path by which it does.
fn uses(all: &Crate, law: &Law) -> Vec<(String, Module, Module, String)> {
    let mut found = Vec::new();
    for source in all.sources.values().filter(|source| source.file != MAIN) {
        let room = law.room_of(&source.module);
        let mut seen = BTreeSet::new();
        for path in &source.named {
            let Some(module) = all.written(&source.module, path) else {
                continue;
            };
            if let Some(used) = law.room_of(&module)
                && seen.insert(used.clone())
            {
                let own = room.cloned().unwrap_or_default();
                found.push((source.file.clone(), own, used.clone(), path.join("::")));
            }
        }
    }
    assert!(found.len() > 100, "rooms use each other");
    found
}

#[test]
fn the_table_of_rooms_names_each_room_that_there_is_and_no_other() {
    let (all, law) = (Crate::read(), Law::read());
    let mut wrong = Vec::new();
    for (module, source) in &all.sources {
        // What is in no room may only hold rooms.
        let page = law.rooms.keys().any(|room| room.starts_with(module));
        if law.room_of(module).is_none() && !page && source.file != MAIN {
            wrong.push(format!("{}: its room is not in the table", source.file));
        }
    }
    for room in law.rooms.keys() {
        if !all.sources.contains_key(room) {
            wrong.push(format!("the table names {room:?}, which is not there"));
        }
    }
    let used = law.rooms.values().flatten().flatten();
    for room in used.chain(&law.everybody) {
        if !law.rooms.contains_key(room) {
            wrong.push(format!("{room:?} may be used, but has no row"));
        }
    }
    assert!(wrong.is_empty(), "src/lib.rs: {wrong:#?}");
}

#[test]
fn each_room_uses_only_the_rooms_that_it_may() {
    let (all, law) = (Crate::read(), Law::read());
    let wrong: Vec<_> = uses(&all, &law)
        .into_iter()
        .filter(|(_, room, used, _)| !room.is_empty() && !law.allows(room, used))
        .map(|(file, room, used, path)| {
            let (room, used) = (room.join("::"), used.join("::"));
            format!("{file}: {room} may not use {used} ({path})")
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_allows_nothing_that_is_not_used() {
    let (all, law) = (Crate::read(), Law::read());
    let uses = uses(&all, &law);
    let mut idle = Vec::new();
    for (room, may_use) in &law.rooms {
        for may in may_use.iter().flatten() {
            if !uses
                .iter()
                .any(|(_, by, used, _)| by == room && used == may)
            {
                idle.push(format!(
                    "{} does not use {}",
                    room.join("::"),
                    may.join("::")
                ));
            }
        }
    }
    assert!(idle.is_empty(), "src/lib.rs: {idle:#?}");
}

#[test]
fn the_pure_modules_know_no_runtime_no_network_and_no_clock() {
    let forbidden = ["tokio", "hyper", "axum"];
    let pairs = [
        ["std", "net"],
        ["time", "Instant"],
        ["time", "SystemTime"],
        ["UnixMillis", "now"],
    ];
    let (all, law) = (Crate::read(), Law::read());
    assert!(
        law.pure.len() > 5,
        "the crate's page names the pure modules"
    );
    let mut wrong = Vec::new();
    for pure in &law.pure {
        assert!(all.sources.contains_key(pure), "{pure:?} is not there");
    }
    for source in all.sources.values() {
        if !law.pure.iter().any(|pure| source.module.starts_with(pure)) {
            continue;
        }
        for path in &source.named {
            let word = path.iter().any(|part| forbidden.contains(&part.as_str()));
            let pair = path
                .windows(2)
                .any(|two| pairs.iter().any(|pair| pair == two));
            if word || pair {
                wrong.push(format!("{}: {}", source.file, path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_edges_read_a_clock_and_the_others_are_told_the_time() {
    let (all, law) = (Crate::read(), Law::read());
    let clocks = [
        (&law.wall, ["UnixMillis", "now"]),
        (&law.wall, ["SystemTime", "now"]),
        (&law.steady, ["Instant", "now"]),
    ];
    let mut wrong = Vec::new();
    for (may, call) in clocks {
        assert!(may.len() > 3, "the crate's page says who may read a clock");
        let reads = |source: &&source::Source| {
            let mut pairs = source.named.iter().flat_map(|path| path.windows(2));
            pairs.any(|pair| pair == call)
        };
        let within = |source: &source::Source, module| source.module.starts_with(module);
        let readers: Vec<_> = all
            .sources
            .values()
            .filter(|source| !is_test(Path::new(&source.file)))
            .filter(reads)
            .collect();
        for source in &readers {
            if !may.iter().any(|module| within(source, module)) {
                wrong.push(format!("{}: {}", source.file, call.join("::")));
            }
        }
        assert!(!readers.is_empty(), "somebody reads {call:?}");
    }
    assert!(wrong.is_empty(), "they are to be given a Clock: {wrong:#?}");
}

#[test]
fn the_files_of_a_large_room_form_no_circle() {
    let (all, law) = (Crate::read(), Law::read());
    let mut wrong = Vec::new();
    for room in law.rooms.keys() {
        let inside: Vec<_> = all
            .sources
            .values()
            .filter(|source| law.room_of(&source.module) == Some(room))
            .collect();
        let lines: usize = inside.iter().map(|source| source.lines).sum();
        if lines <= LARGE_ROOM {
            continue;
        }
        let circles = circles::of(&all, room, &inside);
        if !circles.is_empty() {
            wrong.push(format!("{}: {circles:#?}", room.join("::")));
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that make circles between files:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn files_stay_short_enough_to_be_one_noun() {
    let long: Vec<_> = files("src")
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
    for path in files("src").into_iter().chain(files("tests")) {
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
    for path in files("src") {
        if is_test(&path) {
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

mod tests {
    use super::source::Source;
    use super::*;

    fn named(text: &str) -> Vec<String> {
        let source = Source::read("src/a/b.rs".to_owned(), text);
        source.named.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn paths_are_read_out_of_trees_bodies_and_macros_and_not_out_of_comments_and_tests() {
        for (text, want) in [
            ("use crate::{a, b::C};", vec!["crate::a", "crate::b::C"]),
            (
                "use crate::{a::{self, B as D}, e::*};",
                vec!["crate::a", "crate::a::B", "crate::e"],
            ),
            (
                "fn f() { crate::a::g::<crate::b::C>() }",
                vec!["fn", "f", "crate::a::g", "crate::b::C"],
            ),
            (
                "x!(\"{}\", super::super::c::d());",
                vec!["x", "super::super::c::d"],
            ),
            ("pub use c::D; pub(crate) use e::F;", vec!["pub"]),
            ("/* crate::a */ // crate::b\nmod c;", vec!["mod", "c"]),
            (
                "#[cfg(test)] mod t { use crate::z; } mod u;",
                vec!["mod", "u"],
            ),
            ("#[cfg(test)] use crate::z; mod u;", vec!["mod", "u"]),
        ] {
            assert_eq!(named(text), want, "{text}");
        }
    }

    #[test]
    fn the_table_is_read_with_rooms_below_rooms() {
        let law = Law::of(
            "//! | room | what | it may use | must not know |\n\
             //! |---|---|---|---|\n\
             //! | every room | | `a` | |\n\
             //! | [`a`] | x | nobody | y |\n\
             //! | [`b`]`::c`, `::d` | x | `a`, the names of `e` | y |\n\
             //! | [`e`], [`f`] | x | every room | |\n\
             //!\n\
             //! Pure, that is without a runtime, a network and a clock, are `a` and\n\
             //! `b::c`. And `f`.\n",
        );
        let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
        let rooms: Vec<_> = law.rooms.keys().map(|room| room.join("::")).collect();
        assert_eq!(rooms, ["a", "b::c", "b::d", "e", "f"]);
        assert_eq!(law.pure, [module("a"), module("b::c")]);
        for (room, used, allowed) in [
            ("a", "a", true),
            ("a", "e", false),
            ("b::c", "a", true),
            ("b::d", "e", true),
            ("b::d", "b::c", false),
            ("e", "f", true),
        ] {
            assert_eq!(
                law.allows(&module(room), &module(used)),
                allowed,
                "{room} {used}"
            );
        }
        assert_eq!(law.room_of(&module("b::c::x")), Some(&module("b::c")));
        assert_eq!(law.room_of(&module("b")), None);
    }
}
