//! `outgate audit`: reads, verifies, proves and exports the trail. It is read where it lies, so that evidence does not
//! depend on a gateway that runs; of a gateway elsewhere, `verify` and `export` are asked for over its operator interface.

mod export;
mod proof;
mod read;
mod verify;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

pub(crate) use self::verify::as_json as report_as_json;
use super::{
    operator::{local_state, named_config, remote, told},
    state,
};
use crate::{
    cli::{Audit, AuditAction, Reach},
    style::say,
};

pub(crate) fn run(audit: Audit, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let Audit {
        reach,
        output,
        action,
    } = audit;
    told(output.json, act(&reach, action, output.json, state_dir))
}

fn act(
    reach: &Reach,
    action: AuditAction,
    json: bool,
    state_dir: Option<PathBuf>,
) -> Result<ExitCode> {
    let trail = |path| trail(reach, path, state_dir.clone());
    match action {
        AuditAction::Tail {
            path,
            lines,
            follow,
        } => read::tail(&trail(path)?, lines, follow, json),
        AuditAction::Show { path } => read::show(&trail(path)?, json),
        AuditAction::Verify {
            path,
            key,
            archived,
        } => match elsewhere(reach, path.as_ref())? {
            Some(client) => verify::remotely(&client, json),
            None => verify::run(&trail(path)?, key, archived, json),
        },
        AuditAction::Prove { seq, out } => proof::prove(&trail(None)?, seq, out.as_deref()),
        AuditAction::CheckProof { file, key, record } => {
            proof::check(&file, &key, record.as_deref(), json)
        }
        AuditAction::Key => {
            let dir = trail(None)?;
            let keys = local_state(&reach.place, state_dir)?.audit_key();
            let key = outgate_audit::verifier_key(&dir, &keys)?;
            if json {
                say!("{}", serde_json::json!({ "key": key.to_string() }));
            } else {
                say!("{key}");
            }
            Ok(ExitCode::SUCCESS)
        }
        AuditAction::Export {
            path,
            from,
            to,
            out,
        } => {
            let range = export::Range::new(from, to)?;
            match elsewhere(reach, path.as_ref())? {
                Some(client) => export::remotely(&client, range, out.as_deref()),
                None => export::run(&trail(path)?, range, out.as_deref()),
            }
        }
    }
}

/// The gateway to ask, if one elsewhere is named and no folder here.
fn elsewhere(
    reach: &Reach,
    path: Option<&PathBuf>,
) -> Result<Option<outgate_control::client::OperatorClient>> {
    if path.is_some() {
        Ok(None)
    } else {
        remote(reach)
    }
}

/// The trail's folder: the one that was named, else where the gateway keeps it.
fn trail(reach: &Reach, path: Option<PathBuf>, state_dir: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = path {
        return Ok(path);
    }
    if reach.operator.as_deref().is_some_and(|url| !url.is_empty()) {
        bail!(
            "this reads the trail's files: run it where they are, without --operator and OUTGATE_OPERATOR; \
             `outgate audit export` and `outgate audit verify` work from elsewhere"
        );
    }
    let config = named_config(&reach.place)?;
    let folder = match config.as_ref().and_then(|config| config.audit_dir.clone()) {
        Some(folder) => folder,
        None => state(state_dir, config.as_ref())?.audit(),
    };
    if !folder.exists() {
        bail!(
            "there is no audit trail in {}; if the configuration moves it (audit.dir), name the file with --config",
            folder.display()
        );
    }
    Ok(folder)
}

/// Where records are printed to: standard output, or a file that appears when it is whole.
struct Sink {
    out: Box<dyn Write>,
    file: Option<(tempfile::NamedTempFile, PathBuf)>,
}

impl Sink {
    fn open(path: Option<&std::path::Path>) -> Result<Self> {
        let Some(path) = path else {
            let out = Box::new(io::BufWriter::new(io::stdout()));
            return Ok(Self { out, file: None });
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(std::path::Path::new("."));
        let file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| folder.display().to_string())?;
        let out = Box::new(io::BufWriter::new(file.reopen()?));
        Ok(Self {
            out,
            file: Some((file, path.to_owned())),
        })
    }

    /// Writes a line; whether somebody still reads.
    fn line(&mut self, line: &[u8]) -> Result<bool> {
        let written = self
            .out
            .write_all(line)
            .and_then(|()| self.out.write_all(b"\n"));
        still_read(written)
    }

    /// Hands on what was written; whether somebody still reads.
    fn flush(&mut self) -> Result<bool> {
        still_read(self.out.flush())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        if let Some((file, path)) = self.file {
            file.as_file().sync_all()?;
            file.persist(&path)
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Who closes the pipe has read enough.
fn still_read(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
