//! What all peers of a run share: a folder with fresh certificates, the ports, and the upstream. Loopback only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::process::{Interrupt, Process, output};

/// The host that is asked for. Leaves cover `*.bench.test`.
pub(crate) const NAME: &str = "up.bench.test";
/// The field that a bumping peer has to put into every request, and its value.
pub(crate) const FIELD: &str = "X-Bench-Credential";
pub(crate) const VALUE: &str = "bench-credential-of-one-run";

const MINUTE: Duration = Duration::from_secs(60);

/// The ports of a run, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) proxy: u16,
    pub(crate) tls: u16,
    pub(crate) plain: u16,
    pub(crate) dns: u16,
}

impl Ports {
    /// # Errors
    /// `base` is below 19000, or leaves no room.
    pub(crate) fn from(base: u16) -> Result<Self> {
        ensure!(
            (19_000..=32_000).contains(&base),
            "--base-port is from 19000 to 32000"
        );
        Ok(Self {
            proxy: base + 10,
            tls: base + 43,
            plain: base + 80,
            dns: base + 53,
        })
    }
}

/// The folder, the ports, the upstream.
pub(crate) struct Ground {
    folder: PathBuf,
    kit: PathBuf,
    pub(crate) ports: Ports,
    pub(crate) interrupt: Interrupt,
    upstream: Option<Process>,
}

impl Ground {
    /// Makes certificates in `folder` and starts the upstream. `kit` is this program's release build.
    ///
    /// # Errors
    /// The kit cannot be run.
    pub(crate) fn prepare(
        folder: &Path,
        kit: &Path,
        ports: Ports,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let folder = folder
            .canonicalize()
            .with_context(|| folder.display().to_string())?;
        let mut ground = Self {
            folder,
            kit: kit.to_owned(),
            ports,
            interrupt,
            upstream: None,
        };
        let certificates = ground.certificate("");
        output(
            ground.kit(&["certificates", "--out"]).arg(&certificates),
            MINUTE,
            &ground.interrupt,
        )?;
        let mut upstream = ground.kit(&["upstream", "--cert"]);
        upstream
            .arg(ground.certificate("up.pem"))
            .arg("--key")
            .arg(ground.certificate("up.key"));
        for (flag, port) in [
            ("--tls", ports.tls),
            ("--plain", ports.plain),
            ("--dns", ports.dns),
        ] {
            upstream.arg(flag).arg(loopback(port));
        }
        ground.upstream = Some(Process::start(
            &mut upstream,
            &ground.folder.join("upstream.log"),
        )?);
        Ok(ground)
    }

    /// A command of the kit.
    pub(crate) fn kit(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.kit);
        command.args(words);
        command
    }

    /// Runs a command of the kit for as long as `limit`.
    ///
    /// # Errors
    /// It did not end well.
    pub(crate) fn run_kit(&self, words: &[String], limit: Duration) -> Result<String> {
        output(Command::new(&self.kit).args(words), limit, &self.interrupt)
    }

    pub(crate) fn certificate(&self, file: &str) -> PathBuf {
        self.folder.join("certificates").join(file)
    }

    /// An empty folder for a peer.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn fresh(&self, peer: &str) -> Result<PathBuf> {
        let folder = self.folder.join(peer);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    /// What a peer that was started last said.
    pub(crate) fn log(&self, peer: &str) -> PathBuf {
        self.folder.join(peer).join("log")
    }

    /// The upstream's process, to be watched. 0: there is none.
    pub(crate) fn upstream(&self) -> u32 {
        self.upstream.as_ref().map_or(0, Process::id)
    }

    /// The words that every template knows.
    pub(crate) fn words(&self) -> Vec<(&'static str, String)> {
        let file = |name| self.certificate(name).display().to_string();
        vec![
            ("PORT", self.ports.proxy.to_string()),
            ("TLS_PORT", self.ports.tls.to_string()),
            ("PLAIN_PORT", self.ports.plain.to_string()),
            ("DNS_PORT", self.ports.dns.to_string()),
            ("NAME", NAME.to_owned()),
            ("FIELD", FIELD.to_owned()),
            ("VALUE", VALUE.to_owned()),
            ("ROOTS", file("upca.pem")),
            ("LEAF", file("leaf.pem")),
            ("LEAF_KEY", file("leaf.key")),
        ]
    }
}

pub(crate) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// `template` with each `@WORD@` replaced.
///
/// # Errors
/// A word that is not among `words`.
pub(crate) fn fill(template: &str, words: &[(&'static str, String)]) -> Result<String> {
    let mut text = template.to_owned();
    for (word, value) in words {
        text = text.replace(&format!("@{word}@"), value);
    }
    let left = text.split('@').skip(1).find(|word| is_word(word));
    ensure!(
        left.is_none(),
        "the template has @{}@, which nothing is known of",
        left.unwrap_or_default()
    );
    Ok(text)
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|each| each.is_ascii_uppercase() || each == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_and_an_unknown_word_is_an_error() {
        let words = [("PORT", "1".to_owned())];
        assert_eq!(fill("p: @PORT@\n", &words).unwrap(), "p: 1\n");
        assert!(fill("\"@type\": @PORT@ @ROOTS@", &words).is_err());
        assert!(fill("\"@type\": @PORT@", &words).is_ok());
    }

    #[test]
    fn ports_below_19000_are_refused() {
        assert!(Ports::from(18_999).is_err());
        assert_eq!(Ports::from(19_500).unwrap().tls, 19_543);
    }
}
