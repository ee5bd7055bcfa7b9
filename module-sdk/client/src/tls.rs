//! Trust: whose certificates are believed.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::ClientError;

/// Returns a configuration that believes nobody, for clients that do not encrypt: the certificates
/// of a system are a megabyte.
pub(crate) fn nobody() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Returns a configuration that believes whom the system believes, and those who signed with
/// further certificates.
pub(crate) fn system(further_pem: &[String]) -> Result<ClientConfig, ClientError> {
    let mut further = Vec::new();
    for pem in further_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            further.push(certificate.map_err(|error| {
                ClientError::Tls(format!("a certificate to be trusted cannot be read: {error}"))
            })?);
        }
    }
    configuration(further).map_err(|error| {
        let message = format!("the trusted certificates of this system cannot be used: {error}");
        ClientError::Tls(crate::error::plain(&message))
    })
}

fn configuration(further: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let verifier = Verifier::new_with_extra_roots(further, provider())?;
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
