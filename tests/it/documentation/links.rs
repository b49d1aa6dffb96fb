//! Links within the project.

use std::fs;
use std::path::{Path, PathBuf};

use super::markdown::{anchors, link_targets};
use crate::testenv::project_path;

#[test]
fn each_relative_link_leads_to_a_file_and_a_heading_that_exist() {
    let pages = pages();
    let mut links = 0;
    for page in &pages {
        let directory = page.parent().unwrap();
        for target in link_targets(&read(page)).iter().filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { directory.join(path) };
            assert!(file.exists(), "{} links to {target}, and there is no such file", page.display());
            let is_heading = anchor.is_empty() || anchors(&read(&file)).iter().any(|heading| heading == anchor);
            assert!(is_heading, "{} links to {target}, and there is no such heading", page.display());
            links += 1;
        }
    }
    assert!(pages.len() > 8 && links > 30, "{links} links in {pages:?}");
}

fn pages() -> Vec<PathBuf> {
    let named =
        ["README.md", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benches/compare/README.md"];
    let mut pages: Vec<PathBuf> = named.map(project_path).into();
    let docs = fs::read_dir(project_path("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    pages
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
