//! Which name was meant by one that does not exist.

/// Less alike than this, a name is no help. The similarity of Jaro and Winkler, 0 to 1.
const ALIKE: f64 = 0.8;

/// The candidate that is most like `name`, where one is like it.
#[must_use]
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likenesses = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let alike = likenesses.filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let names = ["pollers", "wait_seconds", "visibility_seconds", "max_in_flight"];
        for (name, meant) in [
            ("polers", Some("pollers")),
            ("poller", Some("pollers")),
            ("wait_second", Some("wait_seconds")),
            ("visibility_timeout_seconds", Some("visibility_seconds")),
            ("table", None),
        ] {
            assert_eq!(closest(name, names), meant, "{name}");
        }
    }
}
