use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConnection, Error, ServerConfig, ServerConnection, SupportedProtocolVersion};
use tokio_postgres::config::SslMode;

use super::super::sslmode::{Encryption, Verify};
use super::super::tls;

const VERSION_1: &[u8] = include_bytes!("../../load/tests/tls/version_1.pem");
const VERSION_1_KEY: &[u8] = include_bytes!("../../load/tests/tls/version_1.key");
const VERSION_3: &[u8] = include_bytes!("../../load/tests/tls/server.pem");
const VERSION_3_KEY: &[u8] = include_bytes!("../../load/tests/tls/server.key");

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A handshake in memory with a server that shows this certificate and signs with this key; the client's verdict.
fn handshake(version: &'static SupportedProtocolVersion, certificate: &[u8], key: &[u8]) -> Result<(), Error> {
    let provider = Arc::new(ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let key = ring::sign::any_supported_type(&PrivateKeyDer::from_pem_slice(key).unwrap()).unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(vec![certificate], key)))));
    let encryption =
        Encryption { mode: SslMode::Require, verify: Verify::Nothing, sni: true, versions: BOTH, client: None };
    let client = Arc::new(tls::client(&encryption).unwrap());
    let mut client = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent).unwrap();
        }
        server.read_tls(&mut &sent[..]).unwrap();
        server.process_new_packets().unwrap();
        let mut answered = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answered).unwrap();
        }
        client.read_tls(&mut &answered[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_certificate_of_any_version_will_do_where_none_is_verified() {
    for version in [&TLS12, &TLS13] {
        handshake(version, VERSION_1, VERSION_1_KEY).unwrap();
        handshake(version, VERSION_3, VERSION_3_KEY).unwrap();
    }
}

#[test]
fn a_server_without_the_key_of_its_certificate_is_refused_even_where_none_is_verified() {
    let another_rsa_key = include_bytes!("another_rsa.key");
    for version in [&TLS12, &TLS13] {
        let refused = handshake(version, VERSION_1, another_rsa_key).unwrap_err();
        assert_eq!(refused, CertificateError::BadSignature.into(), "{version:?}");
        // A key of another kind than the certificate's.
        handshake(version, VERSION_1, VERSION_3_KEY).unwrap_err();
    }
}
