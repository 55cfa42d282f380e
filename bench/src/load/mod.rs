//! The load generator: reaches an origin by itself, through a proxy's tunnel, or by absolute form.
//!
//! Wall-clock figures of a shared machine are noisy. The figure to compare is the CPU that the watched processes used
//! between two readings, for each request that ended between them.

mod arguments;
mod check;
mod connection;
mod cut;
mod h1;
mod idle;
mod messages;
mod meter;
mod pace;
mod report;
mod requests;
mod streams;
mod tally;
mod target;
mod window;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;

pub(crate) use arguments::Arguments;
use meter::Meter;
use target::Target;

/// What a run prints, and whether it did what was asked.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub text: String,
    pub success: bool,
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(crate) async fn main(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let outcome = run(&arguments).await?;
    println!("{}", outcome.text);
    Ok(if outcome.success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One run, which no peer can make last longer than `--max-secs`.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let longest = arguments.max_secs;
    tokio::time::timeout(Duration::from_secs(longest), work(arguments))
        .await
        .with_context(|| format!("the run took more than {longest} s"))?
}

async fn work(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let work = &arguments.work;
    let path = match () {
        () if work.check => "/echo",
        () if work.sse => "/sse?n=40&ms=50",
        () if work.cut => "/sse?n=1000000&ms=1000",
        () if work.ws => "/ws",
        () => "/b/1024",
    };
    let target = Target::new(&arguments.target, path)?;
    if let Some(longest) = work.wait_ready {
        return check::wait_ready(longest, work, &target).await;
    }
    if work.check {
        return check::check(work, &target).await;
    }
    let meter = Meter::new(&arguments.meter);
    match work.idle {
        Some(count) => idle::run(count, work, target, &meter).await,
        None if work.sse => streams::run(work, target, &meter).await,
        None if work.cut => cut::run(work, target, &meter).await,
        None if work.ws => messages::run(work, target, &meter).await,
        None => requests::run(work, target, &meter).await,
    }
}
