//! Pointers, duplicate names, depth, and bodies that are no object.

use super::*;

fn find<'a>(pointers: &[&'a str], body: &'a str) -> Result<Vec<Option<String>>, String> {
    let compiled = Pointers::compile(pointers.iter().copied()).unwrap();
    let mut found = vec![None; compiled.slots()];
    compiled.find(body, &mut found).map_err(|problem| problem.to_string())?;
    Ok(pointers.iter().map(|pointer| found[compiled.slot(pointer).unwrap()].map(str::to_owned)).collect())
}

fn found(pointer: &str, body: &str) -> Option<String> {
    find(&[pointer], body).unwrap().remove(0)
}

#[test]
fn the_examples_of_rfc_6901_are_found() {
    let document =
        r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,"~1":9}"#;
    for (pointer, expected) in [
        ("", document),
        ("/foo", r#"["bar","baz"]"#),
        ("/foo/0", r#""bar""#),
        ("/", "0"),
        ("/a~1b", "1"),
        ("/c%d", "2"),
        ("/e^f", "3"),
        ("/g|h", "4"),
        ("/i\\j", "5"),
        ("/k\"l", "6"),
        ("/ ", "7"),
        ("/m~0n", "8"),
        ("/~01", "9"),
    ] {
        assert_eq!(found(pointer, document).as_deref(), Some(expected), "{pointer}");
    }
    for absent in ["/foo/2", "/foo/01", "/foo/-", "/foo/0/x", "/nothing", "/a~1b/c"] {
        assert_eq!(found(absent, document), None, "{absent}");
    }
}

#[test]
fn a_value_and_what_lies_in_it_are_both_found_as_they_are_written() {
    let body = " {\"a\" : {\"b\": 1.50, \"c\":[10, {\"d\":1e400}]} ,\"x\":1e999}\n";
    assert_eq!(
        find(&["/a", "/a/b", "/a/c/1/d", "/a/c/0", "/x"], body).unwrap().map_texts(),
        [r#"{"b": 1.50, "c":[10, {"d":1e400}]}"#, "1.50", "1e400", "10", "1e999"]
    );
}

#[test]
fn the_last_of_two_members_of_a_name_counts_as_a_whole() {
    assert_eq!(found("/a", r#"{"a":1,"a":2}"#).as_deref(), Some("2"));
    assert_eq!(found("/a/b", r#"{"a":{"b":1},"a":{}}"#), None);
    assert_eq!(found("/a/b", r#"{"a":{"b":1},"a":7}"#), None);
    assert_eq!(found("/a/b", r#"{"a":{"b":1},"\u0061":{"b":2}}"#).as_deref(), Some("2"));
}

#[test]
fn a_body_that_is_no_object_is_told_apart_from_one_that_is_no_json() {
    let problem = |body: &str| find(&["/a"], body).unwrap_err();
    assert_eq!(problem(""), "is empty");
    assert_eq!(problem(" \n"), "is empty");
    for body in ["[]", "1", "\"secret\"", "null", "1e999"] {
        assert_eq!(problem(body), "is not a JSON object");
    }
    for body in
        ["{", "{\"a\":secret}", "{\"a\":1}}", "{\"a\":1} secret", "secret", "{\"a\":1,}", "\u{feff}{}", "{'a':1}"]
    {
        let problem = problem(body);
        assert!(problem.starts_with("is not JSON") && !problem.contains("secret"), "{body}: {problem}");
    }
    assert!(problem("{\"b\":{\"\\ud800\":1}, \"\\ud800\":1}").starts_with("is not JSON"));
}

#[test]
fn nesting_ends_at_the_limit_wherever_it_is() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    for pointer in ["/a", "/b", "/a/0/0"] {
        assert!(find(&[pointer], &nested(MAX_DEPTH)).is_ok());
        assert_eq!(find(&[pointer], &nested(MAX_DEPTH + 1)).unwrap_err(), "is nested deeper than 127 levels");
        assert!(find(&[pointer], &nested(500_000)).is_err());
    }
    let brackets_in_a_string = format!("{{\"a\":\"\\\"{}\"}}", "[{".repeat(1000));
    assert!(find(&["/a"], &brackets_in_a_string).is_ok());
    let one_beside_another = format!("{{\"a\":[{}0]}}", "[],".repeat(1000));
    assert!(find(&["/a"], &one_beside_another).is_ok());
    assert!(find(&["/a"], &"{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn the_depth_limit_is_that_of_serde_json() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH)).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH + 1)).is_err());
}

#[test]
fn what_is_no_pointer_is_refused() {
    for pointer in ["a", "a/b", "/a~", "/~2", "/a~/b"] {
        assert!(Pointers::compile([pointer].into_iter()).is_err(), "{pointer}");
    }
    assert!(Pointers::compile([&*"/a".repeat(MAX_DEPTH + 1)].into_iter()).is_err());
}

trait MapTexts {
    fn map_texts(&self) -> Vec<&str>;
}

impl MapTexts for Vec<Option<String>> {
    fn map_texts(&self) -> Vec<&str> {
        self.iter().map(|text| text.as_deref().unwrap_or("(nothing)")).collect()
    }
}
