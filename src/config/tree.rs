//! The file and the environment as one tree in which every node knows its place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigPlace, Problems};

/// Prefix of every variable that overrides the configuration.
pub(super) const ENV_PREFIX: &str = "RESCIND__";

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: ConfigPlace,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// The unparsed text of an environment variable. Only the reader knows its type.
    Raw(String),
    Integer(Option<i64>),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// A TOML type that no known key takes (a date, a float).
    Foreign,
}

/// Entries by key. The place of an entry is that of its key, the place of its node that of its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, (ConfigPlace, Node)>);

impl Node {
    fn table(place: &ConfigPlace) -> Self {
        Self {
            place: place.clone(),
            value: Value::Table(Table::default()),
        }
    }
}

/// Parses a configuration file. Syntax errors are added to `problems` without the text of the line, which
/// may contain a secret.
pub(super) fn parse_file(path: &Path, text: &str, problems: &Problems) -> Table {
    let path: Arc<Path> = path.into();
    let place_at = |offset: usize| place_at(&path, text, offset);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(
            &place_at(error.span().map_or(0, |span| span.start)),
            "",
            format!("not valid TOML: {}", error.message()),
            "texts stand in double quotes, a section begins with [name]",
        );
    }
    if errors.is_empty() {
        from_table(document.get_ref(), &place_at)
    } else {
        Table::default()
    }
}

/// Parses the text of an environment variable as a TOML value. Returns `None` if it is not one.
pub(super) fn parse_raw(text: &str, place: &ConfigPlace) -> Option<Node> {
    let document = format!("value = {text}\n");
    let document = DeTable::parse(&document).ok()?;
    let (_, value) = document.get_ref().iter().next()?;
    (document.get_ref().len() == 1).then(|| from_value(value, &|_| place.clone()))
}

fn from_table(table: &DeTable<'_>, place_at: &impl Fn(usize) -> ConfigPlace) -> Table {
    let entries = table.iter().map(|(key, value)| {
        let place = place_at(key.span().start);
        (
            key.get_ref().clone().into_owned(),
            (place, from_value(value, place_at)),
        )
    });
    Table(entries.collect())
}

fn from_value(value: &Spanned<DeValue<'_>>, place_at: &impl Fn(usize) -> ConfigPlace) -> Node {
    let place = place_at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| from_value(item, place_at))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(from_table(table, place_at)),
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Foreign,
    };
    Node { place, value }
}

/// Returns the place at byte `offset` in the text of a file.
pub(super) fn place_at(path: &Arc<Path>, text: &str, offset: usize) -> ConfigPlace {
    let (line, column) = line_and_column(text, offset);
    ConfigPlace::File {
        path: Arc::clone(path),
        line,
        column,
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = 1 + before.matches('\n').count();
    (line, 1 + before[line_start..].chars().count())
}

/// Applies the variables `RESCIND__SECTION__KEY` on top of the tree of the file. What is wrong with one is a problem if
/// its path is needed.
pub(super) fn overlay<'a>(
    root: &mut Table,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
    is_needed: impl Fn(&str) -> bool,
    problems: &Problems,
) {
    let variables = variables.filter_map(|(name, text)| {
        let path = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase();
        Some((path, name, text))
    });
    let mut variables: Vec<(String, &str, &str)> = variables.collect();
    // The whole before its parts, and the elements of a list in their order.
    variables.sort_by_cached_key(|(path, ..)| {
        let parts = path
            .split("__")
            .map(|part| (part.parse::<usize>().ok(), part.to_owned()));
        parts.collect::<Vec<_>>()
    });
    for (path, name, text) in variables {
        let place = ConfigPlace::Environment(name.into());
        let path: Vec<&str> = path.split("__").collect();
        if path.iter().any(|part| part.is_empty()) {
            problems.add(
                &place,
                "",
                "does not name a key of the configuration",
                "write RESCIND__SECTION__KEY, such as RESCIND__SERVER__BIND",
            );
            continue;
        }
        let value = Node {
            place: place.clone(),
            value: Value::Raw(text.to_owned()),
        };
        if let Err(what) = set(root, &path, value, &place)
            && is_needed(&path.join("."))
        {
            problems.add(
                &place,
                path.join("."),
                what,
                "`rescind config show` prints what can be set",
            );
        }
    }
}

fn set(table: &mut Table, path: &[&str], value: Node, place: &ConfigPlace) -> Result<(), String> {
    let [key, rest @ ..] = path else {
        return Ok(());
    };
    let Some(next) = rest.first() else {
        table.0.insert((*key).to_owned(), (place.clone(), value));
        return Ok(());
    };
    let (_, node) = table
        .0
        .entry((*key).to_owned())
        .or_insert_with(|| (place.clone(), child_for(next, place)));
    set_in_node(node, rest, value, place)
}

fn set_in_node(
    node: &mut Node,
    path: &[&str],
    value: Node,
    place: &ConfigPlace,
) -> Result<(), String> {
    if let Value::Raw(text) = &node.value
        && let Some(parsed) = parse_raw(text, &node.place)
    {
        *node = parsed;
    }
    match &mut node.value {
        Value::Table(table) => set(table, path, value, place),
        Value::List(items) => {
            let [index, rest @ ..] = path else {
                return Ok(());
            };
            let index: usize = index
                .parse()
                .map_err(|_| "this is a list: an element's number has to follow".to_owned())?;
            if index > items.len() {
                return Err(format!(
                    "the next free number in this list is {}",
                    items.len()
                ));
            }
            if index == items.len() {
                items.push(Node::table(place));
            }
            if rest.is_empty() {
                items[index] = value;
                return Ok(());
            }
            set_in_node(&mut items[index], rest, value, place)
        }
        _ => Err("this is a single value, nothing stands below it".to_owned()),
    }
}

fn child_for(next: &str, place: &ConfigPlace) -> Node {
    if next.parse::<usize>().is_ok() {
        return Node {
            place: place.clone(),
            value: Value::List(Vec::new()),
        };
    }
    Node::table(place)
}
