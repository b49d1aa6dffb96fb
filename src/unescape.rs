//! Escapes in JSON strings, decoded without a parser's allocations.

/// Half of a surrogate pair, which is no Unicode text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoneSurrogate;

/// Gives `sink` the text that `json` stands for, piece by piece, until it fails.
///
/// `json` is the inside of a string, or any whole JSON value (backslashes occur in strings alone), and is known to
/// be valid JSON.
pub(crate) fn unescape<E: From<LoneSurrogate>>(
    json: &str,
    mut sink: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = json;
    let mut searched = 0;
    while let Some(position) = backslash(&rest.as_bytes()[searched..]) {
        let (before, escape) = rest.split_at(searched + position);
        sink(before)?;
        let escape = &escape[1..];
        if escape.starts_with(['"', '\\', '/']) {
            // The escaped character starts the next piece: most escapes are quotes, and most pieces are short.
            (rest, searched) = (escape, 1);
        } else {
            let (character, bytes) = decode(escape)?;
            sink(character.encode_utf8(&mut [0; 4]))?;
            (rest, searched) = (&escape[bytes..], 0);
        }
    }
    sink(rest)
}

/// The first backslash. A body that is JSON has one every few bytes: too near for memchr to be worth its call.
fn backslash(bytes: &[u8]) -> Option<usize> {
    const NEAR: usize = 16;
    let (near, far) = bytes.split_at(bytes.len().min(NEAR));
    let near = near.iter().position(|&byte| byte == b'\\');
    near.or_else(|| memchr::memchr(b'\\', far).map(|position| NEAR + position))
}

/// The character that an escape stands for, and the escape's length after its backslash.
fn decode(escape: &str) -> Result<(char, usize), LoneSurrogate> {
    let character = match escape.as_bytes().first() {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        _ => return decode_unicode(escape),
    };
    Ok((character, 1))
}

fn decode_unicode(escape: &str) -> Result<(char, usize), LoneSurrogate> {
    let unit = |start: usize| {
        let digits = escape.get(start..start + 4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(1);
    let second = escape.get(5..7).filter(|&next| next == "\\u").and_then(|_| unit(7));
    let units = [first, second].into_iter().flatten();
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => Ok((character, if character.len_utf16() == 2 { 11 } else { 5 })),
        Some(Err(_)) | None => Err(LoneSurrogate),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescaped(json: &str) -> Result<String, LoneSurrogate> {
        let mut text = String::new();
        let sink = |piece: &str| {
            text.push_str(piece);
            Ok(())
        };
        unescape(json, sink).map(|()| text)
    }

    proptest! {
        #[test]
        fn strings_are_read_as_serde_json_reads_them(
            pieces in proptest::collection::vec(
                prop_oneof![
                    any::<char>().prop_map(|character| serde_json::to_string(&character).unwrap().replace('"', "")),
                    any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
                    any::<char>().prop_map(|character| {
                        let mut units = [0; 2];
                        let units = character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}"));
                        units.collect::<Vec<_>>().concat()
                    }),
                    Just("\\\\".to_owned()), Just("\\/".to_owned()), Just("\\\"".to_owned()),
                ],
                0..12,
            ),
        ) {
            let json = pieces.concat();
            let Ok(expected) = serde_json::from_str::<String>(&format!("\"{json}\"")) else {
                // A piece may be a lone quote or backslash, which is no valid inside of a string.
                if serde_json::from_str::<serde::de::IgnoredAny>(&format!("\"{json}\"")).is_ok() {
                    prop_assert!(unescaped(&json).is_err());
                }
                return Ok(());
            };
            prop_assert_eq!(unescaped(&json), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn text_that_is_no_json_makes_no_panic(text in r#"[\\u"d8én0+]{0,20}"#) {
            _ = unescaped(&text);
        }
    }

    #[test]
    fn an_escaped_backslash_hides_what_follows() {
        assert_eq!(unescaped(r"\\u0000"), Ok(r"\u0000".to_owned()));
        assert_eq!(unescaped(r"\\\u0000"), Ok("\\\0".to_owned()));
    }

    #[test]
    fn surrogates_count_only_in_pairs() {
        assert_eq!(unescaped(r"\ud83e\udd80").as_deref(), Ok("\u{1f980}"));
        for lone in [r"\ud83e", r"\udd80", r"\ud83e\ud83e", r"\ud83ex", r"\ud83e\n", r"\udd80\ud83e"] {
            assert_eq!(unescaped(lone), Err(LoneSurrogate), "{lone}");
        }
    }
}
