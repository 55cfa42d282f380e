//! What is held, and what is wanted: bounded, whoever asks for how many names.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::secret::{Secret, SecretFault, SecretState};
use crate::talk::NAME_BYTES;

/// Names held.
const NAMES: usize = 10_000;
/// How many make room at once when there is none.
const MAKE_ROOM: usize = NAMES / 16;
/// How long a secret is kept up to date that nobody uses, …
const UNUSED: Duration = Duration::from_secs(10 * 60);
/// … and that there is none is remembered.
const UNUSED_ABSENCE: Duration = Duration::from_secs(60);

/// Secrets by name.
#[derive(Default)]
pub(super) struct Cache {
    slots: HashMap<Arc<str>, Slot>,
    /// Names that the server is to be told something about.
    moved: Vec<Arc<str>>,
    /// No secret runs out before.
    next_expiry: Option<Instant>,
}

struct Slot {
    states: watch::Sender<SecretState>,
    /// The version that the server was last heard of.
    version: Option<Arc<str>>,
    expires: Option<Instant>,
    used: Instant,
}

impl Slot {
    fn is_unused(&self) -> bool {
        self.states.receiver_count() == 0
    }

    fn is_present(&self) -> bool {
        matches!(*self.states.borrow(), SecretState::Present(_))
    }

    fn withdraw(&mut self) {
        self.expires = None;
        self.states.send_replace(SecretState::Absent);
    }
}

impl Cache {
    /// How it stands with a name, and whether it was not wanted before.
    pub(super) fn subscribe(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Result<(watch::Receiver<SecretState>, bool), SecretFault> {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.used = now;
            return Ok((slot.states.subscribe(), false));
        }
        if name.is_empty() || name.len() > NAME_BYTES || name == "*" {
            return Err(SecretFault::Name);
        }
        if self.slots.len() >= NAMES {
            self.make_room()?;
        }
        let (states, receiver) = watch::channel(SecretState::Waiting);
        let slot = Slot {
            states,
            version: None,
            expires: None,
            used: now,
        };
        let name: Arc<str> = name.into();
        self.slots.insert(Arc::clone(&name), slot);
        self.moved.push(name);
        Ok((receiver, true))
    }

