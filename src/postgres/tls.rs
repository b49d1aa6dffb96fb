//! TLS to Postgres with libpq's meanings: encryption alone, a trusted authority, or that and the host's name.
//!
//! rustls knows only the strictest of these; the two weaker ones are its verifier with checks left out. Whatever is
//! left out, the server must prove that it holds the key of the certificate that it shows. Where nothing else of a
//! certificate matters, nothing else of it is read, so that a server with one of X.509 version 1 can be reached.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode, EncodeValue};

use super::error::invalid_setting as invalid;
use super::sslmode::{Encryption, Roots, Verify};
use crate::config::ConfigError;

/// Such a certificate cannot say whether it may sign others, so webpki takes none.
const VERSION_1: &str = "the server's certificate is of X.509 version 1, which cannot be verified: give the server one \
     of version 3, or connect with sslmode=require and without root certificates, which encrypts and verifies nothing";

/// Builds what encrypts connections.
pub(super) fn client(encryption: &Encryption) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring::default_provider());
    let (roots, host) = match &encryption.verify {
        Verify::Nothing => (None, false),
        Verify::Authority(roots) => (Some(roots), false),
        Verify::AuthorityAndHost(roots) => (Some(roots), true),
    };
    let authority = roots.map(|roots| authority(roots, &provider)).transpose()?;
    let verifier = Verifier { provider: Arc::clone(&provider), authority, host };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(encryption.versions)
        .map_err(|error| invalid(format!("sslmode: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &encryption.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let (certificates, key) = client.read()?;
            let shown = builder.with_client_auth_cert(certificates, key);
            shown.map_err(|error| invalid(format!("sslcert and sslkey: {error}")))?
        }
    };
    config.enable_sni = encryption.sni;
    Ok(config)
}

fn authority(roots: &Roots, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, ConfigError> {
    let roots = Arc::new(read_roots(roots)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    verifier.map_err(|error| invalid(format!("sslrootcert: {error}")))
}

fn read_roots(roots: &Roots) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Roots::File(path) => {
            let unusable =
                |problem: &dyn std::fmt::Display| invalid(format!("sslrootcert {}: {problem}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                store.add(certificate).map_err(|error| unusable(&error))?;
            }
        }
    }
    Ok(store)
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate will do.
    authority: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the name matters, too.
    host: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is compared last, so everything else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.host => Ok(ServerCertVerified::assertion()),
            Err(_) if is_version_1(end_entity) => Err(Error::General(VERSION_1.to_owned())),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match parse(certificate) {
            Some(parsed) if self.authority.is_none() => verify_with_key(message, &parsed, signature, algorithms),
            _ => verify_tls12_signature(message, certificate, signature, algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let key = parse(certificate).and_then(|parsed| parsed.tbs_certificate.subject_public_key_info.to_der().ok());
        match key {
            Some(key) if self.authority.is_none() => {
                verify_tls13_signature_with_raw_key(message, &key.into(), signature, algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `None` for one that cannot be read; then rustls says what is wrong.
fn parse(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate).ok()
}

fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate).is_some_and(|parsed| parsed.tbs_certificate.version == Version::V1)
}

/// As rustls does it for TLS 1.2, where a scheme does not name the curve: with each algorithm that fits the key.
fn verify_with_key(
    message: &[u8],
    certificate: &Certificate,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = &certificate.tbs_certificate.subject_public_key_info;
    // The algorithm's identifier without its own header, as `public_key_alg_id` has it.
    let mut identifier = Vec::new();
    let encoded = key.algorithm.encode_value(&mut identifier);
    let bits = key.subject_public_key.as_bytes();
    let (Ok(()), Some(bits)) = (encoded, bits) else { return Err(CertificateError::BadEncoding.into()) };
    let candidates = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
    let mut fitting = candidates
        .flat_map(|(_, algorithms)| algorithms.iter())
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == identifier);
    if fitting.any(|algorithm| algorithm.verify_signature(bits, message, signature.signature()).is_ok()) {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}
