//! Keys and certificates of one lab's control plane, new with each start.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::netns::BRIDGE_IP;

/// Writes into `dir`: `ca.crt`, `apiserver.crt` and `.key`, `admin.crt` and `.key` (group `system:masters`), `sa.key` and
/// `sa.pub` (of service account tokens).
pub fn write(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let ca_key = KeyPair::generate()?;
    let mut params = named("meshstor-lab-ca", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = params.self_signed(&ca_key)?;
    std::fs::write(dir.join("ca.crt"), ca.pem())?;
    std::fs::write(dir.join("ca.key"), ca_key.serialize_pem())?;
    let issuer = Issuer::new(params, ca_key);

    let mut server = named("kube-apiserver", None);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        server.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    for ip in [BRIDGE_IP, "127.0.0.1", "10.96.0.1"] {
        server.subject_alt_names.push(SanType::IpAddress(ip.parse::<IpAddr>()?));
    }
    signed(dir, "apiserver", server, &issuer)?;

    let mut admin = named("meshstor-lab-admin", Some("system:masters"));
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed(dir, "admin", admin, &issuer)?;

    let tokens = KeyPair::generate()?;
    std::fs::write(dir.join("sa.key"), tokens.serialize_pem())?;
    std::fs::write(dir.join("sa.pub"), tokens.public_key_pem())?;
    Ok(())
}

fn named(common: &str, organisation: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common);
    if let Some(organisation) = organisation {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    params
}

fn signed(dir: &Path, name: &str, params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    std::fs::write(dir.join(format!("{name}.crt")), certificate.pem())?;
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}
