use super::super::*;
use super::fixture::{Fixture, messages, new_database, server};
use crate::advice::Advised;
use crate::local::{LocalPostgres, LocalPostgresOptions};
use crate::postgres::connect;
use crate::postgres::tests::authority::{Authority, Signed};

async fn refusal(url: &str) -> LoadError {
    Loader::connect(&url.to_owned().into(), &Pipeline::user_logins().unwrap()).await.err().unwrap()
}

#[tokio::test]
async fn a_refused_connection_says_where_and_why_and_not_the_password() {
    let url = server().url("postgres");
    let password = url.split([':', '@']).nth(2).unwrap().to_owned();
    let expected = [
        (url.replace(&password, "wrong"), "28P01"),
        (server().url("absent"), "3D000"),
        (url.replace("//postgres:", "//stranger:"), "28P01"),
    ];
    for (url, expected) in expected {
        let error = refusal(&url).await;
        let LoadError::Postgres(PostgresError::ConnectionRefused { address, sqlstate, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(sqlstate, expected);
        assert!(address.starts_with(&format!("127.0.0.1:{}/", server().port())), "{address}");
        assert!(!error.is_transient());
        assert!(![password.as_str(), "wrong"].iter().any(|secret| format!("{error:?} {error}").contains(secret)));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = refusal(&format!("postgres://u:p@{address}/d?connect_timeout=1")).await;
    assert!(matches!(silent, LoadError::Postgres(PostgresError::Unreachable { .. })), "{silent}");
    drop(listener);
    let absent = refusal(&format!("postgres://u:p@{address}/d")).await;
    let LoadError::Postgres(PostgresError::Unreachable { address: shown, .. }) = absent else { panic!("{absent}") };
    assert_eq!(shown, format!("{address}/d"));
}

#[tokio::test]
async fn init_changes_nothing_the_second_time() {
    let fixture = Fixture::new().await;
    fixture.load(&fixture.stage(&messages(0..5))).await;
    init(&fixture.url, &fixture.pipeline).await.unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM pgsluice.message").await, 5);

    let (url, built_in) = (new_database(), Pipeline::user_logins().unwrap());
    let (one, two) = tokio::join!(init(&url, &built_in), init(&url, &built_in));
    one.unwrap();
    two.unwrap();
}

#[tokio::test]
async fn encryption_means_what_sslmode_says() {
    let server = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let plain = server.url("postgres");
    let refused = refusal(&format!("{plain}?sslmode=require")).await;
    assert!(matches!(refused, LoadError::Postgres(PostgresError::Unreachable { .. })), "{refused}");

    turn_tls_on(&plain, include_str!("tls/server.pem"), include_str!("tls/server.key")).await;
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority.pem");
    std::fs::write(&authority, include_str!("tls/authority.pem")).unwrap();
    let stranger = directory.path().join("stranger.pem");
    std::fs::write(&stranger, include_str!("tls/stranger.pem")).unwrap();
    let (authority, stranger) = (authority.display(), stranger.display());
    // The server's certificate is for `localhost`, not for 127.0.0.1.
    let named = plain.replace("127.0.0.1", "localhost");
    let accepted = [
        (format!("{plain}?sslmode=disable"), false),
        (plain.clone(), true),
        (format!("{plain}?sslmode=require"), true),
        (format!("{plain}?sslmode=require&sslrootcert={authority}"), true),
        (format!("{plain}?sslmode=verify-ca&sslrootcert={authority}"), true),
        (format!("{named}?sslmode=verify-full&sslrootcert={authority}"), true),
    ];
    for (url, encrypted) in accepted {
        let client = connect(&url.clone().into()).await.unwrap();
        let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let ssl: bool = client.query_one(query, &[]).await.unwrap().get(0);
        assert_eq!(ssl, encrypted, "{url}");
    }
    for query in [
        format!("sslmode=verify-full&sslrootcert={authority}"),
        format!("sslmode=require&sslrootcert={stranger}"),
        format!("sslmode=verify-ca&sslrootcert={stranger}"),
        "sslrootcert=system".to_owned(),
    ] {
        let error = refusal(&format!("{plain}?{query}")).await;
        assert!(matches!(error, LoadError::Postgres(PostgresError::Unreachable { .. })), "{query}: {error}");
    }
}

/// Once a server with a certificate of X.509 version 1, such as Citus makes for itself, could not be reached even where
/// its certificate does not matter.
#[tokio::test]
async fn a_server_with_a_certificate_of_version_1_can_be_reached() {
    let server = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let plain = server.url("postgres");
    let certificate = include_str!("tls/version_1.pem");
    turn_tls_on(&plain, certificate, include_str!("tls/version_1.key")).await;
    for query in ["sslmode=prefer", "sslmode=require", "sslmode=require&ssl_max_protocol_version=TLSv1.2"] {
        let client = connect(&format!("{plain}?{query}").into()).await.unwrap();
        let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert!(client.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0), "{query}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate).unwrap();
    let error = refusal(&format!("{plain}?sslmode=verify-ca&sslrootcert={}", file.path().display())).await;
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(text.contains("X.509 version 1, which cannot be verified: give the server one of version 3"), "{text}");
}

#[tokio::test]
async fn a_server_that_knows_the_password_by_scram_is_let_in_by_require_auth_and_channel_binding() {
    let server = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let plain = server.url("postgres");
    turn_tls_on(&plain, include_str!("tls/server.pem"), include_str!("tls/server.key")).await;
    for accepted in [
        "sslmode=disable&require_auth=scram-sha-256",
        "sslmode=prefer&require_auth=scram-sha-256",
        "sslmode=require&require_auth=!password,!md5",
        "sslmode=require&channel_binding=require",
        "sslmode=require&channel_binding=require&require_auth=scram-sha-256",
    ] {
        let client = connect(&format!("{plain}?{accepted}").into()).await.unwrap();
        let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let encrypted: bool = client.query_one(encrypted, &[]).await.unwrap().get(0);
        assert_eq!(encrypted, !accepted.starts_with("sslmode=disable"), "{accepted}");
    }
    for refused in
        ["require_auth=password", "sslmode=disable&require_auth=none", "sslmode=disable&channel_binding=require"]
    {
        refusal(&format!("{plain}?{refused}")).await;
    }
}

#[tokio::test]
async fn a_client_certificate_lets_its_role_in_without_a_password() {
    let server = LocalPostgres::start(LocalPostgresOptions::default()).unwrap();
    let plain = server.url("postgres");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.server(&["localhost"]);
    let client = connect(&plain.clone().into()).await.unwrap();
    client.batch_execute("CREATE ROLE certified LOGIN").await.unwrap();
    write_as_server(&client, "clients.crt", &authority.pem).await;
    write_as_server(
        &client,
        "pg_hba.conf",
        "hostssl all certified 127.0.0.1/32 cert\nhost all postgres all scram-sha-256",
    )
    .await;
    client.batch_execute("ALTER SYSTEM SET ssl_ca_file = 'clients.crt'").await.unwrap();
    turn_tls_on(&plain, &own.certificate, &own.key).await;

    let roots = authority.file("roots.pem", &authority.pem).display().to_string();
    let url = |signed: &Signed| {
        let certificate = authority.file("client.crt", &signed.certificate);
        let key = authority.file("client.key", &signed.key);
        format!(
            "postgres://certified@localhost:{}/postgres?sslmode=verify-full&sslrootcert={roots}&sslcert={}&sslkey={}",
            server.port(),
            certificate.display(),
            key.display()
        )
    };
    let entered = connect(&url(&authority.client("certified")).into()).await.unwrap();
    let role: String = entered.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, "certified");
    for wrong in [authority.client("another"), stranger.client("certified")] {
        refusal(&url(&wrong)).await;
    }
    refusal(&format!("postgres://certified@localhost:{}/postgres?sslmode=require", server.port())).await;
}

/// Writes a file that only the server's user may write, so the server does it.
async fn write_as_server(client: &tokio_postgres::Client, name: &str, text: &str) {
    let lines: Vec<String> = text.lines().map(|line| format!("('{line}')")).collect();
    let values = lines.join(", ");
    let write = format!("COPY (VALUES {values}) TO PROGRAM 'umask 077; cat > {name}'");
    client.batch_execute(&write).await.unwrap();
}

async fn turn_tls_on(url: &str, certificate: &str, key: &str) {
    let client = connect(&url.to_owned().into()).await.unwrap();
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        write_as_server(&client, name, text).await;
    }
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    // A new connection is served by what the postmaster has read; it is asked until it has.
    while connect(&format!("{url}?sslmode=require").into()).await.is_err() {
        tokio::task::yield_now().await;
    }
}
