//! The sources of the crate as modules, and the paths that each one names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path as it is written, without its generics: `["crate", "outbox", "Claim"]`. A single name is a
/// path too.
pub type Written = Vec<String>;

/// A module: `["drain", "lane"]`. The crate itself is the empty one.
pub type Module = Vec<String>;

/// One file of `src/`, without what stands under `#[cfg(test)]`.
pub struct Source {
    /// `src/drain/lane.rs`
    pub file: String,
    pub module: Module,
    pub lines: usize,
    /// Every path in it, those of `pub use` left out.
    pub named: Vec<Written>,
    /// What its `use` declarations bring in, by the name that it has from then on.
    imports: BTreeMap<String, Written>,
    /// Names in `imports` that are handed on.
    handed_on: Vec<String>,
}

/// All modules of the crate that are no tests.
pub struct Crate {
    pub sources: BTreeMap<Module, Source>,
}

impl Crate {
    pub fn read() -> Self {
        let sources = files("src").into_iter().filter_map(|path| {
            let text = std::fs::read_to_string(&path).expect("a source");
            let source = Source::read(name(&path), &text);
            (!is_test(&path)).then(|| (source.module.clone(), source))
        });
        Self {
            sources: sources.collect(),
        }
    }

    /// The module that a path in `from` leads to, as far as it is written: re-exports are not
    /// followed. `None` for a name that is not a module's.
    pub fn written(&self, from: &Module, path: &Written) -> Option<Module> {
        let (mut module, rest) = self.start(from, path)?;
        // A path may name what has no file of its own, such as an item of `mod.rs`.
        for segment in rest {
            module.push(segment.clone());
            if !self.sources.contains_key(&module) {
                module.pop();
                break;
            }
        }
        Some(module)
    }

    /// The module that holds what a path in `from` names: re-exports are followed to the definition.
    pub fn defined(&self, from: &Module, path: &Written) -> Option<Module> {
        self.follow(from, path, 0)
    }

    fn follow(&self, from: &Module, path: &Written, depth: usize) -> Option<Module> {
        // Imports that lead back to themselves do not compile.
        assert!(depth < 32, "{from:?} imports {path:?} in a circle");
        let Some((mut module, rest)) = self.start(from, path) else {
            // A name that was handed on and is used in its own file too.
            let source = self.sources.get(from)?;
            let head = path
                .first()
                .filter(|head| source.handed_on.contains(head))?;
            let import = source.imports.get(head).filter(|import| *import != path)?;
            return self.follow(from, import, depth + 1);
        };
        for (at, segment) in rest.iter().enumerate() {
            let mut child = module.clone();
            child.push(segment.clone());
            if self.sources.contains_key(&child) {
                module = child;
                continue;
            }
            let import = self
                .sources
                .get(&module)
                .and_then(|source| source.imports.get(segment));
            if let Some(import) = import {
                let whole: Written = import.iter().chain(&rest[at + 1..]).cloned().collect();
                return self.follow(&module, &whole, depth + 1);
            }
            break;
        }
        Some(module)
    }

    /// Where a path begins, and what is left of it from there.
    fn start<'a>(&self, from: &Module, path: &'a Written) -> Option<(Module, &'a [String])> {
        let (head, rest) = path.split_first()?;
        match head.as_str() {
            "crate" => Some((Module::new(), rest)),
            "self" => Some((from.clone(), rest)),
            "super" => {
                let mut module = from.clone();
                module.pop();
                let mut rest = rest;
                while let Some(("super", after)) = rest
                    .split_first()
                    .map(|(head, after)| (head.as_str(), after))
                {
                    module.pop();
                    rest = after;
                }
                Some((module, rest))
            }
            _ => {
                let mut child = from.clone();
                child.push(head.clone());
                // A single name is a variable far more often than a module.
                (!rest.is_empty() && self.sources.contains_key(&child)).then_some((child, rest))
            }
        }
    }
}

