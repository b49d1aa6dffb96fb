use std::path::Path;

use rustls::ProtocolVersion;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::super::parameters::{self, Effect};
use super::super::settings::Settings;
use super::super::sslmode::{Roots, Verify};
use crate::config::ConfigError;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::parse(text, None, |name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn refusal(text: &str) -> String {
    parse(text, &[]).unwrap_err().to_string()
}

fn host(name: &str) -> Host {
    Host::Tcp(name.to_owned())
}

fn file(path: &str) -> Roots {
    Roots::File(path.into())
}

#[test]
fn an_empty_string_means_the_variables() {
    let variables = [
        ("PGHOST", "db.example"),
        ("PGPORT", "6543"),
        ("PGUSER", "loader"),
        ("PGPASSWORD", "s e'cret"),
        ("PGDATABASE", "logins"),
        ("PGAPPNAME", "nightly"),
        ("PGOPTIONS", "-c search_path=x"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/etc/ca.pem"),
    ];
    let Settings { config, encryption, .. } = parse("", &variables).unwrap();
    assert_eq!((config.get_hosts(), config.get_ports()), (&[host("db.example")][..], &[6543][..]));
    assert_eq!((config.get_user(), config.get_dbname()), (Some("loader"), Some("logins")));
    assert_eq!(config.get_password(), Some(&b"s e'cret"[..]));
    assert_eq!((config.get_application_name(), config.get_options()), (Some("nightly"), Some("-c search_path=x")));
    assert_eq!(config.get_ssl_mode(), SslMode::Require);
    assert_eq!(encryption.verify, Verify::AuthorityAndHost(file("/etc/ca.pem")));
}

#[test]
fn a_string_wins_over_the_variables_and_they_fill_its_gaps() {
    let variables = [("PGHOST", "elsewhere"), ("PGPORT", "6543"), ("PGUSER", "other"), ("PGDATABASE", "other")];
    let config = parse("postgres://me@a,[::1],b:7/logins?application_name=x", &variables).unwrap().config;
    assert_eq!(config.get_hosts(), [host("a"), host("::1"), host("b")]);
    // As libpq: a list of ports, however short, is no gap.
    assert_eq!(config.get_ports(), [5432, 5432, 7]);
    assert_eq!((config.get_user(), config.get_dbname()), (Some("me"), Some("logins")));
    assert_eq!(config.get_application_name(), Some("x"));
    assert_eq!(parse("host=a,b", &variables).unwrap().config.get_ports(), [6543]);
    assert_eq!(parse("host='' user=''", &variables).unwrap().config.get_hosts(), [host("localhost")]);
    assert_eq!(parse("", &[("PGPORT", "")]).unwrap().config.get_ports(), [5432]);
}

#[test]
fn hosts_may_be_names_addresses_and_sockets() {
    let socket = |path: &str| Host::Unix(Path::new(path).to_owned());
    let config = parse("postgres:///d?host=/run/pg,@pg,h&port=1,2,3", &[]).unwrap().config;
    assert_eq!(config.get_hosts(), [socket("/run/pg"), socket("\0pg"), host("h")]);
    assert_eq!(config.get_ports(), [1, 2, 3]);

    let config = parse("host=a,b hostaddr=10.0.0.1,::2", &[]).unwrap().config;
    assert_eq!(config.get_hosts(), [host("a"), host("b")]);
    assert_eq!(config.get_hostaddrs(), ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "::2".parse().unwrap()]);
    // Without a name, TLS is for the address.
    assert_eq!(parse("hostaddr=10.0.0.1", &[]).unwrap().config.get_hosts(), [host("10.0.0.1")]);
    assert_eq!(parse("", &[]).unwrap().config.get_hosts(), [host("localhost")]);
    // Libpq encrypts nothing over a socket, whatever sslmode says.
    assert_eq!(parse("host=/tmp sslmode=require", &[]).unwrap().config.get_ssl_mode(), SslMode::Disable);
}

#[test]
fn each_sslmode_means_what_it_means_to_libpq() {
    let ca = || file("/ca.pem");
    let expected = [
        ("disable", SslMode::Disable, Verify::Nothing),
        ("allow", SslMode::Prefer, Verify::Nothing),
        ("prefer", SslMode::Prefer, Verify::Nothing),
        ("require", SslMode::Require, Verify::Nothing),
        ("require&sslrootcert=%2Fca.pem", SslMode::Require, Verify::Authority(ca())),
        ("verify-ca&sslrootcert=%2Fca.pem", SslMode::Require, Verify::Authority(ca())),
        ("verify-full&sslrootcert=%2Fca.pem", SslMode::Require, Verify::AuthorityAndHost(ca())),
        ("verify-full&sslrootcert=system", SslMode::Require, Verify::AuthorityAndHost(Roots::System)),
    ];
    for (query, mode, verify) in expected {
        let Settings { config, encryption, .. } = parse(&format!("postgres://h/d?sslmode={query}"), &[]).unwrap();
        assert_eq!((config.get_ssl_mode(), encryption.verify), (mode, verify), "{query}");
    }
    assert_eq!(parse("postgres://h", &[]).unwrap().config.get_ssl_mode(), SslMode::Prefer);
    for text in ["sslmode=maybe", "sslmode=''", "sslmode=Require"] {
        assert!(refusal(text).ends_with("sslmode is none that libpq knows"), "{text}");
    }
}

/// Once `sslmode` was lost behind the `?` of a password, and after a value with `://` in it.
#[test]
fn a_password_does_not_hide_the_sslmode() {
    for text in ["postgres://u:a?b@h/d?sslmode=require", "host=h password=a://b sslmode=require"] {
        assert_eq!(parse(text, &[]).unwrap().config.get_ssl_mode(), SslMode::Require, "{text}");
    }
}

/// Once `sslrootcert=system` alone verified nothing.
#[test]
fn whom_the_system_trusts_counts_with_verify_full_alone() {
    let verify = |text: &str| parse(text, &[]).map(|settings| settings.encryption.verify);
    assert_eq!(verify("host=h sslrootcert=system").unwrap(), Verify::AuthorityAndHost(Roots::System));
    for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
        let text = format!("host=h sslrootcert=system sslmode={mode}");
        assert!(refusal(&text).contains("sslrootcert=system is for sslmode=verify-full alone"), "{mode}");
    }
    parse("host=h sslrootcert=system", &[("PGSSLMODE", "require")]).unwrap_err();
}

