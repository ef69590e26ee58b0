//! The table of rooms on the crate's page, read: it is the one text that says who may use whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Module;

/// Begins the row of rooms that all others may use.
const EVERYBODY: &str = "every room";
/// In the third column: may use all rooms.
const EVERYTHING: &str = "every room";
/// Begins the line that names the pure modules.
const PURE: &str = "Pure, that is without a runtime, a network and a clock, are ";

/// Begins the sentence that names who may read the wall clock.
const WALL: &str = "The wall clock is read in ";
/// Begins the sentence that names who may read the steady clock.
const STEADY: &str = "The steady clock, by which waits are bounded, is read in ";

/// What the crate's page demands.
pub struct Law {
    /// Each room and whom it may use; `None`: all.
    pub rooms: BTreeMap<Module, Option<BTreeSet<Module>>>,
    /// May be used by all.
    pub everybody: BTreeSet<Module>,
    /// Know no runtime, no network and no clock.
    pub pure: Vec<Module>,
    /// May ask what time it is.
    pub wall: Vec<Module>,
    /// May ask how much time has passed.
    pub steady: Vec<Module>,
}

impl Law {
    /// Reads the crate's page.
    pub fn read() -> Self {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs"))
            .expect("the crate's page");
        Self::of(&page)
    }

    /// Reads a page. What it cannot read as a table is an error, never an empty law.
    pub fn of(page: &str) -> Self {
        let lines: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .collect();
        let mut law = Self {
            rooms: BTreeMap::new(),
            everybody: BTreeSet::new(),
            pure: Vec::new(),
            wall: Vec::new(),
            steady: Vec::new(),
        };
        let rows = lines.iter().filter_map(|line| line.strip_prefix("| "));
        for row in rows {
            let row = row.strip_suffix('|').unwrap_or(row);
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [rooms, _, may, _] = cells[..] else {
                panic!("a row of rooms has four cells: {row}");
            };
            if rooms == "room" {
                continue;
            }
            let may_use = (may != EVERYTHING).then(|| names(may).into_iter().collect());
            if rooms == EVERYBODY {
                law.everybody = names(may).into_iter().collect();
                continue;
            }
            let rooms = names(rooms);
            assert!(!rooms.is_empty(), "a row names its room in code: {row}");
            for room in rooms {
                let twice = law.rooms.insert(room.clone(), may_use.clone());
                assert!(twice.is_none(), "{room:?} stands in two rows");
            }
        }
        let text = lines.join(" ");
        let named = |begin: &str| {
            let after = text.split_once(begin).map_or("", |(_, after)| after);
            names(after.split(". ").next().unwrap_or_default())
        };
        law.pure = named(PURE);
        law.wall = named(WALL);
        law.steady = named(STEADY);
        law
    }

    /// The room that a module is in; `None` for the crate's page and pages that only hold rooms.
    pub fn room_of(&self, module: &Module) -> Option<&Module> {
        let within = |room: &&Module| module.starts_with(room);
        self.rooms
            .keys()
            .filter(within)
            .max_by_key(|room| room.len())
    }

    /// Whether code of one room may name another.
    pub fn allows(&self, room: &Module, used: &Module) -> bool {
        let may = self.rooms.get(room).and_then(Option::as_ref);
        room == used || self.everybody.contains(used) || may.is_none_or(|may| may.contains(used))
    }
}

/// The modules named in code spans: `` `a`, [`b`]`::c`, `::d` `` are `a`, `b::c` and `b::d`.
fn names(cell: &str) -> Vec<Module> {
    let mut found: Vec<Module> = Vec::new();
    let mut parent = Module::new();
    let spans: Vec<&str> = cell.split('`').collect();
    for at in (1..spans.len()).step_by(2) {
        let span = spans[at];
        if let Some(child) = span.strip_prefix("::") {
            let mut module = parent.clone();
            module.extend(child.split("::").map(str::to_owned));
            found.push(module);
            continue;
        }
        parent = span.split("::").map(str::to_owned).collect();
        // `[`b`]` directly before `::c` is only its beginning.
        let joined = spans.get(at + 1).is_some_and(|between| *between == "]");
        let child = spans.get(at + 2).is_some_and(|next| next.starts_with("::"));
        if !(joined && child) {
            found.push(parent.clone());
        }
    }
    found
}
