//! Leaves minted ahead, one file a host, in the form in which Envoy reads secrets from files. Decides what is minted
//! (what is missing, ends soon, or is not this CA's), kept and taken away (what the policy has dropped), and refuses a
//! policy whose hosts cannot be counted.
//!
//! A file comes into its place whole, by a rename, which is all that a watched folder tells Envoy; and every mint is in
//! the audit trail before the first file is. Keys are for their owner alone, or for one group besides.

mod content;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use outgate_clock::Clock;
use outgate_journey::{
    gate::judge_leaf,
    name::{HostName, HostPattern},
    policy::{Policy, Posture},
    session::UnixSeconds,
};
use outgate_pki::{Minter, PkiError};
use outgate_state as state;
use zeroize::Zeroizing;

use self::content::LeafFile;
use crate::{Asker, Leaf, Trail, Unwritable};

/// A leaf lives a day; one with less than a third of it left is minted again, unless it ends with the CA.
const LEAST_LEFT: u64 = 8 * 60 * 60;
/// A longer name would not fit into a file's name, with what a file is called before it is in its place.
const LONGEST_NAME: usize = 200;

/// What to do about destinations like `*.example.org`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wildcards {
    /// Write nothing, and say which they are: their guests would be refused.
    #[default]
    Refuse,
    /// Write the others.
    Skip,
}

/// Which leaves to write where.
#[derive(Clone, Copy)]
pub struct LeafFiles<'a> {
    /// The folder, made with mode 0700 if it is missing.
    pub dir: &'a Path,
    /// Whose bumped hosts have leaves.
    pub policy: &'a Policy,
    /// Signs.
    pub minter: &'a Minter,
    /// Where mints are recorded.
    pub trail: &'a dyn Trail,
    /// What time it is.
    pub clock: &'a dyn Clock,
    /// What to do about hosts that cannot be counted.
    pub wildcards: Wildcards,
    /// A group whose members read the files too, as Envoy's own user: files are 0640 then, and the folder 0750.
    pub group: Option<u32>,
    /// Mint every leaf again, whatever is there.
    pub force: bool,
}

/// What was done, each in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Have a new leaf.
    pub minted: Vec<HostName>,
    /// Have theirs still.
    pub kept: Vec<HostName>,
    /// Had one, and are no bumped hosts any more.
    pub removed: Vec<HostName>,
    /// Were passed over.
    pub skipped: Vec<HostPattern>,
}

