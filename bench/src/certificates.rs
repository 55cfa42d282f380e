//! Fresh CAs and leaves, P-256 throughout. A run makes its own and throws them away.
//!
//! | file | what |
//! |---|---|
//! | `ca.pem`, `ca.key`, `ca-both.pem` | the CA that a bumping peer signs with: certificate, key, key and certificate |
//! | `leaf.pem`, `leaf.key` | a leaf for `*.bench.test` by that CA, for peers that cannot sign: leaf and CA, key |
//! | `upca.pem`, `upca.key` | the upstream's CA, which a peer has to verify the upstream by |
//! | `up.pem`, `up.key` | the upstream's own leaf for `*.bench.test` |

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// What the leaves are good for.
const NAMES: [&str; 3] = ["*.bench.test", "bench.test", "localhost"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder to write to. It is made; files of these names are replaced.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn main(arguments: &Arguments) -> anyhow::Result<()> {
    make(&arguments.out)
}

/// Writes all the files into the folder `out`.
pub(crate) fn make(out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    for (ca_name, leaf_name, common) in [
        ("ca", "leaf", "Bench bump CA"),
        ("upca", "up", "Bench upstream CA"),
    ] {
        let ca = authority(common)?;
        let ca_key = ca.key().serialize_pem();
        write(out, &format!("{ca_name}.pem"), &ca.pem())?;
        write(out, &format!("{ca_name}.key"), &ca_key)?;
        if ca_name == "ca" {
            write(out, "ca-both.pem", &format!("{ca_key}{}", ca.pem()))?;
        }
        let (leaf, key) = leaf(&ca)?;
        write(
            out,
            &format!("{leaf_name}.pem"),
            &format!("{leaf}{}", ca.pem()),
        )?;
        write(out, &format!("{leaf_name}.key"), &key)?;
    }
    Ok(())
}

fn authority(common: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = dated(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A leaf and its key, in PEM.
fn leaf(ca: &CertifiedIssuer<'static, KeyPair>) -> anyhow::Result<(String, String)> {
    let mut params = dated(NAMES.map(str::to_owned).to_vec())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "bench.test");
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    params.subject_alt_names.push(SanType::IpAddress(loopback));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn dated(names: Vec<String>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    Ok(params)
}

/// Keys are for this user alone.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    let mode = if text.contains("PRIVATE KEY") {
        0o600
    } else {
        0o644
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes())
        .with_context(|| path.display().to_string())
}
