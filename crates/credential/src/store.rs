//! The credential store: which value of each credential is current. A lease takes no lock. A credential whose source
//! lost its value is not leased any more, whatever it was before: it fails closed. So is one that a server told, when
//! that server was not heard of for too long.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use outgate_journey::{
    inject::{CredentialFault, Credentials},
    policy::{CredentialName, CredentialSource, InjectionForm, SdsSource},
};

use crate::{
    attach::fits,
    source::{self, Reading, SourceCode, SourceProblem},
    told::{Expiry, Told},
    values::Values,
    version::CredentialVersion,
};

/// The current value of every configured credential.
pub struct CredentialStore {
    entries: ArcSwap<Entries>,
    /// Serialises writers, so that a refresh and a reload cannot undo each other.
    writer: Mutex<()>,
    next_version: AtomicU64,
    observers: RwLock<Vec<Observer>>,
}

/// Is told what changed.
type Observer = Box<dyn Fn(&[Change]) + Send + Sync>;

type Entries = HashMap<CredentialName, Entry>;

#[derive(Clone)]
struct Entry {
    source: CredentialSource,
    forms: Arc<[InjectionForm]>,
    current: Current,
    /// What it had last, though it be lost.
    values: Option<Values>,
    /// When a value that was told is too old.
    expiry: Option<Expiry>,
}

type Current = Result<Arc<CredentialVersion>, SourceProblem>;

