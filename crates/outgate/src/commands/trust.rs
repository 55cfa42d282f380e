//! `outgate trust`: what a workload's programs trust, made from the roots of the image that it runs in and the
//! gateway's CA. It runs in that image, so it needs nothing of it.

use std::{collections::HashSet, env, ffi::OsString, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use outgate_pki::{
    BUNDLE_FILE, RootSource, TRUSTSTORE_FILE, combined_bundle, java_truststore, write_bundle,
};
use outgate_state::write_public_atomic;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{
    cli::Trust,
    style::{say, warn},
};

pub(crate) fn run(trust: &Trust) -> Result<ExitCode> {
    let ca = certificates(&trust.ca).with_context(|| trust.ca.display().to_string())?;
    if !trust.out.is_dir() {
        bail!("{}: there is no such folder", trust.out.display());
    }
    let named = env::var_os("SSL_CERT_FILE").filter(|file| names_roots(file, &trust.out));
    let bundle = write_bundle(&trust.out, &ca.pem, named.as_deref().map(Path::new))?;
    let roots = read_back(&bundle.path)?;
    let truststore = trust.out.join(TRUSTSTORE_FILE);
    write_public_atomic(&truststore, &java_truststore(&roots)?)?;
    let source = match bundle.roots {
        RootSource::File(file) => file.display().to_string(),
        RootSource::Store => "the image's store".to_owned(),
        RootSource::Nowhere => {
            warn(
                "this image has no roots: the bundle holds the CA alone, and hosts that pass through will not verify",
            );
            "nowhere".to_owned()
        }
    };
    let (all, own) = (roots.len(), ca.count);
    say!("{}", bundle.path.display());
    say!("{}", truststore.display());
    say!("{all} certificates: {own} of the CA, the others from {source}");
    Ok(ExitCode::SUCCESS)
}

/// Whether the variable's value is a file of roots to begin with. It is not where it names what is about to be written:
/// a manifest may set it for all containers of a pod.
fn names_roots(file: &OsString, out: &Path) -> bool {
    !file.is_empty() && Path::new(file) != out.join(BUNDLE_FILE)
}

struct CaCertificates {
    /// Nothing but certificates, each once.
    pem: String,
    count: usize,
}

/// All of them, because two stand there while one follows the other. What cannot be read is not left out: a workload
/// that trusts half of it fails later, and says less.
fn certificates(path: &Path) -> Result<CaCertificates> {
    let text = std::fs::read(path)?;
    if text.windows(11).any(|word| word == b"PRIVATE KEY") {
        bail!("it holds a private key, which no workload may have: give the certificate alone");
    }
    let mut store = RootCertStore::empty();
    let mut seen = HashSet::new();
    for block in CertificateDer::pem_slice_iter(&text) {
        let certificate = block.context("a block in it is no PEM")?;
        store
            .add(certificate.clone())
            .context("a block in it is no certificate")?;
        seen.insert(certificate);
    }
    if seen.is_empty() {
        bail!("it holds no certificate");
    }
    Ok(CaCertificates {
        pem: combined_bundle("", &String::from_utf8_lossy(&text)),
        count: seen.len(),
    })
}

fn read_back(bundle: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let blocks = CertificateDer::pem_file_iter(bundle)?.collect::<Result<Vec<_>, _>>();
    blocks.with_context(|| bundle.display().to_string())
}