impl Source {
    /// A source from its text, as if it were in `file`.
    pub fn read(file: String, text: &str) -> Self {
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{file} is not Rust: {error}"));
        let mut source = Self {
            module: module_of(&file),
            lines: text.lines().count(),
            file,
            named: Vec::new(),
            imports: BTreeMap::new(),
            handed_on: Vec::new(),
        };
        source.walk(&tokens.into_iter().collect::<Vec<_>>());
        source
    }

    fn walk(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(punct)
                    if punct.as_char() == '#' && of_tests(tokens.get(at + 1)) =>
                {
                    at += 2 + item(&tokens[at + 2..]);
                }
                // `pub(super)` names nobody.
                TokenTree::Ident(ident) if ident == "pub" && is_visibility(tokens.get(at + 1)) => {
                    at += 2;
                }
                TokenTree::Ident(ident) if ident == "use" => {
                    let public = at > 0 && is_public(&tokens[..at]);
                    let mut paths = Vec::new();
                    at += 1 + path(&tokens[at + 1..], &Written::new(), &mut paths);
                    for (name, path) in paths {
                        if public {
                            self.handed_on.push(name.clone());
                        } else {
                            self.named.push(path.clone());
                        }
                        self.imports.insert(name, path);
                    }
                }
                TokenTree::Ident(_) => {
                    let mut paths = Vec::new();
                    at += path(&tokens[at..], &Written::new(), &mut paths);
                    self.named.extend(paths.into_iter().map(|(_, path)| path));
                }
                TokenTree::Group(group) => {
                    self.walk(&group.stream().into_iter().collect::<Vec<_>>());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }
}

/// Reads one path, or a tree of them, with the name that each is known by. Returns how many tokens
/// it has.
fn path(tokens: &[TokenTree], before: &Written, found: &mut Vec<(String, Written)>) -> usize {
    let mut path = before.clone();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => {
                // `a::{self}` is `a`.
                if ident != "self" || path.is_empty() {
                    path.push(ident.to_string());
                }
                at += 1;
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for part in inner.split(|token| is(token, ',')) {
                    if !part.is_empty() {
                        self::path(part, &path, found);
                    }
                }
                return at + 1;
            }
            Some(token) if is(token, '*') => {
                at += 1;
                break;
            }
            _ => break,
        }
        let colons = tokens.get(at..at + 2);
        if !colons.is_some_and(|two| two.iter().all(|token| is(token, ':'))) {
            break;
        }
        at += 2;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(other))) =
        (tokens.get(at), tokens.get(at + 1))
        && word == "as"
    {
        name = other.to_string();
    }
    if !path.is_empty() {
        found.push((name, path));
    }
    at.max(1)
}

fn is(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// Whether what stands before a `use` makes it public: `pub` or `pub(crate)`.
fn is_public(before: &[TokenTree]) -> bool {
    let before = match before {
        [rest @ .., group] if is_visibility(Some(group)) => rest,
        all => all,
    };
    matches!(before.last(), Some(TokenTree::Ident(ident)) if ident == "pub")
}

/// What may stand behind `pub`.
fn is_visibility(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}

/// `[cfg(test)]`
fn of_tests(attribute: Option<&TokenTree>) -> bool {
    attribute.is_some_and(|attribute| attribute.to_string().replace(' ', "") == "[cfg(test)]")
}

/// The length of the item that begins here: up to its semicolon or its body.
fn item(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is(token, ';'),
    };
    tokens
        .iter()
        .position(ends)
        .map_or(tokens.len(), |at| at + 1)
}

/// Rust files under a directory of the repository, sorted.
pub fn files(directory: &str) -> Vec<PathBuf> {
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

/// A path from the repository's root.
pub fn name(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// A file of unit tests.
pub fn is_test(path: &Path) -> bool {
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let inside = path.components().any(|part| part.as_os_str() == "tests");
    stem == "tests" || stem.ends_with("_tests") || inside
}

/// `src/drain/lane.rs` and `src/drain/lane/mod.rs` are `drain::lane`.
fn module_of(file: &str) -> Module {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}