/// Once `verify-ca` without a file trusted the system's authorities, which libpq does not: any site can get a
/// certificate from one of these.
#[test]
fn without_a_file_of_authorities_libpqs_own_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    let verify = |text: &str| parse(text, &[("HOME", path)]).map(|settings| settings.encryption.verify);
    for mode in ["verify-ca", "verify-full"] {
        let error = verify(&format!("host=h sslmode={mode}")).unwrap_err().to_string();
        assert!(
            error.contains(&format!("root certificate file {path}/.postgresql/root.crt does not exist")),
            "{error}"
        );
        assert!(refusal(&format!("host=h sslmode={mode}")).contains("no home directory"));
    }
    assert_eq!(verify("host=h sslmode=require").unwrap(), Verify::Nothing);

    let roots = home.path().join(".postgresql/root.crt");
    std::fs::create_dir(roots.parent().unwrap()).unwrap();
    std::fs::write(&roots, "").unwrap();
    assert_eq!(verify("host=h sslmode=require").unwrap(), Verify::Authority(Roots::File(roots.clone())));
    assert_eq!(verify("host=h sslmode=verify-ca").unwrap(), Verify::Authority(Roots::File(roots.clone())));
    assert_eq!(verify("host=h sslmode=verify-full").unwrap(), Verify::AuthorityAndHost(Roots::File(roots)));
    assert_eq!(verify("host=h").unwrap(), Verify::Nothing);
}

#[test]
fn choices_that_the_driver_and_the_tls_library_know_are_passed_on() {
    let text = "postgres://h?channel_binding=require&target_session_attrs=primary&load_balance_hosts=random&sslsni=0\
                &fallback_application_name=x&ssl_min_protocol_version=tlsv1.3&options=-c%20a%3Db";
    let Settings { config, encryption, .. } = parse(text, &[]).unwrap();
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!((config.get_application_name(), config.get_options()), (Some("x"), Some("-c a=b")));
    assert!(!encryption.sni);
    let versions = |text: &str| {
        let settings = parse(text, &[]).unwrap();
        settings.encryption.versions.iter().map(|version| version.version).collect::<Vec<_>>()
    };
    let (v2, v3) = (ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3);
    assert_eq!(versions(text), [v3]);
    assert_eq!(versions("ssl_max_protocol_version=TLSv1.2"), [v2]);
    assert_eq!(versions("ssl_min_protocol_version=TLSv1"), [v2, v3]);
    assert_eq!(versions(""), [v2, v3]);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_the_name_of_who_says_it() {
    let refused = parameters::all().filter(|parameter| matches!(parameter.effect, Effect::Only(..)));
    for parameter in refused {
        let error = refusal(&format!("host=h password=p {}=zq", parameter.name));
        assert!(error.contains(&format!("{}: ", parameter.name)) && !error.contains("zq"), "{error}");
        if let Some(variable) = parameter.variable {
            let error = parse("host=h", &[(variable, "zq")]).unwrap_err().to_string();
            assert!(error.contains(&format!("{variable}: ")) && !error.contains("zq"), "{error}");
        }
    }
    for harmless in ["gssencmode=prefer", "sslnegotiation=postgres", "client_encoding=LATIN1", "replication=off"] {
        parse(&format!("host=h {harmless}"), &[]).unwrap();
    }
}

#[test]
fn a_mistake_is_named_without_the_value() {
    for text in [
        "postgres://u:zq@h:zq/d",
        "postgres://u:zq/1/d",
        "host=h port=70000",
        "host=h port=1,2",
        "host=a,b hostaddr=10.0.0.1",
        "hostaddr=zq",
        "host=a,zq@h",
        "host=postgres://u:zq@h",
        "dbname=postgres://u:zq@h",
        "dbname='host=h password=zq'",
        "host=h connect_timeout=zq",
        "host=h keepalives=zq",
        "host=h target_session_attrs=zq",
        "host=h target_session_attrs=standby",
        "host=h channel_binding=zq",
        "host=h load_balance_hosts=zq",
        "host=h sslsni=zq",
        "host=h sslmode=zq",
        "host=h ssl_min_protocol_version=zq",
        "host=h ssl_max_protocol_version=TLSv1.1",
        "host=h ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
    ] {
        let error = refusal(text);
        assert!(!error.contains("zq"), "{error}");
    }
}