/// Why leaves were not written. Files that were in their place before are still good.
#[derive(Debug, thiserror::Error)]
pub enum LeafFilesError {
    /// There is no end to the hosts of these.
    #[error(
        "leaves cannot be minted ahead for {}: name the hosts one by one, or skip the wildcards and serve them over SDS", listed(.0)
    )]
    Wildcards(Vec<HostPattern>),
    /// The CA cannot sign.
    #[error(transparent)]
    Ca(#[from] PkiError),
    /// The mints are not on record.
    #[error(transparent)]
    Audit(#[from] Unwritable),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] state::StateError),
    /// The folder could not be read, given to the group, or cleared.
    #[error("{path}: {source}", path = path.display())]
    Folder {
        /// Which folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a host's file is called: the host and `.json`; of a name that is too long for that its beginning and a digest.
#[must_use]
pub fn leaf_file_name(host: &HostName) -> String {
    let name = host.as_str();
    let Some(beginning) = name.get(..LONGEST_NAME) else {
        return format!("{name}.json");
    };
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let digest = digest.as_ref().iter().take(8);
    let digest: String = digest.map(|byte| format!("{byte:02x}")).collect();
    format!("{beginning}~{digest}.json")
}

/// Brings the folder to what the policy says. Safe to repeat: what is good stays, and no file is touched then.
///
/// # Errors
/// [`LeafFilesError`].
pub async fn write_leaves(job: LeafFiles<'_>) -> Result<Written, LeafFilesError> {
    let (hosts, wildcards) = hosts_of(job.policy);
    if job.wildcards == Wildcards::Refuse && !wildcards.is_empty() {
        return Err(LeafFilesError::Wildcards(wildcards));
    }
    job.open_folder()?;
    let now = job.clock.unix();
    let mut written = Written {
        skipped: wildcards,
        ..Written::default()
    };
    let mut leaves = Vec::new();
    for host in &hosts {
        if !job.force && job.is_kept(host, now) {
            written.kept.push(host.clone());
        } else {
            let pem = job.minter.portable(host, now)?;
            leaves.push(Leaf::new(host.clone(), pem, now));
        }
    }
    job.record(&leaves).await?;
    for leaf in leaves {
        job.write(&leaf)?;
        written.minted.push(leaf.host().clone());
    }
    written.removed = job.clear(&hosts)?;
    Ok(written)
}

/// The hosts that are bumped, and the patterns whose hosts cannot be counted.
fn hosts_of(policy: &Policy) -> (BTreeSet<HostName>, Vec<HostPattern>) {
    let (mut hosts, mut wildcards) = (BTreeSet::new(), Vec::new());
    let bumped = policy.rules().filter(|it| it.posture == Posture::Bump);
    for rule in bumped {
        match &rule.host {
            HostPattern::Exact(host) => {
                if judge_leaf(policy, host.as_str()).is_ok() {
                    hosts.insert(host.clone());
                }
            }
            wildcard @ HostPattern::Wildcard(_) => wildcards.push(wildcard.clone()),
        }
    }
    wildcards.sort_by_key(ToString::to_string);
    wildcards.dedup();
    (hosts, wildcards)
}

impl LeafFiles<'_> {
    const fn mode(&self) -> u32 {
        if self.group.is_some() { 0o640 } else { 0o600 }
    }

    fn open_folder(&self) -> Result<(), LeafFilesError> {
        state::create_private_dir(self.dir)?;
        if let Some(group) = self.group {
            let mode = fs::Permissions::from_mode(0o750);
            chown(self.dir, None, Some(group))
                .and_then(|()| fs::set_permissions(self.dir, mode))
                .map_err(failed(self.dir))?;
        }
        Ok(())
    }

    /// Whether a host's file is as it would be written, and good for long enough.
    fn is_kept(&self, host: &HostName, now: UnixSeconds) -> bool {
        let path = self.dir.join(leaf_file_name(host));
        let Some(leaf) = self
            .read_own(&path)
            .filter(|leaf| leaf.name == host.as_str())
        else {
            return false;
        };
        let authority = self.minter.authority();
        let until = authority.vouches_for(&leaf.chain, &leaf.key, host, now);
        until.is_some_and(|until| {
            until.0.saturating_sub(now.0) > LEAST_LEFT || until == authority.not_after()
        })
    }

    /// A leaf's file whose rights are those that it is written with.
    fn read_own(&self, path: &Path) -> Option<LeafFile> {
        let found = fs::symlink_metadata(path).ok()?;
        let grouped = self.group.is_none_or(|group| group == found.gid());
        let own = found.is_file() && found.mode() & 0o7777 == self.mode() && grouped;
        own.then(|| LeafFile::read(path))?
    }

    /// All in one wait: a record is on disk when one that came after it is.
    async fn record(&self, leaves: &[Leaf]) -> Result<(), Unwritable> {
        let asker = Asker::itself();
        let mut records = leaves.iter().map(|leaf| asker.minted(leaf, self.clock));
        let Some(last) = records.next_back() else {
            return Ok(());
        };
        if !self.trail.is_writable() {
            return Err(Unwritable);
        }
        records.for_each(|record| self.trail.record(record));
        self.trail.commit(last).await
    }

    fn write(&self, leaf: &Leaf) -> Result<(), LeafFilesError> {
        let path = self.dir.join(leaf_file_name(leaf.host()));
        let text: Zeroizing<Vec<u8>> = content::to_json(leaf);
        match self.group {
            Some(group) => state::write_group_atomic(&path, &text, group)?,
            None => state::write_private_atomic(&path, &text)?,
        }
        Ok(())
    }

    /// Takes away the leaves of other hosts. What is no leaf's file is left alone.
    fn clear(&self, hosts: &BTreeSet<HostName>) -> Result<Vec<HostName>, LeafFilesError> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(self.dir).map_err(failed(self.dir))? {
            let path = entry.map_err(failed(self.dir))?.path();
            let Some(host) = leaf_of(&path).filter(|host| !hosts.contains(host)) else {
                continue;
            };
            fs::remove_file(&path).map_err(failed(&path))?;
            removed.push(host);
        }
        removed.sort();
        Ok(removed)
    }
}

/// Whose leaf a file is, by its name and by what it holds.
fn leaf_of(path: &Path) -> Option<HostName> {
    let name = path.file_name()?.to_str()?;
    let regular = name.ends_with(".json") && fs::symlink_metadata(path).ok()?.is_file();
    let leaf = regular.then(|| LeafFile::read(path))??;
    let host = HostName::parse(&leaf.name).ok()?;
    (leaf_file_name(&host) == name).then_some(host)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LeafFilesError {
    let path = path.to_owned();
    |source| LeafFilesError::Folder { path, source }
}

fn listed(patterns: &[HostPattern]) -> String {
    let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
    patterns.join(", ")
}
