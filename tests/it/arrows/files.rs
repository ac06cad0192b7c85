//! The files of the sources, and which of them uses what another one defines.
//!
//! The sources are read as tokens: paths in `use` declarations and in code are followed through re-exports to the file
//! that defines what they name. What only tests use is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Component, Path};

use super::sources_below;

/// Path of a module from the root of the crate.
type Name = Vec<String>;

/// Files by name, and the names of those that each uses.
pub(super) type Uses = BTreeMap<String, BTreeSet<String>>;

/// Declarations of one file.
#[derive(Default)]
struct Module {
    children: HashSet<String>,
    items: HashSet<String>,
    /// Paths of imported names.
    imports: HashMap<String, Name>,
    /// Paths of modules from which everything is imported.
    globs: Vec<Name>,
    /// Paths in the code.
    paths: Vec<Name>,
}

/// Returns the files below `src`, with those that each of them uses.
pub(super) fn uses(src: &Path) -> Uses {
    let mut modules: HashMap<Name, (String, Module)> = HashMap::new();
    for file in sources_below(src) {
        let relative = file.strip_prefix(src).expect("it is below");
        let shown = relative.display().to_string();
        let mut parts = relative.components().map(Component::as_os_str);
        if shown == "main.rs" || parts.any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file is readable");
        let name = name_of(&shown);
        modules.insert(name, (shown, Module::read(&text)));
    }
    let names: Vec<Name> = modules.keys().cloned().collect();
    for name in names {
        if let Some((last, parent)) = name.split_last()
            && let Some((_, parent)) = modules.get_mut(parent)
        {
            parent.children.insert(last.clone());
        }
    }
    let crate_of = Crate(modules);
    crate_of
        .0
        .keys()
        .map(|name| crate_of.used_by(name))
        .collect()
}

/// Returns the name of the module in a file.
pub(super) fn name_of(file: &str) -> Name {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" {
        return Name::new();
    }
    path.split('/').map(str::to_owned).collect()
}

struct Crate(HashMap<Name, (String, Module)>);

impl Crate {
    fn used_by(&self, name: &Name) -> (String, BTreeSet<String>) {
        let (file, module) = &self.0[name];
        let named = module.paths.iter().chain(module.imports.values());
        let named = named.chain(&module.globs);
        let used = named.filter_map(|path| self.definition(name, path, 0));
        let used = used.map(|used| self.0[&used].0.clone());
        (file.clone(), used.filter(|used| used != file).collect())
    }

    /// Returns the module that defines what `path` names in the module `from`, unless that is in another crate.
    fn definition(&self, from: &[String], path: &[String], depth: usize) -> Option<Name> {
        let mut at = from.to_vec();
        let mut rest = path;
        let mut is_relative = false;
        while let Some((first, others)) = rest.split_first() {
            match &**first {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => break,
            }
            is_relative = true;
            rest = others;
        }
        if !is_relative && !self.0[&at].1.declares(rest.first()?) {
            return None;
        }
        while let Some((first, others)) = rest.split_first() {
            let module = &self.0.get(&at)?.1;
            if module.children.contains(first) {
                at.push(first.clone());
                rest = others;
            } else if module.items.contains(first) || depth > 8 {
                break;
            } else if let Some(imported) = module.imports.get(first) {
                let path: Name = imported.iter().chain(others).cloned().collect();
                // A name that hides a crate's own, as `use std::fmt`, leads nowhere.
                return self.definition(&at, &path, depth + 1);
            } else {
                let mut found = module.globs.iter().filter_map(|glob| {
                    let path: Name = glob.iter().chain(rest).cloned().collect();
                    self.definition(&at, &path, depth + 1)
                });
                return Some(found.next().unwrap_or(at));
            }
        }
        self.0.contains_key(&at).then_some(at)
    }
}

impl Module {
    fn declares(&self, name: &String) -> bool {
        self.children.contains(name) || self.items.contains(name) || self.imports.contains_key(name)
    }

