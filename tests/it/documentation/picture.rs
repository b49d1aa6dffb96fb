//! The terminal in the README: a file that stands for itself, and shows what is printed today.

use roxmltree::Document;

use super::{PGSLUICE, demo, page, shape};
use crate::progress::{drawn, on_a_terminal};
use crate::testenv::{Server, TestEnv};

const PICTURE: &str = "docs/run.svg";
const MAX_BYTES: usize = 60_000;
const SVG: &str = "http://www.w3.org/2000/svg";

/// The lines of the terminal, each in one or more texts.
fn lines_of(picture: &Document<'_>) -> Vec<String> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for text in picture.descendants().filter(|node| node.has_tag_name((SVG, "text"))) {
        let (height, part) = (text.attribute("y").expect("a height"), text.text().expect("a text"));
        match lines.last_mut() {
            Some((last, line)) if *last == height => *line += part,
            _ => lines.push((height, part.to_owned())),
        }
    }
    lines.into_iter().map(|(_, line)| line.replace('\u{a0}', " ")).collect()
}

#[test]
fn the_picture_is_an_svg_that_refers_to_nothing_and_tells_nothing_of_where_it_was_made() {
    let svg = page(PICTURE);
    assert!(svg.len() < MAX_BYTES, "{} bytes", svg.len());
    let picture = Document::parse(&svg).unwrap();
    assert!(picture.root_element().has_tag_name((SVG, "svg")));
    for node in picture.descendants().filter(roxmltree::Node::is_element) {
        let known = ["svg", "title", "style", "defs", "clipPath", "rect", "circle", "g", "text"];
        assert!(known.contains(&node.tag_name().name()), "{node:?}");
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && !["href", "src"].contains(&name), "{name}={value}");
            assert!(!value.contains("url(") || value.starts_with("url(#"), "{name}={value}");
        }
    }
    let style = picture.descendants().find(|node| node.has_tag_name((SVG, "style"))).unwrap().text().unwrap();
    assert!(!style.contains("url(") && !style.contains('@'), "{style}");
    for line in lines_of(&picture) {
        let is_path = |word: &str| word.starts_with('/') || word.contains("://");
        assert!(!line.split_whitespace().any(is_path) && !line.contains('@'), "{line}");
    }
}

/// Nobody would notice that the picture is out of date.
#[test]
fn the_picture_shows_what_a_run_prints() {
    let svg = page(PICTURE);
    let picture = Document::parse(&svg).unwrap();
    let lines = lines_of(&picture);
    // The blank after `$` is no text of its own.
    let [command, progress, .., end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((command.as_str(), end.as_str()), ("$pgsluice run", "  the queue is empty"));

    // From the first line of the summary to its last.
    let labels = |lines: &[String]| -> Vec<String> {
        let lines = shape(&lines.join("\n")).into_iter().skip_while(|line| !line.contains("user_logins in"));
        let lines = lines.take_while(|line| !line.is_empty());
        lines.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect()
    };
    let demo = demo();
    let printed: Vec<String> = demo.stdout.lines().map(str::to_owned).collect();
    assert!(labels(&printed).len() > 8, "{demo}");
    assert_eq!(labels(&lines), labels(&printed), "{demo}");

    // A terminal that is wide enough for all of a line.
    let env = TestEnv::new(Server::Embedded);
    env.queue.send(&crate::logins::generated(20));
    let drawn = drawn(&on_a_terminal(&env, &format!("stty cols 100; exec {PGSLUICE} run --idle 2s")));
    let parts = |line: &str| -> Vec<String> {
        shape(&line.replace('/', " / ").replace('(', "( ")).concat().split(" · ").map(str::to_owned).collect()
    };
    let shown = parts(progress);
    let is_shown = |line: &String| line.contains(" of ~") && parts(line).iter().all(|part| shown.contains(part));
    assert!(drawn.iter().any(is_shown), "none of {drawn:?} is like {progress:?}");
}
