//! Runs a connection on the task of whoever waits for what it brings.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use tokio::task::coop::{has_budget_remaining, unconstrained};
use tokio_util::sync::CancellationToken;

use super::super::{note_end, run};

/// Turns of one poll; then the task's other work has its own.
const MOST_TURNS: usize = 16;

pub(super) type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

pub(super) struct Driver {
    /// `None`: it has ended, or has a task of its own.
    connection: Option<Connection>,
    killing: CancellationToken,
    turns: Arc<Turns>,
    waker: Waker,
}

impl Driver {
    pub(super) fn new(connection: Connection, killing: CancellationToken) -> Self {
        let turns = Arc::<Turns>::default();
        Self {
            connection: Some(connection),
            killing,
            waker: Arc::clone(&turns).into(),
            turns,
        }
    }

    /// Polls what only the connection brings. Whoever is given something asks again.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut what: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.connection.is_none() {
            return what(cx);
        }
        // Nothing comes but by the connection, and that is driven here.
        let mut untold = Context::from_waker(Waker::noop());
        let _own = Own::of(&self.turns);
        if let ready @ Poll::Ready(_) = what(&mut untold) {
            return ready;
        }
        self.turns.task.register(cx.waker());
        for _ in 0..MOST_TURNS {
            self.turns.again.store(false, Ordering::Relaxed);
            self.drive();
            if !has_budget_remaining() {
                // An upstream that talks without end would leave no turn to who waits for it, and to their timers.
                self.give_a_task();
            }
            if self.connection.is_none() {
                return what(cx);
            }
            if let ready @ Poll::Ready(_) = what(&mut untold) {
                return ready;
            }
            if !self.turns.again.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Drives the connection for nobody. A task that has used its turn up would be told that nothing came, and take a
    /// connection for alive that has ended.
    pub(super) fn look(&mut self) {
        let _own = Own::of(&self.turns);
        self.turns.task.take();
        let drive = pin!(unconstrained(poll_fn(|_| {
            self.drive();
            Poll::Ready(())
        })));
        let _always_ready = drive.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Lets what is not over go on for nobody in particular.
    pub(super) fn give_a_task(&mut self) {
        if let Some(connection) = self.connection.take() {
            run(self.killing.clone(), connection);
        }
    }

    fn drive(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if let Poll::Ready(result) = connection
            .as_mut()
            .poll(&mut Context::from_waker(&self.waker))
        {
            self.connection = None;
            note_end(result);
        }
    }
}

/// Wakes the task that drives a connection, but not while it does: two ends of one channel on one task would ask for a
/// turn each time that one of them moves, and another processor would take it.
#[derive(Default)]
struct Turns {
    task: AtomicWaker,
    again: AtomicBool,
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if DRIVEN.get() == Arc::as_ptr(self).addr() {
            self.again.store(true, Ordering::Relaxed);
        } else {
            self.task.wake();
        }
    }
}

thread_local! {
    /// The turns of which connection this thread drives at this moment; 0 is none.
    static DRIVEN: Cell<usize> = const { Cell::new(0) };
}

/// While this lives, this thread drives the connection.
struct Own {
    before: usize,
}

impl Own {
    fn of(turns: &Arc<Turns>) -> Self {
        Self {
            before: DRIVEN.replace(Arc::as_ptr(turns).addr()),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        DRIVEN.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Woken {
        /// Counts how often its waker is used.
        fn new() -> (Arc<Self>, Waker) {
            let woken = Arc::<Self>::default();
            (Arc::clone(&woken), woken.into())
        }

        fn times(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// A connection that takes a step at each turn and asks for the next one; and how many it took.
    fn restless() -> (Driver, Arc<AtomicUsize>) {
        let steps = Arc::<AtomicUsize>::default();
        let taken = Arc::clone(&steps);
        let connection = poll_fn(move |cx| {
            taken.fetch_add(1, Ordering::SeqCst);
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        let driver = Driver::new(Box::pin(connection), CancellationToken::new());
        (driver, steps)
    }

    #[test]
    fn what_moves_during_a_poll_has_its_turns_at_once_and_wakes_nobody() {
        let (mut driver, steps) = restless();
        let (woken, waker) = Woken::new();
        let mut cx = Context::from_waker(&waker);
        let third = |_: &mut Context<'_>| match steps.load(Ordering::SeqCst) {
            3 => Poll::Ready(()),
            _ => Poll::Pending,
        };
        assert!(driver.poll(&mut cx, third).is_ready());
        assert_eq!(woken.times(), 0);
    }

    #[test]
    fn what_moves_without_end_comes_to_its_end_and_asks_for_another_poll() {
        let (mut driver, steps) = restless();
        let (woken, waker) = Woken::new();
        let mut cx = Context::from_waker(&waker);
        assert!(driver.poll(&mut cx, |_| Poll::<()>::Pending).is_pending());
        assert_eq!(steps.load(Ordering::SeqCst), MOST_TURNS);
        assert_eq!(woken.times(), 1);
    }

    #[test]
    fn what_moves_later_wakes_whoever_waits_and_nobody_where_nobody_does() {
        let kept = Arc::<Mutex<Option<Waker>>>::default();
        let keep = Arc::clone(&kept);
        let connection = poll_fn(move |cx| {
            *keep.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        });
        let mut driver = Driver::new(Box::pin(connection), CancellationToken::new());
        let (woken, waker) = Woken::new();
        let mut cx = Context::from_waker(&waker);
        for times in 1..3 {
            assert!(driver.poll(&mut cx, |_| Poll::<()>::Pending).is_pending());
            kept.lock().unwrap().as_ref().unwrap().wake_by_ref();
            assert_eq!(woken.times(), times);
        }
        driver.look();
        kept.lock().unwrap().as_ref().unwrap().wake_by_ref();
        assert_eq!(woken.times(), 2);
        assert_eq!(Arc::strong_count(&woken), 2, "a task is kept by nobody");
    }

    #[tokio::test]
    async fn what_uses_a_whole_turn_up_has_a_task_of_its_own_from_then_on() {
        let connection = async {
            loop {
                tokio::task::consume_budget().await;
            }
        };
        let killing = CancellationToken::new();
        let mut driver = Driver::new(Box::pin(connection), killing.clone());
        poll_fn(|cx| {
            assert!(driver.poll(cx, |_| Poll::<()>::Pending).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(driver.connection.is_none());
        killing.cancel();
    }

    #[tokio::test]
    async fn who_has_used_a_turn_up_still_sees_that_a_connection_has_ended() {
        let connection = async {
            tokio::task::consume_budget().await;
            Ok(())
        };
        let mut driver = Driver::new(Box::pin(connection), CancellationToken::new());
        poll_fn(|cx| {
            while let Poll::Ready(turn) = tokio::task::coop::poll_proceed(cx) {
                turn.made_progress();
            }
            driver.look();
            assert!(driver.connection.is_none());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_has_ended_leaves_its_words_to_be_read() {
        let connection = async { Ok(()) };
        let mut driver = Driver::new(Box::pin(connection), CancellationToken::new());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(driver.poll(&mut cx, |_| Poll::<()>::Pending).is_pending());
        assert!(driver.connection.is_none());
        assert_eq!(driver.poll(&mut cx, |_| Poll::Ready(1)), Poll::Ready(1));
    }
}
