//! Service files as libpq reads them: sections of `parameter=value` lines, chosen by `service`.
//!
//! Source: PostgreSQL documentation, "The Connection Service File" of libpq.

use std::fs;
use std::path::{Path, PathBuf};

use super::conninfo::Parameters;
use super::error::invalid_setting as invalid;
use super::parameters;
use crate::config::ConfigError;

/// Below the home directory.
const USERS_FILE: &str = ".pg_service.conf";
/// In the directory that PGSYSCONFDIR names.
const SYSTEMS_FILE: &str = "pg_service.conf";

/// Adds what the service says of parameters that the connection string does not give. The service's name and file come
/// from the string or the environment.
pub(super) fn apply(
    parameters: &mut Parameters,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<(), ConfigError> {
    let given = |name: &str, variable| parameters.non_empty(name).map(str::to_owned).or_else(|| environment(variable));
    let Some(service) = given("service", "PGSERVICE") else { return Ok(()) };
    let named = given("servicefile", "PGSERVICEFILE").map(PathBuf::from);
    if let Some(path) = named.as_ref().filter(|path| !path.exists()) {
        return Err(invalid(format!("service file {} does not exist", path.display())));
    }
    let users = named.or_else(|| Some(Path::new(&environment("HOME")?).join(USERS_FILE)));
    let systems = environment("PGSYSCONFDIR").map(|directory| Path::new(&directory).join(SYSTEMS_FILE));
    for path in [users, systems].into_iter().flatten().filter(|path| path.exists()) {
        let wrong = |problem: String| invalid(format!("service file {}: {problem}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        if let Some(section) = section(&text, &service).map_err(wrong)? {
            for (name, value) in section {
                if parameters.get(name).is_none() {
                    parameters.set(name, value);
                }
            }
            return Ok(());
        }
    }
    Err(invalid("no service file has the service that PGSERVICE or service= names".to_owned()))
}

/// What a service's section says, the first value of each parameter; `None` where the file has no such section. The
/// complaint names a line and quotes nothing of it.
fn section<'a>(text: &'a str, service: &str) -> Result<Option<Vec<(&'a str, &'a str)>>, String> {
    let mut found: Option<Vec<(&str, &str)>> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            found = (heading.split_once(']').map(|(name, _)| name) == Some(service)).then(Vec::new);
        } else if let Some(section) = &mut found {
            let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number} has no ="))?;
            if ["service", "servicefile"].contains(&name) {
                return Err(format!("line {number}: a service cannot name another"));
            }
            if parameters::find(name).is_none() {
                return Err(format!("line {number} begins with none of libpq's parameters"));
            }
            if !section.iter().any(|(known, _)| *known == name) {
                section.push((name, value));
            }
        }
    }
    Ok(found)
}
