//! What holds for any connection string, see [`crate::fuzz`].

use super::settings::Settings;

/// The parts of a password that nobody escaped.
const PASSWORDS: [&str; 4] = ["Secr3tX", "Secr3tX@tPARTy", "Secr3tX/tPARTy", "Secr3tX tPARTy"];

/// A string is read or refused; what may be of its password is in no error.
pub(crate) fn connection_string(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    _ = Settings::parse(text, None, |_| None);
    for password in PASSWORDS {
        for string in [
            format!("postgres://user:{password}{text}"),
            format!("postgresql://{password}{text}"),
            format!("password={password}{text}"),
            format!("host=h password='{password}{text}"),
            format!("postgres://host/database?password={password}{text}"),
        ] {
            let Err(error) = Settings::parse(&string, None, |_| None) else { continue };
            let mut told = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                told = format!("{told}: {error}");
                cause = error.source();
            }
            for part in ["Secr3t", "tPART"] {
                assert!(!told.contains(part) || text.contains(part), "{string:?}: {told}");
            }
        }
    }
}
