//! Where leaves come from: a CA that the deployment supplies; or one of this process's own, on disk or in memory, which is
//! made when it is needed; or a minter in another process, of whose CA this one has the certificate alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use outgate_config::{Config, TlsFiles};
use outgate_journey::session::UnixSeconds;
use outgate_pki::{
    Bundle, CaCertificate, CaFiles, CertificateAuthority, Minter, PkiError, RootSource, SuppliedCa,
    write_bundle,
};
use outgate_plane::clock::unix_now;

use super::{CaPlace, GatewayError};
use crate::{
    sds::Servers,
    server_tls::{LEAF_CACHE, ServerTls},
};

/// TLS towards guests, and the CA, where it is this process's own.
#[derive(Default)]
pub(super) struct GuestSide {
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) authority: Option<Arc<CertificateAuthority>>,
    /// The CA's files, where the deployment supplies it.
    pub(super) supplied: Option<SuppliedCa>,
}

/// What bumped destinations need, where there are any. With a minter there is no CA in this process, nor its key in this
/// folder. A CA that the deployment supplies is there from the start, whatever the policy needs: a mistake in it is told
/// then, and not when the first bumped destination comes.
pub(super) fn guest_side(
    config: &Config,
    place: CaPlace,
    servers: &Servers,
) -> Result<GuestSide, GatewayError> {
    if let (Some(files), None, CaPlace::Folder(folder)) = (&config.ca, &config.minter, &place) {
        return supplied(files, folder);
    }
    if !config.needs_ca() || matches!(place, CaPlace::Nowhere) {
        return Ok(GuestSide::default());
    }
    if let Some(minter) = &config.minter {
        let folder = match &place {
            CaPlace::Folder(folder) => Some(&**folder),
            CaPlace::Memory(_) | CaPlace::Nowhere => None,
        };
        let authority = known_ca(&minter.leaf_ca, folder)?;
        let client = servers
            .client(&minter.address)
            .ok_or_else(|| ca_failed(&"the minter is not known"))?;
        let tls = ServerTls::receiving(client.clone(), authority);
        return Ok(GuestSide {
            tls: Some(Arc::new(tls.map_err(|error| ca_failed(&error))?)),
            ..GuestSide::default()
        });
    }
    let authority: Option<Arc<_>> = match place {
        CaPlace::Folder(folder) => Some(Arc::new(open_ca(&folder)?)),
        CaPlace::Memory(authority) => authority.map(Arc::from),
        CaPlace::Nowhere => None,
    };
    let minter = authority.clone().map(|it| Minter::new(it, LEAF_CACHE));
    let tls = minter.map(ServerTls::minting).transpose();
    let tls = tls.map_err(|error| ca_failed(&error))?.map(Arc::new);
    Ok(GuestSide {
        tls,
        authority,
        supplied: None,
    })
}

fn supplied(files: &TlsFiles, folder: &Path) -> Result<GuestSide, GatewayError> {
    let opened = || {
        let supplied = SuppliedCa::open(ca_files(files), unix_now())?;
        let authority = supplied.authority();
        publish(&authority, folder)?;
        Ok((supplied, authority))
    };
    let (supplied, authority) = opened().map_err(|error: PkiError| ca_failed(&error))?;
    let tls = ServerTls::minting(Minter::new(Arc::clone(&authority), LEAF_CACHE));
    Ok(GuestSide {
        tls: Some(Arc::new(tls.map_err(|error| ca_failed(&error))?)),
        authority: Some(authority),
        supplied: Some(supplied),
    })
}

fn ca_files(files: &TlsFiles) -> CaFiles {
    CaFiles {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    }
}

/// Puts what guests trust where they are given it from.
pub(super) fn publish(authority: &CertificateAuthority, folder: &Path) -> Result<(), PkiError> {
    warn_without_roots(&authority.publish(folder, named_roots().as_deref())?);
    Ok(())
}

fn open_ca(folder: &Path) -> Result<CertificateAuthority, GatewayError> {
    let opened = || {
        let authority = CertificateAuthority::open_or_create(folder, unix_now())?;
        let named = named_roots();
        warn_without_roots(&write_bundle(
            folder,
            authority.certificate_pem(),
            named.as_deref(),
        )?);
        Ok(authority)
    };
    opened().map_err(|error: PkiError| ca_failed(&error))
}

/// The certificate of the minter's CA, put where guests are given it from.
pub(super) fn known_ca(file: &Path, folder: Option<&Path>) -> Result<CaCertificate, GatewayError> {
    let known = || {
        let authority = CaCertificate::load(file, unix_now())?;
        if let Some(folder) = folder {
            warn_without_roots(&authority.publish(folder, named_roots().as_deref())?);
        }
        Ok(authority)
    };
    known().map_err(|error: PkiError| ca_failed(&error))
}

fn ca_failed(error: &dyn std::fmt::Display) -> GatewayError {
    GatewayError::Ca(error.to_string())
}

fn named_roots() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)
}

fn warn_without_roots(bundle: &Bundle) {
    if bundle.roots == RootSource::Nowhere {
        tracing::warn!(
            "the system has no root certificates: with the bundle, workloads verify bumped destinations only"
        );
    }
}

/// The CA of one run, with its certificate: in memory, unless leaves come from a minter, which has it.
pub(super) type Authority = (Option<CertificateAuthority>, Option<String>);

pub(super) fn authority(config: &Config, now: UnixSeconds) -> Result<Authority, GatewayError> {
    let failed = |error: PkiError| GatewayError::Ca(error.to_string());
    if !config.needs_ca() {
        return Ok((None, None));
    }
    if let Some(minter) = &config.minter {
        let known = CaCertificate::load(&minter.leaf_ca, now).map_err(failed)?;
        return Ok((None, Some(known.certificate_pem().to_owned())));
    }
    let authority = CertificateAuthority::in_memory(now).map_err(failed)?;
    let pem = authority.certificate_pem().to_owned();
    Ok((Some(authority), Some(pem)))
}
