//! The credential store: which value of each credential is current. A lease takes no lock. A credential whose source
//! lost its value is not leased any more, whatever it was before: it fails closed.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use outgate_journey::{
    inject::{CredentialFault, Credentials},
    policy::{CredentialName, CredentialSource, InjectionForm},
};

use crate::{
    attach::fits,
    source::{self, SourceCode, SourceProblem},
    version::CredentialVersion,
};

/// The current value of every configured credential.
pub struct CredentialStore {
    entries: ArcSwap<Entries>,
    /// Serialises writers, so that a refresh and a reload cannot undo each other.
    writer: Mutex<()>,
    next_version: AtomicU64,
}

type Entries = HashMap<CredentialName, Entry>;

#[derive(Clone)]
struct Entry {
    source: CredentialSource,
    forms: Arc<[InjectionForm]>,
    current: Result<Arc<CredentialVersion>, SourceProblem>,
}

/// What a refresh found for one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which credential.
    pub name: CredentialName,
    /// What happened.
    pub kind: ChangeKind,
}

/// How a credential changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It has another value, of this version.
    Rotated(u64),
    /// It has a value again, of this version.
    Restored(u64),
    /// It has no value any more; nothing is injected.
    Lost(SourceProblem),
}

impl CredentialStore {
    /// Reads every wanted credential. One that cannot be read is reported and leases an error. `forms` says how each
    /// is used (one pair for each use): the scrubber also knows the combined values of these forms.
    #[must_use]
    pub fn open(
        wanted: &BTreeMap<CredentialName, CredentialSource>,
        forms: &[(CredentialName, InjectionForm)],
    ) -> (Self, Vec<SourceProblem>) {
        let store = Self {
            entries: ArcSwap::default(),
            writer: Mutex::new(()),
            next_version: AtomicU64::new(1),
        };
        let problems = store.reconfigure(wanted, forms);
        (store, problems)
    }

    /// Takes a reloaded configuration over. A credential whose value did not change keeps its version.
    pub fn reconfigure(
        &self,
        wanted: &BTreeMap<CredentialName, CredentialSource>,
        forms: &[(CredentialName, InjectionForm)],
    ) -> Vec<SourceProblem> {
        let _one_writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.entries.load_full();
        let mut problems = Vec::new();
        let mut entries = Entries::with_capacity(wanted.len());
        for (name, source) in wanted {
            let used = forms
                .iter()
                .filter(|(user, _)| user == name)
                .map(|(_, form)| form.clone())
                .collect();
            let before = old
                .get(name)
                .and_then(|entry| Some((&entry.forms, entry.current.as_ref().ok()?)));
            let entry = self.read_entry(name, source, used, before, &mut problems);
            entries.insert(name.clone(), entry);
        }
        self.entries.store(Arc::new(entries));
        problems
    }

    /// Reads every source again. An unchanged value keeps its version and its `Arc`; a source that vanished or is
    /// empty takes the credential away. Reads files: not for a thread that serves requests.
    pub fn refresh(&self) -> Vec<Change> {
        let _one_writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.entries.load_full();
        let mut changes = Vec::new();
        let mut entries = Entries::with_capacity(old.len());
        for (name, entry) in old.iter() {
            let before = entry
                .current
                .as_ref()
                .ok()
                .map(|version| (&entry.forms, version));
            let read = self.read_entry(
                name,
                &entry.source,
                Arc::clone(&entry.forms),
                before,
                &mut Vec::new(),
            );
            changes.extend(change(name, &entry.current, &read.current));
            entries.insert(name.clone(), read);
        }
        self.entries.store(Arc::new(entries));
        changes.sort_by(|left, right| left.name.cmp(&right.name));
        changes
    }

    /// The files that credentials come from. Watch their folders: a rename or a swapped link replaces the file.
    #[must_use]
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let entries = self.entries.load();
        let mut files: Vec<PathBuf> = entries
            .values()
            .filter_map(|entry| match &entry.source {
                CredentialSource::File(path) => Some(path.clone()),
                CredentialSource::Env(_) => None,
            })
            .collect();
        files.sort();
        files.dedup();
        files
    }

    fn read_entry(
        &self,
        name: &CredentialName,
        source: &CredentialSource,
        forms: Arc<[InjectionForm]>,
        before: Option<(&Arc<[InjectionForm]>, &Arc<CredentialVersion>)>,
        problems: &mut Vec<SourceProblem>,
    ) -> Entry {
        let problem = |code| SourceProblem::new(name, code, source);
        let current = source::read(source).map_err(problem).map(|reading| {
            problems.extend(reading.warnings.into_iter().map(problem));
            if !forms.iter().all(|form| fits(form, reading.secret.expose())) {
                problems.push(problem(SourceCode::Unfit));
            }
            let same =
                before.filter(|(_, version)| version.secret().expose() == reading.secret.expose());
            if let Some((known, version)) = same
                && **known == *forms
            {
                return Arc::clone(version);
            }
            let number = same.map_or_else(
                || self.next_version.fetch_add(1, Ordering::Relaxed),
                |(_, v)| v.version(),
            );
            Arc::new(CredentialVersion::new(
                name.clone(),
                number,
                reading.secret,
                &forms,
            ))
        });
        problems.extend(current.as_ref().err().cloned());
        Entry {
            source: source.clone(),
            forms,
            current,
        }
    }
}

type Current = Result<Arc<CredentialVersion>, SourceProblem>;

fn change(name: &CredentialName, old: &Current, new: &Current) -> Option<Change> {
    let kind = match (old, new) {
        (Ok(old), Ok(new)) if Arc::ptr_eq(old, new) => return None,
        (Ok(_), Ok(new)) => ChangeKind::Rotated(new.version()),
        (Err(_), Ok(new)) => ChangeKind::Restored(new.version()),
        (Ok(_), Err(problem)) => ChangeKind::Lost(problem.clone()),
        (Err(_), Err(_)) => return None,
    };
    Some(Change {
        name: name.clone(),
        kind,
    })
}

impl Credentials for CredentialStore {
    type Lease = Arc<CredentialVersion>;

    fn lease(&self, name: &CredentialName) -> Result<Self::Lease, CredentialFault> {
        let entries = self.entries.load();
        let entry = entries
            .get(name)
            .ok_or_else(|| CredentialFault::Missing(format!("{name} is not configured")))?;
        entry
            .current
            .clone()
            .map_err(|problem| CredentialFault::Missing(problem.to_string()))
    }
}

impl std::fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialStore")
            .field("credentials", &self.entries.load().len())
            .finish_non_exhaustive()
    }
}
