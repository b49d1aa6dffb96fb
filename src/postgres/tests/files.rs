//! Password files, service files and the keys of client certificates, against libpq's documented rules.

use std::fs;
use std::path::Path;

use super::super::settings::Settings;
use super::authority::{Authority, set_mode};
use crate::config::ConfigError;

/// A home directory with files that their owner alone may read.
struct Home(tempfile::TempDir);

impl Home {
    fn new(files: &[(&str, &str)]) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            home.write(name, text);
        }
        home
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn parse(&self, text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::parse(text, None, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            let home = (name == "HOME").then(|| self.0.path().display().to_string());
            found.map(|(_, value)| (*value).to_owned()).or(home)
        })
    }

    fn password(&self, text: &str, variables: &[(&str, &str)]) -> Option<String> {
        let settings = self.parse(text, variables).unwrap();
        settings.config.get_password().map(|password| String::from_utf8(password.to_vec()).unwrap())
    }
}

#[test]
fn the_first_line_that_fits_has_the_password() {
    let home = Home::new(&[(
        ".pgpass",
        "# db:*:*:u:of a comment\n\
         db:5432:app:u:of all four\r\n\
         *:6543:*:u:of a port\n\
         /run/pg:*:*:u:of a socket\n\
         a\\:b\\\\c:*:*:u:of\\:es\\\\capes\\\n\
         [::1]:*:*:u:never\n\
         short:5432:app\n\
         *:*:other:*:of a database\n",
    )]);
    let expected = [
        ("host=db user=u dbname=app", Some("of all four")),
        ("postgres://u@db/app", Some("of all four")),
        ("host=db port=6543 user=u dbname=app", Some("of a port")),
        ("host=/run/pg user=u", Some("of a socket")),
        ("host=x hostaddr=127.0.0.1 user=z dbname=other", Some("of a database")),
        ("host=db user=z dbname=app", None),
        ("host=short user=u dbname=app", None),
        ("host=db user=other", Some("of a database")),
        ("host=db user=u dbname=app password=given", Some("given")),
    ];
    for (text, password) in expected {
        assert_eq!(home.password(text, &[]).as_deref(), password, "{text}");
    }
    assert_eq!(home.password("host=db user=u dbname=app", &[("PGPASSWORD", "set")]).as_deref(), Some("set"));
    let error = home.parse("host=db,elsewhere user=u dbname=app", &[]).unwrap_err().to_string();
    assert!(error.contains("has not the same password for each of the hosts"), "{error}");
}

#[test]
fn a_password_file_can_be_named_and_escape_its_colons() {
    let home = Home::new(&[("named", "a\\:b:*:*:u:es\\:ca\\\\pe\\d\\"), (".pgpass", "*:*:*:*:default")]);
    let named = home.path("named").display().to_string();
    let login = super::super::passfile::Login { host: "a:b", port: "1", database: "d", user: "u" };
    let file = super::super::passfile::PasswordFile::read(Path::new(&named), &mut Vec::new()).unwrap();
    assert_eq!(file.password(login).as_deref(), Some("es:ca\\ped\\"));
    assert_eq!(home.password("host=h user=u", &[]).as_deref(), Some("default"));
    assert_eq!(home.password("host=h user=u", &[("PGPASSFILE", &named)]), None);
    assert_eq!(home.password(&format!("host=h user=u passfile={named}"), &[]), None);
    assert_eq!(home.password("host=h user=u passfile=/nowhere", &[]), None);
}

#[test]
fn a_password_file_that_others_may_use_is_not_used() {
    let home = Home::new(&[(".pgpass", "*:*:*:*:S3cr3t")]);
    for (mode, is_used) in
        [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o610, false)]
    {
        set_mode(&home.path(".pgpass"), mode);
        let settings = home.parse("host=localhost user=u", &[]).unwrap();
        assert_eq!(settings.config.get_password().is_some(), is_used, "{mode:o}");
        let said = settings.cautions.join("");
        assert_eq!(said.contains("its mode must be 0600 or less"), !is_used, "{said}");
        assert!(!said.contains("S3cr3t"));
    }
    fs::remove_file(home.path(".pgpass")).unwrap();
    fs::create_dir(home.path(".pgpass")).unwrap();
    let cautions = home.parse("host=localhost user=u", &[]).unwrap().cautions;
    assert!(cautions[0].ends_with("is not used: it is no plain file"), "{cautions:?}");
}

