//! Who may keep a connection. There is always room for one more caller: when all seats are taken, the one that is given
//! up is the oldest of those that have said nothing, then the oldest of those that have not said who they are, then the
//! oldest of those that are idle. A connection whose call is being carried out is never given up, and one lane bounds
//! how many of those there are. So thousands of connections that say nothing, or that begin a handshake and leave it,
//! cannot keep the one out that has come to pull the switch: it is done long before it is the oldest.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// How long a connection may take to say who it is.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// How long it may idle afterwards, or take to read its answer.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// What is known of a connection, from the least that is worth to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Standing {
    /// Nothing: not a byte came of it.
    Silent = 0,
    /// Not who it is.
    Speaking = 1,
    /// Who it is; nothing is being done for it.
    Known = 2,
    /// Its call is being carried out.
    Busy = 3,
}

#[derive(Debug)]
struct State {
    standing: AtomicU8,
    /// When the standing last changed, in milliseconds on the monotonic clock.
    since: AtomicU64,
    given_up: CancellationToken,
}

impl State {
    fn is(&self, standing: Standing) -> bool {
        self.standing.load(Ordering::Relaxed) == standing as u8
    }
}

#[derive(Debug)]
struct Entry {
    network: Option<IpAddr>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// The oldest first.
    seats: BTreeMap<u64, Entry>,
    by_network: HashMap<IpAddr, usize>,
}

/// The seats of one door.
#[derive(Debug)]
pub(crate) struct Seats {
    table: Mutex<Table>,
    most: usize,
    most_per_network: usize,
}

impl Seats {
    pub(crate) fn new(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            most,
            most_per_network,
        })
    }

    /// Seats a connection, at another's expense where all seats are taken. `None`: everybody is being served.
    pub(crate) fn take(self: &Arc<Self>, from: Option<IpAddr>, now: Duration) -> Option<Seat> {
        let network = from.map(network);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = network
            && table.by_network.get(&network).copied().unwrap_or(0) >= self.most_per_network
        {
            table.give_up(|entry| entry.network == Some(network))?;
        }
        if table.seats.len() >= self.most {
            table.give_up(|_| true)?;
        }
        let state = Arc::new(State {
            standing: AtomicU8::new(Standing::Silent as u8),
            since: AtomicU64::new(millis(now)),
            given_up: CancellationToken::new(),
        });
        let number = table.next;
        table.next += 1;
        let entry = Entry {
            network,
            state: Arc::clone(&state),
        };
        table.seats.insert(number, entry);
        if let Some(network) = network {
            *table.by_network.entry(network).or_default() += 1;
        }
        drop(table);
        Some(Seat {
            seats: Arc::clone(self),
            number,
            state,
        })
    }

    /// Gives up the seats of those that take too long: to say who they are, or to read what they were answered.
    pub(crate) fn sweep(&self, now: Duration) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let overdue = |state: &State| {
            let since = Duration::from_millis(state.since.load(Ordering::Relaxed));
            let patience = if state.is(Standing::Known) {
                IDLE_FOR
            } else {
                FRESH_FOR
            };
            !state.is(Standing::Busy) && now.saturating_sub(since) > patience
        };
        let numbers: Vec<u64> = table
            .seats
            .iter()
            .filter(|(_, entry)| overdue(&entry.state))
            .map(|(number, _)| *number)
            .collect();
        numbers.into_iter().for_each(|number| table.vacate(number));
    }

    #[cfg(test)]
    fn taken(&self) -> usize {
        self.table.lock().unwrap().seats.len()
    }
}

impl Table {
    /// Gives up the seat that is worth the least of those that qualify.
    fn give_up(&mut self, qualifies: impl Fn(&Entry) -> bool) -> Option<()> {
        let oldest = |standing| {
            self.seats
                .iter()
                .find(|(_, entry)| entry.state.is(standing) && qualifies(entry))
                .map(|(number, _)| *number)
        };
        let number = oldest(Standing::Silent)
            .or_else(|| oldest(Standing::Speaking))
            .or_else(|| oldest(Standing::Known))?;
        self.vacate(number);
        Some(())
    }

    fn vacate(&mut self, number: u64) {
        let Some(entry) = self.seats.remove(&number) else {
            return;
        };
        entry.state.given_up.cancel();
        if let Some(network) = entry.network
            && let Some(count) = self.by_network.get_mut(&network)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

/// A connection's seat, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    state: Arc<State>,
}

impl Seat {
    /// Says what is known of the connection.
    pub(crate) fn set(&self, standing: Standing, now: Duration) {
        self.state.since.store(millis(now), Ordering::Relaxed);
        self.state.standing.store(standing as u8, Ordering::Relaxed);
    }

    /// Ends when the seat was given up.
    pub(crate) async fn given_up(&self) {
        self.state.given_up.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self
            .seats
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        table.vacate(self.number);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What counts as one caller: the /24 of an IPv4 address, or the /64 that one IPv6 subscriber has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4([a, b, c, 0].into())
        }
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(prefix.into())
        }
    }
}

#[cfg(test)]
mod tests;
