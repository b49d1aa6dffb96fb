//! What is proved to a server, and what is told to one that is not the right one.

use std::error::Error;

use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};

use super::super::Database;
use super::super::authentication::{Methods, Watch};
use super::super::error::PostgresError;
use super::authority::Authority;
use super::server::{Asks, Seen, Server};
use crate::config::{DatabaseUrl, PasswordSource};

const PASSWORD: &str = "S3cr3t";

/// Connects; the error is the text of all its causes.
async fn connect(url: String) -> Result<(), String> {
    let database = Database::new(&url.into()).map_err(|error| all_causes(&error))?;
    database.connect().await.map(drop).map_err(|error: PostgresError| all_causes(&error))
}

fn all_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn a_certificate_is_trusted_as_sslmode_says() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let named = authority.file("authority.pem", &authority.pem).display().to_string();
    let [right, wrong_host, expired, wrong_authority] = [
        authority.server(&["localhost", "127.0.0.1"]),
        authority.server(&["db.example"]),
        authority.expired(&["localhost", "127.0.0.1"]),
        stranger.server(&["localhost", "127.0.0.1"]),
    ];
    // For: nothing verified; the authority; and the host.
    let expected = [
        ("the right one", &right, [true, true, true]),
        ("one for another host", &wrong_host, [true, true, false]),
        ("an expired one", &expired, [true, false, false]),
        ("one of another authority", &wrong_authority, [true, false, false]),
    ];
    for (name, certificate, accepted) in expected {
        let mut server = Server::start(Asks::Cleartext, Some(certificate), None).await;
        for (mode, accepted) in [
            ("sslmode=require".to_owned(), accepted[0]),
            ("sslmode=prefer".to_owned(), accepted[0]),
            (format!("sslmode=require&sslrootcert={named}"), accepted[1]),
            (format!("sslmode=verify-ca&sslrootcert={named}"), accepted[1]),
            (format!("sslmode=verify-full&sslrootcert={named}"), accepted[2]),
            ("sslrootcert=system".to_owned(), false),
        ] {
            for host in ["localhost", "127.0.0.1"] {
                let url = format!("postgres://u:{PASSWORD}@{host}:{}/d?{mode}", server.port);
                let connected = connect(url).await;
                assert_eq!(connected.is_ok(), accepted, "{name}, {mode}: {connected:?}");
                let told = server.client().await.answer;
                assert_eq!(told.as_deref(), accepted.then_some(PASSWORD), "{name}, {mode}");
            }
        }
    }
}

#[tokio::test]
async fn an_authority_that_is_trusted_no_longer_counts_no_longer() {
    let (authority, successor) = (Authority::new(), Authority::new());
    let mut server = Server::start(Asks::Cleartext, Some(&authority.server(&["localhost"])), None).await;
    let file = authority.file("roots.pem", &format!("{}{}", authority.pem, successor.pem));
    let url = format!(
        "postgres://u:{PASSWORD}@localhost:{}/d?sslmode=verify-full&sslrootcert={}",
        server.port,
        file.display()
    );
    connect(url.clone()).await.unwrap();
    assert_eq!(server.client().await.answer.as_deref(), Some(PASSWORD));
    authority.file("roots.pem", &successor.pem);
    let error = connect(url).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert_eq!(server.client().await, Seen::default());
}

