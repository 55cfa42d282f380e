//! Where things are in the repository and in its ignored `.cache/`.

use std::path::{Path, PathBuf};

/// The folders and programs that the commands use.
pub(crate) struct Places {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Installed tools and packages; ignored by git, kept between runs.
    pub(crate) cache: PathBuf,
    /// Cargo's build folder.
    pub(crate) target: PathBuf,
}

impl Places {
    /// Finds the repository from the place where this program was built.
    pub(crate) fn find() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .filter(|root| root.join("Cargo.toml").is_file())
            .ok_or("the repository has moved since xtask was built")?
            .to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(PathBuf::from(dir)));
        Ok(Self {
            cache: root.join(".cache"),
            target,
            root,
        })
    }

    /// A cargo tool that [`crate::setup`] installed.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.cache.join("tools/bin").join(name)
    }

    /// A program of the client tests' Python environment.
    pub(crate) fn client_program(&self, name: &str) -> PathBuf {
        self.cache.join("clients/bin").join(name)
    }

    /// The folder whose `node_modules` the client tests use.
    pub(crate) fn node_packages(&self) -> PathBuf {
        self.cache.join("node")
    }

    /// A program of the deployment tests' Python environment.
    pub(crate) fn deploy_program(&self, name: &str) -> PathBuf {
        self.cache.join("deploy/bin").join(name)
    }

    /// The folder with Helm and kubectl.
    pub(crate) fn deploy_tools(&self) -> PathBuf {
        self.cache.join("deploy-tools")
    }

    /// The folder whose `node_modules` the deployment tests use.
    pub(crate) fn deploy_node_packages(&self) -> PathBuf {
        self.cache.join("deploy-node")
    }

    /// The folder of the Go guests, built by [`crate::setup`].
    pub(crate) fn go_guests(&self) -> PathBuf {
        self.cache.join("go")
    }

    /// The Rust guest, built with the workspace.
    pub(crate) fn rust_guest(&self) -> PathBuf {
        self.built("outgate-client-guest")
    }

    /// The Envoy that the tests start, installed by [`crate::setup`].
    pub(crate) fn envoy(&self) -> PathBuf {
        self.cache.join("envoy/envoy/_bin/envoy")
    }

    /// Where the conformance suite leaves what came of each scenario: a folder a plane.
    pub(crate) fn outcomes(&self) -> PathBuf {
        self.target.join("conformance")
    }

    /// A program of the workspace, as it is built for the tests.
    pub(crate) fn built(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// The gateway that the black-box tests start.
    pub(crate) fn gateway(&self) -> PathBuf {
        self.built("outgate")
    }
}