#[test]
fn a_service_fills_the_gaps_of_the_string_and_wins_over_the_variables() {
    let home = Home::new(&[
        (
            ".pg_service.conf",
            "# a comment\n[other]\nhost=never\n\n [app] \nhost=db\nport=6543\nport=1\nuser=of service\n[app]\nuser=never\n",
        ),
        ("etc/pg_service.conf", "[system]\nhost=of the system\n[app]\nhost=never"),
        ("named", "[app]\nhost=of-the-named\nsslmode=require"),
    ]);
    let host = |text: &str, variables: &[(&str, &str)]| {
        let config = home.parse(text, variables).unwrap().config;
        (format!("{:?}", config.get_hosts()), config.get_ports()[0], config.get_user().map(str::to_owned))
    };
    let expected = ("[Tcp(\"db\")]".to_owned(), 6543, Some("of service".to_owned()));
    assert_eq!(host("service=app", &[("PGHOST", "never"), ("PGUSER", "never")]), expected);
    assert_eq!(host("", &[("PGSERVICE", "app")]), expected);
    assert_eq!(host("postgres://mine@/?service=app", &[]).2.as_deref(), Some("mine"));
    let named = home.path("named").display().to_string();
    assert_eq!(host("service=app", &[("PGSERVICEFILE", &named)]).0, "[Tcp(\"of-the-named\")]");
    assert_eq!(host(&format!("service=app servicefile={named}"), &[]).0, "[Tcp(\"of-the-named\")]");

    let etc = home.path("etc").display().to_string();
    let error = home.parse("service=system", &[("PGSYSCONFDIR", &etc)]).unwrap_err().to_string();
    assert!(error.contains("host has an entry that is no host name"), "{error}");
    for (text, expected) in [
        ("service=absent".to_owned(), "no service file has the service"),
        ("service=app servicefile=/nowhere".to_owned(), "service file /nowhere does not exist"),
    ] {
        let error = home.parse(&text, &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_mistake_in_a_service_file_is_named_by_its_line() {
    for (line, expected) in [
        ("password=S3cr3t\nhost", "line 3 has no ="),
        ("pasword=S3cr3t", "line 2 begins with none of libpq's parameters"),
        ("service=S3cr3t", "line 2: a service cannot name another"),
        ("ldap://S3cr3t/x?y=z", "line 2 begins with none of libpq's parameters"),
    ] {
        let home = Home::new(&[(".pg_service.conf", &format!("[app]\n{line}\n"))]);
        let error = home.parse("service=app", &[]).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("S3cr3t"), "{error}");
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let authority = Authority::new();
    let signed = authority.client("u");
    let home = Home::new(&[
        (".postgresql/postgresql.crt", &signed.certificate),
        (".postgresql/postgresql.key", &signed.key),
        ("other.key", "S3cr3t"),
    ]);
    let key = home.path(".postgresql/postgresql.key");
    let read = |text: &str| {
        home.parse(text, &[]).and_then(|settings| settings.encryption.client.map(|client| client.read()).transpose())
    };
    assert_eq!(read("host=h").unwrap().unwrap().0.len(), 1);
    assert!(read("host=h sslmode=disable").unwrap().is_none());
    assert!(read("host=h sslcertmode=disable").unwrap().is_none());
    assert!(read("host=/run/pg").unwrap().is_none());
    let is_root = rustix::process::geteuid().is_root();
    for (mode, is_read) in [(0o400, true), (0o640, is_root), (0o644, false), (0o660, false), (0o601, false)] {
        set_mode(&key, mode);
        let read = read("host=h");
        assert_eq!(read.is_ok(), is_read, "{mode:o}");
        assert!(read.err().is_none_or(|error| error.to_string().contains("its mode must be 0600")));
    }
    let other = home.path("other.key").display().to_string();
    for (text, expected) in [
        (format!("host=h sslkey={other}"), "it holds no key in PEM"),
        (format!("host=h sslcert={other}"), "it holds no certificate"),
        ("host=h sslkey=/nowhere".to_owned(), "No such file"),
        ("host=h sslcert=/nowhere".to_owned(), "No such file"),
        ("host=h sslcertmode=require".to_owned(), "sslcertmode=require is not supported"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("S3cr3t"), "{text}: {error}");
    }
    fs::remove_file(&key).unwrap();
    assert!(read("host=h").unwrap_err().to_string().contains("has no key: name one by sslkey"));
}

#[test]
fn a_password_that_an_unverified_server_could_read_is_cautioned_against() {
    let home = Home::new(&[("roots.pem", "")]);
    let roots = home.path("roots.pem").display().to_string();
    let cautious = |text: &str| !home.parse(text, &[]).unwrap().cautions.is_empty();
    for text in [
        "host=db password=p",
        "host=db password=p sslmode=require",
        "host=localhost,db password=p",
        "host=localhost hostaddr=10.0.0.1 password=p",
        "host=db password=p require_auth=password",
        &format!("host=db password=p sslmode=verify-ca sslrootcert={roots}"),
    ] {
        assert!(cautious(text), "{text}");
    }
    for text in [
        "host=db",
        "host=localhost password=p",
        "host=127.0.0.2 password=p",
        "host=::1 password=p",
        "host=/run/pg password=p",
        "host=db hostaddr=127.0.0.1 password=p",
        "host=db password=p sslrootcert=system",
        "host=db password=p sslmode=require channel_binding=require",
        "host=db password=p require_auth=scram-sha-256",
    ] {
        assert!(!cautious(text), "{text}");
    }
    let said = home.parse("host=db password=S3cr3t", &[]).unwrap().cautions;
    assert!(said.len() == 1 && !said[0].contains("S3cr3t"));
}