/// What happened to one credential while the configuration stayed the same.
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
            observers: RwLock::default(),
        };
        let problems = store.reconfigure(wanted, forms);
        (store, problems)
    }

    /// Has an observer shown every later change of a value: what [`Self::refresh`] finds and what [`Self::tell`] brings.
    /// It is called before either returns, when leases are as it is told, and must not call back into those.
    pub fn on_change(&self, observer: impl Fn(&[Change]) + Send + Sync + 'static) {
        let mut observers = self
            .observers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        observers.push(Box::new(observer));
    }

    /// Takes a reloaded configuration over. A credential whose value did not change keeps its version, and one that a
    /// server told keeps its value for as long as server and name stay the same.
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
            let entry = self.read_entry(name, source, used, old.get(name), &mut problems);
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
            let forms = Arc::clone(&entry.forms);
            let read = self.read_entry(name, &entry.source, forms, Some(entry), &mut Vec::new());
            changes.extend(change(name, &entry.current, &read.current));
            entries.insert(name.clone(), read);
        }
        self.entries.store(Arc::new(entries));
        changes.sort_by(|left, right| left.name.cmp(&right.name));
        self.show(&changes);
        changes
    }

    /// Takes over what a server said of a credential; gives back what that changed, and what is worth a warning. Nothing
    /// happens where the configuration has another source for it by now.
    pub fn tell(
        &self,
        name: &CredentialName,
        source: &SdsSource,
        told: Told,
    ) -> (Option<Change>, Vec<SourceProblem>) {
        let _one_writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.entries.load_full();
        let Some(entry) = old.get(name) else {
            return (None, Vec::new());
        };
        if !matches!(&entry.source, CredentialSource::Sds(own) if own == source) {
            return (None, Vec::new());
        }
        let (reading, expiry) = match told {
            Told::Value { value, contact } => (
                source::judge(value, false),
                Some(Expiry::new(contact, source)),
            ),
            Told::Nothing(code) => (Err(code), None),
        };
        let mut problems = Vec::new();
        let forms = Arc::clone(&entry.forms);
        let current = self.take(
            name,
            &entry.source,
            reading,
            &forms,
            Some(entry),
            &mut problems,
        );
        let change = change(name, &entry.current, &current);
        if change.is_none() && entry.current.as_ref().err() == current.as_ref().err() {
            problems.clear();
        }
        let mut entries = Entries::clone(&old);
        entries.insert(
            name.clone(),
            Entry {
                source: entry.source.clone(),
                forms,
                values: last_values(&current, Some(entry)),
                current,
                expiry,
            },
        );
        self.entries.store(Arc::new(entries));
        self.show(change.as_slice());
        (change, problems)
    }

    /// Whether a credential of this name is wanted, with a value or without one.
    #[must_use]
    pub fn knows(&self, name: &CredentialName) -> bool {
        self.entries.load().contains_key(name)
    }

    /// The credentials that a server has to tell.
    #[must_use]
    pub fn told_by_servers(&self) -> BTreeMap<CredentialName, SdsSource> {
        let entries = self.entries.load();
        let told = entries
            .iter()
            .filter_map(|(name, entry)| match &entry.source {
                CredentialSource::Sds(source) => Some((name.clone(), source.clone())),
                CredentialSource::Env(_) | CredentialSource::File(_) => None,
            });
        told.collect()
    }

    /// The files that credentials come from. Watch their folders: a rename or a swapped link replaces the file.
    #[must_use]
    pub fn watched_files(&self) -> Vec<PathBuf> {
        let entries = self.entries.load();
        let mut files: Vec<PathBuf> = entries
            .values()
            .filter_map(|entry| match &entry.source {
                CredentialSource::File(path) => Some(path.clone()),
                CredentialSource::Env(_) | CredentialSource::Sds(_) => None,
            })
            .collect();
        files.sort();
        files.dedup();
        files
    }

    fn show(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let observers = self
            .observers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        observers.iter().for_each(|observer| observer(changes));
    }

    fn read_entry(
        &self,
        name: &CredentialName,
        source: &CredentialSource,
        forms: Arc<[InjectionForm]>,
        before: Option<&Entry>,
        problems: &mut Vec<SourceProblem>,
    ) -> Entry {
        let (reading, expiry) = match source {
            CredentialSource::Sds(sds) => told_before(sds, before),
            CredentialSource::Env(_) | CredentialSource::File(_) => (source::read(source), None),
        };
        let current = self.take(name, source, reading, &forms, before, problems);
        Entry {
            source: source.clone(),
            forms,
            values: last_values(&current, before),
            current,
            expiry,
        }
    }

    /// Makes a version of what was read; the one from before, where nothing is different.
    fn take(
        &self,
        name: &CredentialName,
        source: &CredentialSource,
        reading: Result<Reading, SourceCode>,
        forms: &Arc<[InjectionForm]>,
        before: Option<&Entry>,
        problems: &mut Vec<SourceProblem>,
    ) -> Current {
        let problem = |code| SourceProblem::new(name, code, source);
        let current = reading.map_err(problem).map(|reading| {
            problems.extend(reading.warnings.into_iter().map(problem));
            if !forms.iter().all(|form| fits(form, reading.secret.expose())) {
                problems.push(problem(SourceCode::Unfit));
            }
            let last = before.and_then(|entry| entry.values.as_ref());
            let before = before.and_then(|entry| Some((entry, entry.current.as_ref().ok()?)));
            let same =
                before.filter(|(_, version)| version.secret().expose() == reading.secret.expose());
            if let Some((entry, version)) = same
                && *entry.forms == **forms
            {
                return Arc::clone(version);
            }
            let number = same.map_or_else(
                || self.next_version.fetch_add(1, Ordering::Relaxed),
                |(_, version)| version.version(),
            );
            Arc::new(CredentialVersion::new(
                name.clone(),
                number,
                Values::after(last, reading.secret),
                forms,
            ))
        });
        problems.extend(current.as_ref().err().cloned());
        current
    }
}

/// What a server told of a secret before, which stays what is known of it.
fn told_before(
    source: &SdsSource,
    before: Option<&Entry>,
) -> (Result<Reading, SourceCode>, Option<Expiry>) {
    let same = before.filter(|entry| {
        matches!(&entry.source, CredentialSource::Sds(own)
            if own.name == source.name && own.address == source.address)
    });
    let Some(entry) = same else {
        return (Err(SourceCode::Unheard), None);
    };
    let reading = match &entry.current {
        Ok(version) => Ok(Reading {
            secret: version.secret().duplicate(),
            warnings: Vec::new(),
        }),
        Err(problem) => Err(problem.code),
    };
    (
        reading,
        entry.expiry.as_ref().map(|expiry| expiry.by(source)),
    )
}

/// What a credential had last: what it has, or had before it was lost.
fn last_values(current: &Current, before: Option<&Entry>) -> Option<Values> {
    current.as_ref().map_or_else(
        |_| before.and_then(|entry| entry.values.clone()),
        |version| Some(version.values().clone()),
    )
}

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
        if entry.expiry.as_ref().is_some_and(Expiry::is_over) {
            let stale = SourceProblem::new(name, SourceCode::Stale, &entry.source);
            return Err(CredentialFault::Missing(stale.to_string()));
        }
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