#[tokio::test]
async fn only_a_method_that_is_allowed_is_answered_whatever_sslmode_is() {
    let authority = Authority::new();
    let signed = authority.server(&["localhost"]);
    let roots = authority.file("authority.pem", &authority.pem).display().to_string();
    let modes = [
        "sslmode=disable".to_owned(),
        "sslmode=allow".to_owned(),
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={roots}"),
        format!("sslmode=verify-full&sslrootcert={roots}"),
    ];
    let cases = [
        (Asks::Cleartext, "", true),
        (Asks::Cleartext, "password", true),
        (Asks::Cleartext, "scram-sha-256", false),
        (Asks::Cleartext, "!password", false),
        (Asks::Cleartext, "!md5", true),
        (Asks::Md5, "scram-sha-256,password", false),
        (Asks::Md5, "md5", true),
        (Asks::Scram, "scram-sha-256", true),
        (Asks::Scram, "none", false),
        (Asks::Nothing, "", true),
        (Asks::Nothing, "none", true),
        (Asks::Nothing, "scram-sha-256", false),
        (Asks::Nothing, "!none", false),
    ];
    for (asks, methods, allowed) in cases {
        let mut server = Server::start(asks, Some(&signed), None).await;
        for mode in &modes {
            let context = format!("{asks:?} with require_auth={methods}, {mode}");
            let url = format!("postgres://u:{PASSWORD}@localhost:{}/d?{mode}&require_auth={methods}", server.port);
            let connected = connect(url).await;
            let seen = server.client().await;
            assert_eq!(seen.encrypted, mode != "sslmode=disable", "{context}");
            assert_eq!(seen.answer.is_some(), allowed && asks != Asks::Nothing, "{context}");
            match connected {
                // This server cannot prove that it knows the password, so SCRAM ends there.
                Ok(()) => assert!(allowed && asks != Asks::Scram, "{context}"),
                Err(error) if asks == Asks::Scram && allowed => assert!(!error.contains("require_auth"), "{error}"),
                Err(error) => assert!(!allowed && error.contains("which require_auth does not allow"), "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn without_tls_the_server_is_asked_for_it_as_sslmode_says() {
    let mut server = Server::start(Asks::Cleartext, None, None).await;
    for methods in ["", "password"] {
        for (mode, accepted) in [("disable", true), ("allow", true), ("prefer", true), ("require", false)] {
            let url =
                format!("postgres://u:{PASSWORD}@localhost:{}/d?sslmode={mode}&require_auth={methods}", server.port);
            assert_eq!(connect(url).await.is_ok(), accepted, "{mode}");
            assert_eq!(server.client().await.answer.is_some(), accepted, "{mode}");
        }
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_it_has_one() {
    let authority = Authority::new();
    let mut server = Server::start(Asks::Nothing, Some(&authority.server(&["localhost"])), Some(&authority)).await;
    let signed = authority.client("u");
    let certificate = authority.file("client.crt", &signed.certificate).display().to_string();
    let key = authority.file("client.key", &signed.key).display().to_string();
    let url = format!("postgres://u@localhost:{}/d?sslmode=require", server.port);
    for (parameters, shown) in [
        (String::new(), false),
        (format!("&sslcert={certificate}&sslkey={key}"), true),
        (format!("&sslcert={certificate}&sslkey={key}&sslcertmode=disable"), false),
    ] {
        connect(format!("{url}{parameters}")).await.unwrap();
        assert_eq!(server.client().await.certificate, shown, "{parameters}");
    }
}

/// The server recomputes the signature by the published rules, as RDS does.
#[tokio::test]
async fn each_connection_to_rds_has_a_token_of_its_own() {
    let authority = Authority::new();
    let mut server = Server::start(Asks::Cleartext, Some(&authority.server(&["localhost"])), None).await;
    let roots = authority.file("authority.pem", &authority.pem);
    let aws = aws_config::SdkConfig::builder()
        .region(aws_config::Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("AKID", KEY, None, None, "a test")))
        .build();
    let url = |parameters: &str| {
        DatabaseUrl::from(format!("postgres://{parameters}")).with_password_from(Some(PasswordSource::RdsIam))
    };
    let place = format!("localhost:{}", server.port);
    let verified = format!("u@{place}/d?sslmode=verify-full&sslrootcert={}", roots.display());
    let database = Database::new(&url(&verified)).unwrap().signing_by(&aws);
    for _ in 0..2 {
        database.connect().await.unwrap();
        let token = server.client().await.answer.unwrap();
        let (signed, signature) = token.split_once("&X-Amz-Signature=").unwrap();
        let query = signed.strip_prefix(&format!("{place}/?Action=connect&DBUser=u&")).unwrap();
        assert_eq!(signature, expected_signature(&place, &format!("Action=connect&DBUser=u&{query}")));
    }

    for (parameters, problem) in [
        (format!("{place}/d?sslmode=require"), "name the user"),
        (format!("u:p@{place}/d?sslmode=require"), "have no password"),
        (format!("u@{place}/d"), "have an sslmode from require on"),
        ("u@a,b/d?sslmode=require".to_owned(), "name one host"),
        ("u@/d?host=/run/pg".to_owned(), "name one host"),
    ] {
        let error = Database::new(&url(&parameters)).err().unwrap().to_string();
        assert!(error.contains(problem), "{parameters}: {error}");
    }
}

const KEY: &str = "a secret key";

/// Signature Version 4 of a request without a body, step by step.
fn expected_signature(place: &str, query: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};
    let hmac = |key: &[u8], text: &str| {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().to_vec()
    };
    let date_time = query.split('&').find_map(|part| part.strip_prefix("X-Amz-Date=")).unwrap();
    let date = &date_time[..8];
    let empty = hex::encode(Sha256::digest(b""));
    let request = format!("GET\n/\n{query}\nhost:{place}\n\nhost\n{empty}");
    let request = hex::encode(Sha256::digest(request));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date_time}\n{date}/eu-west-1/rds-db/aws4_request\n{request}");
    let key = ["eu-west-1", "rds-db", "aws4_request"]
        .iter()
        .fold(hmac(format!("AWS4{KEY}").as_bytes(), date), |key, text| hmac(&key, text));
    hex::encode(hmac(&key, &to_sign))
}

#[test]
fn a_list_of_methods_is_read_as_libpq_reads_it() {
    assert_eq!(Methods::parse("").unwrap(), None);
    for wrong in ["scram", "scram-sha-256,", "!md5,password", "password,!md5", "md5,md5", "!md5,!md5", "MD5"] {
        let error = Methods::parse(wrong).unwrap_err().to_string();
        assert!(error.contains("require_auth has"), "{wrong}: {error}");
    }
    for (list, readable) in [("scram-sha-256", false), ("!password,!md5", false), ("!md5", true), ("md5,none", true)] {
        assert_eq!(Methods::parse(list).unwrap().unwrap().allow_a_readable_password(), readable, "{list}");
    }
}

#[test]
fn a_request_is_judged_in_whatever_pieces_it_comes() {
    // A notice, then a request for a password.
    let bytes = b"N\0\0\0\x06hi\x52\0\0\0\x08\0\0\0\x03";
    for end in 1..bytes.len() {
        let mut watch = Watch::new(Methods::parse("scram-sha-256").unwrap().unwrap());
        watch.read(&bytes[..end]).unwrap();
        watch.read(&bytes[end..]).unwrap_err();
    }
    let mut watch = Watch::new(Methods::parse("scram-sha-256").unwrap().unwrap());
    watch.read(b"R\xff\xff\xff\xff").unwrap();
    watch.read(&vec![0; 70_000]).unwrap_err();
}