    /// Names that do not exist go first: whoever asks for many of them pushes out none that does.
    fn make_room(&mut self) -> Result<(), SecretFault> {
        let mut unused: Vec<(bool, Instant, Arc<str>)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.is_unused())
            .map(|(name, slot)| (slot.is_present(), slot.used, Arc::clone(name)))
            .collect();
        if unused.is_empty() {
            return Err(SecretFault::TooMany);
        }
        unused.sort_unstable();
        for (_, _, name) in unused.into_iter().take(MAKE_ROOM) {
            self.forget(name);
        }
        Ok(())
    }

    fn forget(&mut self, name: Arc<str>) {
        self.slots.remove(&name);
        self.moved.push(name);
    }

    /// Forgets what was not used for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        let idle: Vec<Arc<str>> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                let kept = match slot.is_present() {
                    true => UNUSED,
                    false => UNUSED_ABSENCE,
                };
                slot.is_unused() && now.saturating_duration_since(slot.used) >= kept
            })
            .map(|(name, _)| Arc::clone(name))
            .collect();
        idle.into_iter().for_each(|name| self.forget(name));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn is_wanted(&self, name: &str) -> bool {
        self.slots.contains_key(name)
    }

    /// What the server is to be told about since the last call.
    pub(super) fn moved(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.moved)
    }

    /// All that is wanted.
    pub(super) fn wanted(&self) -> Vec<Arc<str>> {
        self.slots.keys().map(Arc::clone).collect()
    }

    /// Those that the server has said nothing of.
    pub(super) fn waiting(&self) -> Vec<Arc<str>> {
        self.slots
            .iter()
            .filter(|(_, slot)| matches!(*slot.states.borrow(), SecretState::Waiting))
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// The server has given this; `None`: it gave an empty one, which takes it back.
    pub(super) fn given(
        &mut self,
        name: &str,
        version: Arc<str>,
        secret: Option<Secret>,
        expires: Option<Instant>,
    ) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.version = Some(version);
        match secret {
            Some(secret) => {
                slot.expires = expires;
                slot.states
                    .send_replace(SecretState::Present(Arc::new(secret)));
                self.next_expiry = earlier(self.next_expiry, expires);
            }
            None => slot.withdraw(),
        }
    }

    /// The server lets what it gave in this version be used for longer.
    pub(super) fn prolonged(&mut self, name: &str, version: &str, expires: Option<Instant>) {
        if let Some(slot) = self.slots.get_mut(name)
            && slot.version.as_deref() == Some(version)
        {
            slot.expires = expires;
            self.next_expiry = earlier(self.next_expiry, expires);
        }
    }

    /// There is none.
    pub(super) fn absent(&mut self, name: &str) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.version = None;
            slot.withdraw();
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Withdraws what has run out; the server is asked for it again.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        self.next_expiry = None;
        for (name, slot) in &mut self.slots {
            match slot.expires {
                Some(at) if at <= now => {
                    slot.version = None;
                    slot.withdraw();
                    self.moved.push(Arc::clone(name));
                }
                later => self.next_expiry = earlier(self.next_expiry, later),
            }
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SecretValue;

    fn secret(name: &str) -> Option<Secret> {
        Some(Secret {
            name: name.into(),
            version: "1".into(),
            value: SecretValue::Generic(b"s".to_vec().into()),
        })
    }

    fn full(now: Instant) -> Cache {
        let mut cache = Cache::default();
        for n in 0..NAMES {
            cache.subscribe(&n.to_string(), now).unwrap();
        }
        cache
    }

    #[test]
    fn names_that_do_not_exist_make_room_before_one_that_does() {
        let now = Instant::now();
        let mut cache = full(now);
        cache.given("0", "1".into(), secret("0"), None);
        for n in 0..3 * NAMES {
            let later = now + Duration::from_millis(1);
            cache.subscribe(&format!("junk {n}"), later).unwrap();
        }
        assert!(cache.is_wanted("0"));
        assert!(cache.slots.len() <= NAMES);
    }

    #[test]
    fn what_is_in_use_makes_no_room() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let held: Vec<_> = (0..NAMES)
            .map(|n| cache.subscribe(&n.to_string(), now).unwrap())
            .collect();
        assert!(matches!(
            cache.subscribe("more", now),
            Err(SecretFault::TooMany)
        ));
        drop(held);
        assert!(cache.subscribe("more", now).is_ok());
    }

    #[test]
    fn what_nobody_uses_is_forgotten_and_the_server_hears_of_it() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let (_held, _) = cache.subscribe("held", now).unwrap();
        for name in ["idle", "nothing"] {
            cache.subscribe(name, now).unwrap();
        }
        cache.given("idle", "1".into(), secret("idle"), None);
        cache.absent("nothing");
        cache.moved();
        cache.sweep(now + UNUSED_ABSENCE);
        assert_eq!(cache.moved(), ["nothing".into()]);
        cache.sweep(now + UNUSED);
        assert_eq!(cache.moved(), ["idle".into()]);
        assert!(cache.is_wanted("held"));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let mut cache = Cache::default();
        for name in ["", "*", &"x".repeat(NAME_BYTES + 1)] {
            let refused = cache.subscribe(name, Instant::now());
            assert!(matches!(refused, Err(SecretFault::Name)), "{name}");
        }
    }

    #[test]
    fn a_secret_runs_out_unless_it_is_prolonged() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut cache = Cache::default();
        let (states, _) = cache.subscribe("a", now).unwrap();
        cache.given("a", "1".into(), secret("a"), Some(now + second));
        cache.prolonged("a", "another", Some(now + 9 * second));
        cache.prolonged("a", "1", Some(now + 2 * second));
        cache.expire(now + second);
        assert!(matches!(*states.borrow(), SecretState::Present(_)));
        cache.moved();
        cache.expire(now + 2 * second);
        assert!(matches!(*states.borrow(), SecretState::Absent));
        assert_eq!(cache.moved(), ["a".into()], "and is asked for again");
    }
}
