//! `require_auth`: which ways of proving who we are a server may ask for, and a watch that ends a connection before
//! anything is answered to another one.
//!
//! The driver answers whatever it is asked, with the password itself if need be. So its stream is read ahead of it: only a
//! request that is allowed gets to it.
//!
//! Source: PostgreSQL documentation, `require_auth` in "Parameter Key Words" and "Message Formats".

use std::io;

use super::error::invalid_setting as invalid;
use crate::config::ConfigError;

/// The methods that libpq knows, each with the code by which a server asks for it; `None`: it asks for nothing.
const METHODS: [(&str, Option<u32>); 7] = [
    ("none", None),
    ("password", Some(3)),
    ("md5", Some(5)),
    ("gss", Some(7)),
    ("sspi", Some(9)),
    ("scram-sha-256", Some(10)),
    // Over SASL, too; the driver knows SCRAM alone.
    ("oauth", None),
];
/// The type of a message about authentication.
const AUTHENTICATION: u8 = b'R';
const AUTHENTICATED: u32 = 0;
/// GSSAPI and SASL go on with these; they are no new requests.
const CONTINUED: [u32; 3] = [8, 11, 12];

/// The methods that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Methods {
    allowed: Vec<&'static str>,
}

impl Methods {
    /// Reads a list such as `scram-sha-256,none` or `!password,!md5`. An empty one allows everything.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, ConfigError> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut negated = None;
        let mut named = Vec::new();
        for entry in text.split(',') {
            let (name, is_negated) = entry.strip_prefix('!').map_or((entry, false), |name| (name, true));
            if negated.replace(is_negated).is_some_and(|before| before != is_negated) {
                return Err(invalid("require_auth has entries with ! and without".to_owned()));
            }
            let known = METHODS.iter().find(|(known, _)| *known == name);
            let (known, _) =
                known.ok_or_else(|| invalid("require_auth has an entry that libpq does not know".into()))?;
            if named.contains(known) {
                return Err(invalid(format!("require_auth has {known} twice")));
            }
            named.push(*known);
        }
        let is_allowed = |name: &&'static str| named.contains(name) != (negated == Some(true));
        Ok(Some(Self { allowed: METHODS.iter().map(|(name, _)| *name).filter(is_allowed).collect() }))
    }

    /// Whether a server that we cannot tell from another one may get a password that it can use.
    pub(super) fn allow_a_readable_password(&self) -> bool {
        ["password", "md5"].iter().any(|name| self.allowed.contains(name))
    }

    fn check(&self, name: &str) -> io::Result<()> {
        if self.allowed.contains(&name) {
            return Ok(());
        }
        let problem = match name {
            "none" => "the server asks for no authentication, which require_auth does not allow".to_owned(),
            name => format!("the server asks for authentication by {name}, which require_auth does not allow"),
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
    }
}

/// Reads what a server sends until it has let us in.
#[derive(Debug)]
pub(super) struct Watch {
    methods: Methods,
    was_asked: bool,
    is_over: bool,
    /// The beginning of a message whose end has not come.
    unread: Vec<u8>,
}

/// No message before the end of the authentication is longer.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

impl Watch {
    pub(super) const fn new(methods: Methods) -> Self {
        Self { methods, was_asked: false, is_over: false, unread: Vec::new() }
    }

    /// Takes what has come. After an error, nothing of it may reach the driver.
    pub(super) fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_over {
            return Ok(());
        }
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend(bytes);
        let mut messages = &unread[..];
        // The driver answers only to a message that has come as a whole, and so does this.
        while let Some((kind, content, following)) = first_message(messages) {
            if kind == AUTHENTICATION {
                self.judge(content)?;
            }
            if self.is_over {
                return Ok(());
            }
            messages = following;
        }
        if messages.len() > MAX_MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak Postgres' protocol"));
        }
        self.unread = messages.to_vec();
        Ok(())
    }

    fn judge(&mut self, content: &[u8]) -> io::Result<()> {
        let code = content.first_chunk().map_or(u32::MAX, |code| u32::from_be_bytes(*code));
        if code == AUTHENTICATED {
            self.is_over = true;
            return if self.was_asked { Ok(()) } else { self.methods.check("none") };
        }
        match METHODS.iter().find(|(_, asked)| *asked == Some(code)) {
            Some((name, _)) => {
                self.was_asked = true;
                self.methods.check(name)
            }
            None if CONTINUED.contains(&code) && self.was_asked => Ok(()),
            None => self.methods.check("an unknown method"),
        }
    }
}

/// The type and the content of the first message, and what follows it; `None` until its end has come.
fn first_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
    // The length counts itself.
    let (message, following) = rest.split_at_checked(length.max(4))?;
    Some((*kind, message.get(4..)?, following))
}
