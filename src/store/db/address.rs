//! Address of a PostgreSQL server, as `database.url` has it.
//!
//! The driver understands most of what the C library does. What it takes for something else, or passes over with the
//! value in the log, is translated or refused here.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use super::super::StoreError;

/// Parameters that have an effect, besides `options[…]`.
const KNOWN: [&str; 16] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "ssl-mode",
    "ssl-root-cert",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

/// Number of them that a message names: the others are other names of the same.
const NAMED: usize = 4;

/// Those whose values messages name.
const NAMES: [&str; 5] = ["host", "hostaddr", "port", "dbname", "user"];

/// Returns how to connect, and the name of the database for messages, which has no password.
///
/// # Errors
/// Returns [`StoreError::Url`], which repeats nothing but the names of parameters: a value may be a password.
pub(super) fn parse(url: &str) -> Result<(PgConnectOptions, String), StoreError> {
    let (server, query) = parts(url)?;
    // A password with a question mark that is not encoded looks like a parameter, up to the `@` behind it.
    let is_certain = !query.contains('@') && !url.contains('#');
    check_parameters(query, is_certain)?;
    check_marks(url, query)?;
    let of_query = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name)
    };
    let places = ["host", "hostaddr", "port"]
        .into_iter()
        .filter_map(of_query);
    if server.contains(',') || places.into_iter().any(|(_, value)| value.contains(',')) {
        return Err(several());
    }
    let with_host = if server.is_empty() && of_query("host").is_some() {
        // The C library takes a user without a host for one of the host that a parameter names.
        url.replacen("@/", "@localhost/", 1)
    } else {
        url.to_owned()
    };
    let mut options = PgConnectOptions::from_str(&with_host).map_err(|_| {
        // The parser's own message may quote a password.
        wrong(
            "it is malformed, or one of its parameters is (a socket is postgres:///database?host=/its/folder&user=name, \
             an IPv6 address postgres://user@[::1]:5432/database)",
        )
    })?;
    let host = options.get_host().to_owned();
    if host.contains(',') {
        return Err(several());
    }
    // The driver looks such a name up.
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address {
        options = options.host(address);
    }
    if options.get_database().is_none() {
        // As the C library does, and the server.
        let user = options.get_username().to_owned();
        options = options.database(&user);
    }
    let name = name(&options);
    Ok((options, name))
}

/// Returns the name of the database: whom it is asked as, where, and which.
fn name(options: &PgConnectOptions) -> String {
    let user = options.get_username();
    let database = options.get_database().unwrap_or_default();
    let (host, port) = (options.get_host(), options.get_port());
    match options.get_socket() {
        Some(folder) => format!(
            "postgres://{user}@/{database}?host={}&port={port}",
            folder.display()
        ),
        None if host.contains(':') => format!("postgres://{user}@[{host}]:{port}/{database}"),
        None => format!("postgres://{user}@{host}:{port}/{database}"),
    }
}

/// Returns the part of a URL that names the server, and its parameters.
fn parts(url: &str) -> Result<(&str, &str), StoreError> {
    let (_, rest) = url.split_once("://").ok_or_else(|| {
        wrong("it is malformed: two slashes stand between the database system and the rest")
    })?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let server = authority.rsplit('@').next().unwrap_or_default();
    Ok((server, query))
}

/// Refuses parameters that have no effect, by their name if `is_certain` that it is one.
fn check_parameters(query: &str, is_certain: bool) -> Result<(), StoreError> {
    let names = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split('=').next().unwrap_or_default());
    for name in names {
        if KNOWN.contains(&name) || name.starts_with("options[") && name.ends_with(']') {
            continue;
        }
        let is_word = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '-';
        let shown = if is_certain && name.len() <= 32 && name.chars().all(is_word) {
            format!("`{name}`")
        } else {
            "one of its parameters".to_owned()
        };
        return Err(wrong(&format!(
            "{shown} has no effect here: leave it out (known are {}, host, port, user, password, dbname and options)",
            KNOWN[..NAMED].join(", ")
        )));
    }
    Ok(())
}

/// Refuses names that have characters in them which set apart parameters: what is behind these may be a password, and
/// names are shown.
fn check_marks(url: &str, query: &str) -> Result<(), StoreError> {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.split(':').next().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.filter(|(name, _)| NAMES.contains(name));
    let values = pairs.map(|(_, value)| value);
    let mut shown = values.chain([user, server, path]);
    if shown.any(|name| name.contains(['&', '=', ';', '@', ' '])) {
        return Err(wrong(
            "a name in it has one of `&`, `=`, `;`, `@` and blanks, which are %26, %3D, %3B, %40 and %20 there. Parameters begin \
             with a question mark: postgres://user@host/database?sslmode=require&…",
        ));
    }
    Ok(())
}

