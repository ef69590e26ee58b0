//! Circles between the files of a room.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Crate, Module, Source};

/// The arrows that lie on a circle, as `from -> to`, in the order of their files. An arrow leads from a
/// file that names something to the file that defines it; handing a name on with `pub use` is none. The
/// entry point of the room stands outside: it holds what all files share, and calls them.
pub fn of(all: &Crate, entry: &Module, room: &[&Source]) -> Vec<String> {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let room = room.iter().filter(|source| source.module != *entry);
    let files: BTreeMap<_, _> = room
        .clone()
        .map(|source| (&source.module, source.file.as_str()))
        .collect();
    for source in room {
        let to = source.named.iter().filter_map(|path| {
            let module = all.defined(&source.module, path)?;
            files.get(&module).copied()
        });
        let to = to.filter(|to| *to != source.file).collect();
        arrows.insert(&source.file, to);
    }
    let reached: BTreeMap<_, _> = arrows
        .keys()
        .map(|from| (*from, reach(&arrows, from)))
        .collect();
    let mut found = Vec::new();
    for (from, targets) in &arrows {
        for to in targets {
            if reached[to].contains(from) {
                found.push(format!("{from} -> {to}"));
            }
        }
    }
    found
}

fn reach<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        for to in arrows.get(at).into_iter().flatten() {
            if reached.insert(*to) {
                open.push(to);
            }
        }
    }
    reached
}
