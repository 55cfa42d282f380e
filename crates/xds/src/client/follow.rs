//! Stays connected: connects when something is wanted, again when the connection is lost, and not too eagerly.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::Code;

use super::{
    Protocol, Shared, address::Address, delta::Delta, link, link::Link, stream::run, world::World,
};
use crate::random;

/// The first wait before connecting again; it doubles from there, …
const BACK_OFF: Duration = Duration::from_millis(100);
/// … to this.
const MOST: Duration = Duration::from_secs(5);
/// A stream that lasted this long was no failure, however it ended.
const GOOD: Duration = Duration::from_secs(5);
/// How often what nobody uses is looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// How a stream ended.
pub(super) enum Ended {
    /// The target is another one.
    Elsewhere,
    /// The server does not speak this protocol.
    Unimplemented,
    Problem(String),
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            Code::Unimplemented => Self::Unimplemented,
            code => Self::Problem(format!("{code}: {}", status.message())),
        }
    }
}

pub(super) async fn follow(shared: Arc<Shared>) {
    let keep = keep_house(&shared);
    let stay = stay_connected(&shared);
    tokio::join!(keep, stay);
}

/// What time brings, whether the server is there or not.
async fn keep_house(shared: &Shared) {
    let mut swept = Instant::now();
    loop {
        let next = {
            let mut cache = shared.cache();
            let now = Instant::now();
            cache.expire(now.into());
            if now >= swept + SWEEP {
                swept = now;
                cache.sweep(now.into());
            }
            cache.next_expiry()
        };
        shared.wanted.notify_one();
        let tick = Instant::now() + Duration::from_secs(1);
        let until = next.map_or(tick, |at| Instant::from(at).min(tick));
        tokio::time::sleep_until(until).await;
    }
}

async fn stay_connected(shared: &Shared) {
    let mut failures = 0_u32;
    let mut target = shared.target.subscribe();
    loop {
        while shared.cache().is_empty() {
            shared.wanted.notified().await;
        }
        let address = Arc::clone(&target.borrow_and_update());
        let began = Instant::now();
        let ended = tokio::select! {
            ended = once(shared, &address) => ended,
            _ = target.changed() => Ended::Elsewhere,
        };
        let problem = match ended {
            Ended::Elsewhere => {
                failures = 0;
                shared.disconnected("it is another server".to_owned(), Duration::ZERO);
                continue;
            }
            Ended::Unimplemented => "it does not serve secrets this way".to_owned(),
            Ended::Problem(problem) => problem,
        };
        if began.elapsed() >= GOOD {
            failures = 0;
        }
        tracing::warn!(%problem, "the server of secrets is not connected");
        shared.disconnected(problem, link::SILENCE);
        let wait = back_off(failures);
        failures = failures.saturating_add(1);
        tokio::select! {
            () = sleep(wait) => {}
            _ = target.changed() => {}
        }
    }
}

async fn once(shared: &Shared, address: &Address) -> Ended {
    let link = match Link::open(address).await {
        Ok(link) => link,
        Err(problem) => return Ended::Problem(problem),
    };
    let origin = || address.origin.clone();
    let ended = match shared.protocol {
        Protocol::StateOfTheWorld => run::<World>(shared, link.clone(), origin()).await,
        Protocol::Delta => run::<Delta>(shared, link.clone(), origin()).await,
        Protocol::Auto => match run::<Delta>(shared, link.clone(), origin()).await {
            Ended::Unimplemented => run::<World>(shared, link.clone(), origin()).await,
            ended => ended,
        },
    };
    match ended {
        Ended::Problem(problem) => Ended::Problem(link.broken().await.unwrap_or(problem)),
        ended => ended,
    }
}

/// Doubles with each failure, up to a bound; between a half and the whole of it, so that those who lost the same server
/// do not come back at once.
fn back_off(failures: u32) -> Duration {
    let wait = BACK_OFF.saturating_mul(1 << failures.min(10)).min(MOST);
    wait.mul_f64(0.5 + random() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_from_a_tenth_of_a_second_to_five() {
        for failures in 0..100 {
            let wait = back_off(failures);
            assert!(wait <= MOST);
            assert!(failures > 0 || wait <= BACK_OFF, "{wait:?}");
            assert!(failures < 6 || wait >= MOST / 2, "{failures}: {wait:?}");
        }
    }
}
