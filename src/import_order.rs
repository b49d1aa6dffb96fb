//! Holds the order of the modules: each imports only those that stand before it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// From the bottom to the top. Modules of one line do not import one another.
const ORDER: [&[&str]; 18] = [
    &[
        "aws",
        "crash_point",
        "blocking",
        "unescape",
        "segment",
        "reason",
        "exit_code",
        "host",
        "gate",
        "https",
        "suggestion",
    ],
    &["advice", "notify"],
    &["durable"],
    &["staging", "config"],
    &["queue"],
    &["keyring"],
    &["spool", "mask"],
    &["chunk", "import"],
    &["transform", "postgres"],
    &["load"],
    &["error"],
    &["workers", "in_flight"],
    &["counters"],
    &["drain", "ack", "report"],
    &["stages", "progress", "metrics", "trace", "page"],
    &["status", "find", "check"],
    &["infer"],
    &["local", "cli"],
];
/// The only arrow within the top: `demo` starts the local servers.
const WITHIN: (&str, &str) = ("cli", "local");

#[test]
fn imports_run_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let level: HashMap<&str, usize> =
        ORDER.iter().enumerate().flat_map(|(level, names)| names.iter().map(move |name| (*name, level))).collect();
    let mut arrows = 0;
    for path in files_below(&source) {
        let relative = path.strip_prefix(&source).unwrap().with_extension("");
        let module = relative.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if ["lib", "main", "import_order"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // Tests may set up their scene with modules above, and the properties of `fuzz` are tests.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_test = relative.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "fuzz");
        for imported in code.split("crate::").skip(1).filter(|_| !is_test) {
            let end = imported.find(|character: char| !character.is_alphanumeric() && character != '_');
            let imported = &imported[..end.unwrap_or(imported.len())];
            if imported == module || imported.is_empty() {
                continue;
            }
            let own = level.get(module.as_str()).unwrap_or_else(|| panic!("{module} has no place in the order"));
            let other = level.get(imported).unwrap_or_else(|| panic!("{module} imports {imported}, of no known place"));
            let runs_down = other < own || (module.as_str(), imported) == WITHIN;
            assert!(runs_down, "{} imports crate::{imported}, which does not stand below it", path.display());
            arrows += 1;
        }
    }
    assert!(arrows > 200, "only {arrows} imports were found");
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
