//! Certificates, good and bad.

use std::sync::Arc;

use module_http_client::{Client, ClientError, Policy, Request};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use super::{Server, request};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Makes an authority that signs the certificates of the tests.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

fn signed(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    last_year: i32,
) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 6, 1);
    let key = KeyPair::generate().expect("a key");
    (params.signed_by(&key, authority).expect("a certificate"), key)
}

async fn serve((certificate, key): (Certificate, KeyPair)) -> Server {
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    Server::encrypted(ANSWER, TlsAcceptor::from(Arc::new(config))).await
}

fn https(server: &Server) -> Request {
    request(format!("https://localhost:{}/", server.port()))
}

#[tokio::test]
async fn a_certificate_says_until_when_it_is_valid() {
    let authority = authority();
    let server = serve(signed(&authority, "localhost", 2090)).await;
    let trusted = vec![authority.pem()];
    let client = Client::new(Policy { local: true, trusted });
    let answer = client.send(https(&server)).await.expect("it is trusted");
    assert_eq!(answer.body, b"ok");
    let expires = answer.certificate_expires_at.map(|time| time.to_string());
    assert_eq!(expires.as_deref(), Some("2090-06-01T00:00:00Z"));
}

#[tokio::test]
async fn a_bad_certificate_is_told_in_words() {
    let authority = authority();
    let trusted = vec![authority.pem()];
    let trusting = Client::new(Policy { local: true, trusted });
    let other = Client::new(Policy { local: true, ..Policy::default() });
    for (client, name, last_year, part) in [
        (&trusting, "localhost", 2021, "has expired"),
        (&trusting, "sk-canary.example", 2090, "for another name"),
        (&other, "localhost", 2090, "signed by nobody who is trusted"),
    ] {
        let server = serve(signed(&authority, name, last_year)).await;
        let error = client.send(https(&server)).await.expect_err("it is bad");
        let ClientError::Tls(message) = &error else { panic!("{error:?}") };
        assert!(message.contains(part), "{message}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert!(server.requests().is_empty(), "nothing is sent to it");
    }
    let plain = Server::answering(ANSWER).await;
    let error = trusting.send(https(&plain)).await.expect_err("it does not encrypt");
    assert_eq!(error.reason(), "tls", "{error}");
}
