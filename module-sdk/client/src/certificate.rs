//! Certificates of servers.

use module_sdk::jiff::Timestamp;
use x509_cert::{Certificate, der::Decode as _};

/// Returns the time from which on a certificate is not valid any more.
pub(crate) fn expires_at(der: &[u8]) -> Option<Timestamp> {
    let certificate = Certificate::from_der(der).ok()?;
    let not_after = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    Timestamp::from_second(i64::try_from(not_after.as_secs()).ok()?).ok()
}