fn several() -> StoreError {
    wrong(
        "it names several servers, and Rescind asks one: name the primary, or an address that always leads to it (a name, \
         a virtual address, a proxy in session mode)",
    )
}

fn wrong(problem: &str) -> StoreError {
    StoreError::Url(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_an_address_leads_to_its_server() {
        let folder = Some("/tmp/pg");
        for (url, host, socket, name) in [
            (
                "postgres://u@[::1]:5433/d",
                Some("::1"),
                None,
                "postgres://u@[::1]:5433/d",
            ),
            (
                "postgresql://u:p@h.example/d?sslmode=require",
                Some("h.example"),
                None,
                "postgres://u@h.example:5432/d",
            ),
            // The database of the user's name.
            (
                "postgres://u:p@h.example",
                Some("h.example"),
                None,
                "postgres://u@h.example:5432/u",
            ),
            (
                "postgres://u@h.example/?sslmode=require",
                Some("h.example"),
                None,
                "postgres://u@h.example:5432/u",
            ),
            (
                "postgres:///?host=/tmp/pg&user=u",
                None,
                folder,
                "postgres://u@/u?host=/tmp/pg&port=5432",
            ),
            (
                "postgres:///d?host=/tmp/pg&port=5433&user=u",
                None,
                folder,
                "postgres://u@/d?host=/tmp/pg&port=5433",
            ),
            (
                "postgres://u:p@/d?host=/tmp/pg",
                None,
                folder,
                "postgres://u@/d?host=/tmp/pg&port=5432",
            ),
            (
                "postgres://u@%2Ftmp%2Fpg:5433/d",
                None,
                folder,
                "postgres://u@/d?host=/tmp/pg&port=5433",
            ),
            (
                "postgres://u@h/d?hostaddr=::1&options[geqo]=off",
                Some("::1"),
                None,
                "postgres://u@[::1]:5432/d",
            ),
        ] {
            let (options, named) = parse(url).expect(url);
            let found = options
                .get_socket()
                .map(|path| path.to_str().expect("text"));
            assert_eq!(found, socket, "{url}");
            if let Some(host) = host {
                assert_eq!(options.get_host(), host, "{url}");
            }
            assert_eq!(named, name, "{url}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_is_to_be_changed() {
        for (url, said) in [
            ("postgres://u:hunter2@h1,h2/d", "several servers"),
            ("postgres://u:hunter2@h1:5432,h2:5433/d", "several servers"),
            ("postgres:///d?host=h1,h2&user=u", "several servers"),
            ("postgres:///d?host=h1%2Ch2&user=u", "several servers"),
            ("postgres://u@h/d?port=1,2", "several servers"),
            ("postgres://u:hunter2@/d", "postgres:///database?host="),
            ("postgres://u:hunter2@h:x/d", "malformed"),
            ("postgres:u:hunter2@h/d", "two slashes"),
            (
                "postgres://u@h/d?target_session_attrs=any",
                "`target_session_attrs`",
            ),
            (
                "postgres://u@h/d?channel_binding=require",
                "`channel_binding`",
            ),
            ("postgres://u@h/d?hunter2=1", "one of its parameters"),
            ("postgres://u:a?hunter=2@h/d", "one of its parameters"),
            ("postgres://u:a?hunter=2#@h/d", "one of its parameters"),
            ("postgres://u@h/d?passwort=hunter2", "`passwort`"),
            ("postgres://u@h/d&password=hunter2", "question mark"),
            ("postgres://u@h/d;password=hunter2", "question mark"),
            ("postgres://u@h/d password=hunter2", "question mark"),
            ("postgres://u@h&password=hunter2/d", "question mark"),
            ("postgres://u&password=hunter2@h/d", "question mark"),
            ("postgres://u:5432/hunter2@h/d", "question mark"),
            ("postgres://h/d?user=u;password=hunter2", "question mark"),
        ] {
            let text = parse(url).expect_err(url).to_string();
            assert!(text.contains(said), "{url}: {text}");
            assert!(!text.contains("hunter"), "{url}: {text}");
        }
    }
}
