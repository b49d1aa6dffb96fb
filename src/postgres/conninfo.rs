//! Connection strings as libpq reads them: URLs and `key=value` pairs, each into parameters and their values.
//!
//! Always true:
//! - what both accept, libpq and this parser read alike; `tests/libpq_18.jsonl` holds libpq's own answers;
//! - no complaint quotes a value, or anything that a misplaced `@`, `&` or space may have torn out of a password.
//!
//! More than libpq does, this parser refuses an `@` after the host has begun. There it is nearly always one of a password
//! that was not escaped; libpq takes the rest of that password for the host or the database, and prints it.

use super::parameters;

const PREFIXES: [&str; 2] = ["postgresql://", "postgres://"];
const AMBIGUOUS: &str = "an @ follows the host, so where the password ends is not clear: in a user name or password \
     of a URL write @ as %40, / as %2F, ? as %3F, % as %25";

/// Parameters and their values, in the order in which they were first given. Without `Debug`: one is the password.
#[derive(Clone, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a connection string, which may be empty. The error says what is wrong, without any value.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("it holds a NUL character".to_owned());
        }
        match PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            Some(rest) => parse_url(rest),
            None => parse_pairs(text),
        }
    }

    /// The value of a parameter; `Some("")` where it was given as empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter, unless it is empty.
    pub(super) fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Each parameter that was given, with its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a parameter; the last value given is the one that counts.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, before)) => value.clone_into(before),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    fn store(&mut self, name: &str, value: &str, may_name: bool) -> Result<(), String> {
        let (name, value) = match (name, value) {
            // The spelling of releases before 8.0, which libpq still takes.
            ("requiressl", value) => ("sslmode", if value.starts_with('1') { "require" } else { "prefer" }),
            pair => pair,
        };
        if parameters::find(name).is_none() {
            return Err(unknown(name, may_name));
        }
        self.set(name, value);
        Ok(())
    }
}

/// Whether a text is a connection string rather than the name of a database; libpq asks the same.
pub(super) fn is_connection_string(text: &str) -> bool {
    text.contains('=') || PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// A name is shown only if it can be nothing but a name.
fn unknown(name: &str, may_name: bool) -> String {
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if may_name && is_plain {
        format!("{name} is none of libpq's parameters")
    } else {
        "it has a parameter that is none of libpq's; a value with a space, & or = in it must be quoted or escaped"
            .to_owned()
    }
}

/// `user:password@host:port,host:port/database?parameter=value&…`, each part optional.
fn parse_url(text: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::default();
    let (credentials, place) = match text.find(['@', '/']) {
        Some(end) if text[end..].starts_with('@') => (&text[..end], &text[end + 1..]),
        _ => ("", text),
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (hosts, ports, rest) = split_hosts(place)?;
    let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
    if hosts.contains('@') || ports.contains('@') || database.contains('@') {
        return Err(AMBIGUOUS.to_owned());
    }
    // An empty part is as if it were not there, unlike an empty value of a parameter.
    let database = database.strip_prefix('/').unwrap_or(database);
    let given = [("user", user), ("password", password), ("host", &*hosts), ("port", &*ports), ("dbname", database)];
    for (name, value) in given.into_iter().filter(|(_, value)| !value.is_empty()) {
        parameters.set(name, &decode(value)?);
    }
    parse_query(query, &mut parameters)?;
    Ok(parameters)
}

/// Hosts and ports, each joined by commas, and what follows them: nothing, or what begins with `/` or `?`.
fn split_hosts(place: &str) -> Result<(String, String, &str), String> {
    let (mut hosts, mut ports, mut rest) = (String::new(), String::new(), place);
    loop {
        let host;
        if let Some(bracketed) = rest.strip_prefix('[') {
            (host, rest) = bracketed.split_once(']').ok_or("an IPv6 address has no closing bracket")?;
            if host.is_empty() {
                return Err("there is no IPv6 address between the brackets".to_owned());
            }
            if !rest.is_empty() && !rest.starts_with([':', '/', '?', ',']) {
                return Err("after an IPv6 address in brackets comes neither : nor / nor ? nor a comma".to_owned());
            }
        } else {
            (host, rest) = rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()));
        }
        hosts.push_str(host);
        if let Some(port) = rest.strip_prefix(':') {
            let (port, after) = port.split_at(port.find(['/', '?', ',']).unwrap_or(port.len()));
            ports.push_str(port);
            rest = after;
        }
        let Some(next) = rest.strip_prefix(',') else { return Ok((hosts, ports, rest)) };
        hosts.push(',');
        ports.push(',');
        rest = next;
    }
}

fn parse_query(query: &str, parameters: &mut Parameters) -> Result<(), String> {
    let mut rest = query;
    let mut after_secret = false;
    while !rest.is_empty() {
        // Behind an @ may be a host: then what looks like parameters is the end of a password.
        let may_name = !after_secret && !rest.contains('@');
        let (parameter, following) = rest.split_once('&').unwrap_or((rest, ""));
        let (name, value) = parameter.split_once('=').ok_or("a parameter of the URL has no =")?;
        if value.contains('=') {
            return Err("a parameter of the URL has two =; write one in a value as %3D".to_owned());
        }
        let (name, value) = (decode(name)?, decode(value)?);
        // As JDBC spells it.
        let (name, value) =
            if (&*name, &*value) == ("ssl", "true") { ("sslmode", "require") } else { (&*name, &*value) };
        parameters.store(name, value, may_name)?;
        after_secret = parameters::is_secret(name);
        rest = following;
    }
    Ok(())
}

/// Undoes percent-encoding. Spaces around a part do not belong to it.
fn decode(text: &str) -> Result<String, String> {
    let text = text.trim_matches(' ');
    if text.contains(' ') {
        return Err("it holds a space; write one as %20".to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("a % is not followed by two hexadecimal digits; write the character itself as %25".to_owned());
        };
        match u8::try_from(high * 16 + low) {
            Ok(byte) if byte != 0 => decoded.push(byte),
            _ => return Err("it holds %00, which no value may".to_owned()),
        }
    }
    String::from_utf8(decoded).map_err(|_| "an escaped value is not UTF-8".to_owned())
}

/// `key=value key='quoted value'`, with spaces around `=` as one likes.
fn parse_pairs(text: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::default();
    let mut rest = skip_spaces(text);
    let mut after_secret = false;
    while !rest.is_empty() {
        let end = rest.find(|character| character == '=' || is_space(character)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = skip_spaces(after).strip_prefix('=').ok_or(
            "expected postgres://user@host/database or key=value; a value with a space in it stands in single quotes",
        )?;
        let (value, after) = take_value(skip_spaces(after))?;
        parameters.store(name, &value, !after_secret)?;
        after_secret = parameters::is_secret(name);
        rest = skip_spaces(after);
    }
    Ok(parameters)
}

/// A value, bare or in single quotes, without its backslashes; and what follows it.
fn take_value(text: &str) -> Result<(String, &str), String> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[position + 1..])),
            space if !quoted && is_space(space) => return Ok((value, &body[position..])),
            other => value.push(other),
        }
    }
    if quoted { Err("a quoted value has no end".to_owned()) } else { Ok((value, "")) }
}

fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// C's `isspace`.
const fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}