    fn read(text: &str) -> Self {
        let mut module = Self::default();
        let tokens = tokens(text);
        let mut at = 0;
        let mut depth = 0_usize;
        while at < tokens.len() {
            if tokens[at..]
                .starts_with(&["#", "[", "cfg", "(", "test", ")", "]"].map(str::to_owned))
            {
                at = end_of_item(&tokens, at + 7);
                continue;
            }
            match &*tokens[at] {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                "use" => {
                    at = module.import(&tokens, at + 1, &Name::new(), depth == 0);
                    continue;
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union"
                | "mod"
                    if depth == 0 && is_word(tokens.get(at + 1)) =>
                {
                    module.items.insert(tokens[at + 1].clone());
                }
                word if is_word(Some(&tokens[at]))
                    && tokens.get(at + 1).is_some_and(|next| next == "::") =>
                {
                    let mut path = vec![word.to_owned()];
                    while tokens.get(at + 1).is_some_and(|next| next == "::")
                        && is_word(tokens.get(at + 2))
                    {
                        path.push(tokens[at + 2].clone());
                        at += 2;
                    }
                    module.paths.push(path);
                }
                _ => {}
            }
            at += 1;
        }
        module
    }

    /// Reads the tree of a `use` declaration. Returns the position after it.
    fn import(&mut self, tokens: &[String], mut at: usize, prefix: &Name, is_outer: bool) -> usize {
        let mut path = prefix.clone();
        loop {
            match &*tokens[at] {
                "{" => {
                    at += 1;
                    while tokens[at] != "}" {
                        at = self.import(tokens, at, &path, is_outer);
                        at += usize::from(tokens[at] == ",");
                    }
                    return at + 1;
                }
                "*" => {
                    self.globs.push(path);
                    return at + 1;
                }
                "::" => at += 1,
                word if is_word(Some(&tokens[at])) => {
                    if word != "self" || path.is_empty() {
                        path.push(word.to_owned());
                    }
                    at += 1;
                    if tokens[at] == "::" {
                        continue;
                    }
                    let mut name = path.last().cloned();
                    if tokens[at] == "as" {
                        name = Some(tokens[at + 1].clone());
                        at += 2;
                    }
                    if let Some(name) = name.filter(|_| is_outer) {
                        self.imports.insert(name, path);
                    } else {
                        self.paths.push(path);
                    }
                    return at;
                }
                _ => return at + 1,
            }
        }
    }
}

/// Returns the position after an item, with its attributes: after its block or its semicolon.
fn end_of_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < tokens.len() {
        match &*tokens[at] {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        if depth == 0 && matches!(&*tokens[at - 1], "}" | ";" | ",") {
            break;
        }
    }
    at
}

fn is_word(token: Option<&String>) -> bool {
    token.is_some_and(|token| token.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// Returns the words and signs of a source, without comments and texts.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = text_length(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// Returns the length of the text or character with which `code` begins, if it begins with one.
fn text_length(code: &str) -> Option<usize> {
    let raw = code.strip_prefix("br").or(code.strip_prefix('r'));
    if let Some(raw) = raw {
        let signs = raw.len() - raw.trim_start_matches('#').len();
        if raw[signs..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(signs));
            let start = code.len() - raw.len() + signs + 1;
            return Some(start + code[start..].find(&end).map_or(0, |at| at + end.len()));
        }
    }
    let start = usize::from(code.starts_with("b\"") || code.starts_with("b'"));
    let quote = code[start..]
        .chars()
        .next()
        .filter(|c| matches!(c, '"' | '\''))?;
    let mut is_escaped = false;
    for (at, c) in code.char_indices().skip(start + 1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return Some(at + 1),
            // A lifetime, not a character.
            _ if quote == '\''
                && code[start + 1..at].chars().count() > 0
                && !code[start + 1..].starts_with('\\') =>
            {
                return None;
            }
            _ => {}
        }
    }
    None
}

/// Returns the circles: groups of files each of which uses every other one, if only through the others. A module may be
/// in a circle with its own parts, as long as these are in none without it.
pub(super) fn circles(uses: &Uses) -> Vec<Vec<String>> {
    let all: BTreeSet<&String> = uses.keys().collect();
    let mut circles = Vec::new();
    let mut groups = groups_of(uses, &all);
    while let Some(mut group) = groups.pop() {
        let module = group.iter().copied().find(|module| {
            let module = name_of(module);
            group.iter().all(|part| name_of(part).starts_with(&module))
        });
        if let Some(module) = module {
            group.remove(module);
            groups.extend(groups_of(uses, &group));
        } else {
            circles.push(group.into_iter().cloned().collect());
        }
    }
    circles.sort();
    circles
}

/// Returns the groups of two or more among these files that reach each other.
fn groups_of<'u>(uses: &'u Uses, files: &BTreeSet<&'u String>) -> Vec<BTreeSet<&'u String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = files
        .iter()
        .map(|file| (*file, reached(uses, files, file)))
        .collect();
    let mut left = files.clone();
    let mut groups = Vec::new();
    while let Some(first) = left.pop_first() {
        let others = reached[first].iter().copied();
        let mut group: BTreeSet<&String> = others
            .filter(|other| reached[*other].contains(first))
            .collect();
        group.insert(first);
        left.retain(|file| !group.contains(file));
        if group.len() > 1 {
            groups.push(group);
        }
    }
    groups
}

fn reached<'u>(
    uses: &'u Uses,
    files: &BTreeSet<&'u String>,
    from: &'u String,
) -> BTreeSet<&'u String> {
    let mut found = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(file) = ahead.pop() {
        for used in uses[file].iter().filter(|used| files.contains(used)) {
            if found.insert(used) {
                ahead.push(used);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the circles among files with these names and contents.
    fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("it is in a folder"))
                .expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        circles(&uses(folder.path()))
    }

    #[test]
    fn a_circle_is_found_through_re_exports_and_whole_paths() {
        let through = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod one; pub use one::One;"),
            (
                "a/one.rs",
                "use crate::b::{self, Two as Other}; pub struct One;",
            ),
            ("b.rs", "pub struct Two; fn two(_: crate::a::One) {}"),
        ];
        assert_eq!(circles_of(&through), [["a/one.rs", "b.rs"]]);
        let siblings = [
            ("lib.rs", "mod a;"),
            ("a.rs", "mod one; mod two; mod three;"),
            ("a/one.rs", "use super::two::*; pub struct One;"),
            ("a/two.rs", "use super::three; fn two() { three::three(); }"),
            ("a/three.rs", "pub fn three() { super::one::One; }"),
        ];
        assert_eq!(
            circles_of(&siblings),
            [["a/one.rs", "a/three.rs", "a/two.rs"]]
        );
    }

    #[test]
    fn a_module_and_its_parts_and_what_only_tests_and_comments_name_are_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod part; use part::Part; pub struct Whole(Part);"),
            (
                "a/part.rs",
                "use super::Whole; pub struct Part; // crate::b::B",
            ),
            ("b.rs", "pub struct B; use crate::a::Whole;"),
            ("a/tests.rs", "use crate::b::B;"),
            (
                "c.rs",
                "use crate::a::Whole; const TEXT: &str = \"crate::d::D\";",
            ),
            ("d.rs", "use crate::c::C; pub struct D;"),
            (
                "e.rs",
                "#[cfg(test)] mod tests { use crate::d::D; } pub struct E;",
            ),
        ];
        assert_eq!(circles_of(&files), Vec::<Vec<String>>::new());
    }
}
