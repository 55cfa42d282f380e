//! Drives a gateway that runs on one thread, part by part, and counts what that thread does: allocations by itself,
//! instructions where `valgrind --tool=callgrind --dump-after='*counted*'` looks on. Clients and upstreams are on another
//! thread and not counted; neither is the writing of the audit trail.
//!
//! Prints a line a part: its name, how many requests, how many allocations they took.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a tool for developers: what it cannot do ends it"
)]

mod gateway;
mod others;

use std::{future::Future, pin::Pin};

use tokio::runtime::{Builder, Runtime};

use crate::{
    gateway::Running,
    others::{Others, Part},
};

/// Enough that what happens once in a while does not move the mean.
const REQUESTS: u32 = 50;
/// Until every cache knows what it needs and every buffer has its size.
const WARM_UP: u32 = 5;

fn main() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let others = Others::start();
    let gateway = runtime.block_on(Running::start(&others.upstreams));
    for part in Part::ALL {
        runtime.block_on(others.send(&gateway.way, part, WARM_UP));
        let requests = Box::pin(others.send(&gateway.way, part, REQUESTS));
        let taken = allocation_counter::measure(|| counted(&runtime, requests));
        println!("{} {REQUESTS} {}", part.name(), taken.count_total);
    }
    others.stop();
    runtime.block_on(gateway.stop());
}

/// Runs the gateway until its clients have what they asked for. What valgrind counts, by this name.
#[inline(never)]
fn counted(runtime: &Runtime, requests: Pin<Box<dyn Future<Output = ()> + '_>>) {
    runtime.block_on(requests);
}
