//! `outgate envoy leaves`: a leaf for every host that is bumped, as files.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use outgate_audit::{AuditKey, AuditLog, AuditOptions};
use outgate_minter::{
    LeafFiles, LeafFilesError, Wildcards, Written, open_ca, portable_minter, write_leaves,
};
use outgate_plane::clock;
use serde_json::json;

use crate::{
    cli::EnvoyLeaves,
    commands::{
        block_on, load,
        minter::{places, rotation},
        process::{hide_memory, set_limits},
        state,
    },
    style::say,
};

/// How long the end waits for the last records.
const LAST_WORDS: Duration = Duration::from_secs(5);

pub(super) fn run(leaves: &EnvoyLeaves, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    // The CA's key comes into this process.
    hide_memory();
    set_limits();
    let config = load(&leaves.file)?;
    let state = state(state_dir, Some(&config))?;
    if config.minter.is_some() && config.ca.is_none() && !state.ca_certificate().exists() {
        bail!(
            "{}: the CA's key is a minter's, and not in {}; run this where `outgate minter` runs, with its state folder",
            leaves.file.config.display(),
            state.folder().display()
        );
    }
    let machine = clock::machine();
    let places = places(&config, &state);
    let (authority, _) = open_ca(&places, clock::unix_now())?;
    let minter = portable_minter(authority);
    let written = block_on(async {
        let options = AuditOptions {
            clock: machine.clone(),
            key: AuditKey::load_or_create(&places.audit_key)?,
            rotation: rotation(&config),
        };
        let trail = AuditLog::open(&places.audit, options)
            .context("the minter's audit trail cannot be opened; if `outgate minter` runs in this state folder, it serves the leaves itself")?;
        let job = LeafFiles {
            dir: &leaves.out,
            policy: &config.policy,
            minter: &minter,
            trail: &trail,
            clock: &*machine,
            wildcards: if leaves.skip_wildcards {
                Wildcards::Skip
            } else {
                Wildcards::Refuse
            },
            group: leaves.group,
            force: leaves.force,
        };
        let written = write_leaves(job).await.map_err(|error| match error {
            LeafFilesError::Wildcards(_) => anyhow::anyhow!("{error} (--skip-wildcards)"),
            error => error.into(),
        })?;
        trail.durable(LAST_WORDS).await?;
        Ok(written)
    })?;
    tell(leaves, &written);
    Ok(ExitCode::SUCCESS)
}

fn tell(leaves: &EnvoyLeaves, written: &Written) {
    if leaves.file.json {
        let names = |hosts: &[outgate_journey::name::HostName]| {
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let skipped: Vec<_> = written.skipped.iter().map(ToString::to_string).collect();
        say!(
            "{}",
            json!({
                "dir": leaves.out, "minted": names(&written.minted), "kept": names(&written.kept),
                "removed": names(&written.removed), "skipped": skipped,
            })
        );
        return;
    }
    for (word, hosts) in [("minted", &written.minted), ("removed", &written.removed)] {
        for host in hosts {
            say!("{word:<8} {host}");
        }
    }
    for pattern in &written.skipped {
        say!("skipped  {pattern}: its hosts cannot be counted; their guests are refused");
    }
    say!(
        "{}: {} minted, {} kept, {} removed",
        leaves.out.display(),
        written.minted.len(),
        written.kept.len(),
        written.removed.len()
    );
}

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::*;
    use crate::cli::ConfigFile;

    #[test]
    fn a_process_that_reads_the_key_of_the_ca_hides_its_memory() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("outgate.yaml");
        let text = "version: 1\nposture: bump\ndestinations: [{ host: a.test }]\n";
        std::fs::write(&config, text).unwrap();
        let leaves = EnvoyLeaves {
            file: ConfigFile { config, json: true },
            out: folder.path().join("leaves"),
            skip_wildcards: false,
            group: None,
            force: false,
        };
        run(&leaves, Some(folder.path().join("state"))).unwrap();
        assert!(folder.path().join("leaves/a.test.json").exists());
        #[cfg(target_os = "linux")]
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    }
}
