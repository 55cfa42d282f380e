//! The end in order: clients are asked to leave, what is open may finish, then Envoy is told to go, then made to.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::sync::mpsc;

use super::{
    Order,
    admin::Admin,
    process::{Handle, Happening, Process},
};

const OFTEN: Duration = Duration::from_millis(100);
/// How long Envoy may take to end once it was told to.
const LAST: Duration = Duration::from_secs(2);

/// Ends it; says whether something that was open was cut.
pub(super) async fn stop(
    process: &mut Process,
    admin: Option<Admin>,
    grace: Duration,
    orders: &mut mpsc::Receiver<Order>,
    line: &mut dyn FnMut(&str),
) -> bool {
    let handle = process.handle();
    let cut = Cell::new(false);
    let mut may_order = true;
    let mut ending = std::pin::pin!(end(admin, handle.clone(), grace, &cut));
    let killed = loop {
        tokio::select! {
            happening = process.next() => match happening {
                Happening::Line(text) => line(&text),
                Happening::Ended(_) => break false,
            },
            // A second order does not wait; that nobody can order any more is none.
            order = orders.recv(), if may_order => match order {
                Some(_) => break true,
                None => may_order = false,
            },
            () = &mut ending => break true,
        }
    };
    if killed {
        handle.signal(Signal::KILL);
        while !matches!(process.next().await, Happening::Ended(_)) {}
    }
    cut.get() || killed
}

/// Comes back when Envoy should be gone.
async fn end(admin: Option<Admin>, handle: Handle, grace: Duration, cut: &Cell<bool>) {
    let told = match admin {
        Some(admin) => {
            cut.set(!drained(&admin, grace).await);
            admin.quit().await.is_ok()
        }
        // It does not serve: nothing is open.
        None => false,
    };
    if !told {
        handle.signal(Signal::TERM);
    }
    tokio::time::sleep(LAST).await;
}

async fn drained(admin: &Admin, grace: Duration) -> bool {
    let until = Instant::now() + grace;
    let _ = admin.drain().await;
    loop {
        match admin.open().await {
            Ok(0) => return true,
            _ if Instant::now() >= until => return false,
            _ => tokio::time::sleep(OFTEN).await,
        }
    }
}
