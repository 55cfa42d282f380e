//! What Envoy's configuration is rendered from, as the configuration file has it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use outgate_config::{
    Config, DoorPlace, EnvoyAdmin, EnvoyConfig, PlaneAddress, Roots, Timeouts, TlsFloor,
};
use outgate_envoy::{
    render::{self, RenderOptions, TrustRoots},
    supervise::AdminPlace,
};
use outgate_native::gateway::{AUDIENCE, ISSUER};
use outgate_pki::SYSTEM_FILES;
use outgate_plane::upstream_tls::UpstreamRoots;
use outgate_state::certificate_to_pem;
use serde_json::Value;

/// How Envoy names itself to its control plane, which knows it by its certificate.
const NODE: render::Node<'static> = render::Node {
    id: "envoy",
    cluster: "outgate",
};

/// Everything that a bootstrap says.
pub(in crate::commands) struct Settings {
    envoy: EnvoyConfig,
    control: PlaneAddress,
    roots: String,
    min_tls: TlsFloor,
    timeouts: Timeouts,
    max_connections: u32,
}

impl Settings {
    /// # Errors
    /// What is missing in the file, and what to write.
    pub(in crate::commands) fn of(config: &Config, file: &Path) -> Result<Self> {
        let file = file.display();
        let Some(envoy) = config.envoy.clone() else {
            bail!(
                "{file}: there is no `envoy`, so Envoy would listen nowhere; add `envoy: {{ proxy: 127.0.0.1:8080 }}`"
            );
        };
        let control = match (&envoy.control, &config.listen.xds) {
            (Some(control), _) => control.clone(),
            (None, Some(door)) => match &door.place {
                DoorPlace::Socket(path) => PlaneAddress::Socket(path.clone()),
                DoorPlace::Tcp { .. } => bail!(
                    "{file}: listen.xds is on TCP, so envoy.control must say how Envoy reaches it: address, ca, certificate, key"
                ),
            },
            (None, None) => bail!(
                "{file}: there is no listen.xds, so Envoy has no control plane; add `listen: {{ xds: {{ socket: xds.sock }} }}`"
            ),
        };
        Ok(Self {
            envoy,
            control,
            roots: roots(config)?,
            min_tls: config.upstream.min_tls,
            timeouts: config.timeouts,
            max_connections: u32::try_from(config.listen.max_connections).unwrap_or(u32::MAX),
        })
    }

    pub(in crate::commands) fn options(&self) -> RenderOptions<'_> {
        RenderOptions {
            envoy: &self.envoy,
            control: &self.control,
            node: NODE,
            tokens: render::Tokens {
                issuer: ISSUER,
                audience: AUDIENCE,
            },
            roots: TrustRoots::Inline(&self.roots),
            min_tls: self.min_tls,
            timeouts: &self.timeouts,
            max_connections: self.max_connections,
        }
    }

    /// What Envoy starts with.
    pub(in crate::commands) fn bootstrap(&self) -> Value {
        render::bootstrap(&self.options())
    }

    /// That and what its control plane would say.
    pub(in crate::commands) fn everything(&self, config: &Config) -> Value {
        // The file by its name, where it is one: a hundred roots, cluster after cluster, are not to be read.
        let upstream = &config.upstream;
        let plain = upstream.roots == Roots::System && upstream.extra_roots.is_empty();
        let file = plain.then(system_file).flatten();
        let mut options = self.options();
        if let Some(file) = &file {
            options.roots = TrustRoots::File(file);
        }
        render::static_bootstrap(&options, &config.policy)
    }

    pub(in crate::commands) fn envoy(&self) -> &EnvoyConfig {
        &self.envoy
    }

    pub(in crate::commands) fn by_socket(&self) -> bool {
        matches!(self.control, PlaneAddress::Socket(_))
    }

    /// The control plane in words.
    pub(in crate::commands) fn control(&self) -> String {
        self.control.to_string()
    }

    /// The administration interface: where the file puts it, else in this folder.
    pub(in crate::commands) fn admin(&self, folder: &Path) -> AdminPlace {
        match &self.envoy.admin {
            Some(EnvoyAdmin::Tcp(address)) => AdminPlace::Tcp(*address),
            Some(EnvoyAdmin::Socket(path)) => AdminPlace::Socket(path.clone()),
            None => AdminPlace::Socket(folder.join("admin.sock")),
        }
    }
}

/// What upstreams are verified with, in PEM, as the gateway's own data plane verifies them.
fn roots(config: &Config) -> Result<String> {
    let roots = UpstreamRoots::read(&config.upstream)?.certificates;
    Ok(roots.iter().map(|it| certificate_to_pem(it)).collect())
}

/// The system's roots, where they are read from one file.
fn system_file() -> Option<PathBuf> {
    // As in OpenSSL, either stands in place of what the system has.
    match (env::var_os("SSL_CERT_FILE"), env::var_os("SSL_CERT_DIR")) {
        (Some(file), None) => std::path::absolute(file).ok(),
        (None, None) => {
            let mut files = SYSTEM_FILES.iter().map(PathBuf::from);
            files.find(|path| path.is_file())
        }
        (_, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use outgate_plane::upstream_tls::RootsError;

    use super::*;

    fn settings(folder: &Path, upstream: &str) -> Result<(Config, Settings)> {
        let text = format!(
            "version: 1\nlisten: {{ xds: {{ socket: xds.sock }} }}\nenvoy: {{ proxy: 127.0.0.1:8080 }}\n\
             destinations: [{{ host: a.test }}]\nupstream: {upstream}\n"
        );
        let config = Config::parse("outgate.yaml", &text, folder)?;
        let settings = Settings::of(&config, Path::new("outgate.yaml"))?;
        Ok((config, settings))
    }

    #[test]
    fn envoy_verifies_upstreams_as_the_gateway_does_and_is_never_told_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        std::fs::write(folder.path().join("own.pem"), own.cert.pem()).unwrap();
        std::fs::write(folder.path().join("empty.pem"), "").unwrap();

        let only_own = "{ roots: none, extra_roots: [own.pem] }";
        let (config, only_own) = settings(folder.path(), only_own).unwrap();
        let TrustRoots::Inline(pem) = only_own.options().roots else {
            panic!("not in the bootstrap itself");
        };
        assert_eq!(pem, certificate_to_pem(own.cert.der()));
        let read = UpstreamRoots::read(&config.upstream).unwrap();
        assert_eq!(read.certificates, [own.cert.der().clone()]);

        let empty = "{ roots: bundled, extra_roots: [empty.pem] }";
        let error = settings(folder.path(), empty).err().unwrap();
        let refused = error.downcast_ref::<RootsError>().unwrap();
        assert_eq!(refused.code(), "roots_unreadable");
    }
}
