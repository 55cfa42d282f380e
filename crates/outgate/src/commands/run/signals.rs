//! Signals to this process while the command runs. What the terminal sends goes to the whole job, the command among
//! it, and ends it when it wants to be ended; what somebody sends to this process alone is passed on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

const TERMINAL_STOP: i32 = 20;
const TERMINAL_INPUT: i32 = 21;
const TERMINAL_OUTPUT: i32 = 22;

/// The signals that are not left to their defaults.
pub(super) struct Signals {
    passed_on: Vec<(i32, Signal)>,
    /// The command decides whether a job stops; see `sandboxed`.
    _swallowed: Vec<Signal>,
}

/// Who stops when the terminal says so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stops {
    /// This process, as the command does.
    WithTheTerminal,
    /// This process when the command has.
    WithTheCommand,
}

impl Signals {
    pub(super) fn listen(in_foreground: bool, stops: Stops) -> io::Result<Self> {
        let mut passed_on = vec![
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let mut swallowed = Vec::new();
        let from_keyboard = [SignalKind::interrupt(), SignalKind::quit()];
        if in_foreground {
            swallowed.extend(from_keyboard);
        } else {
            passed_on.extend(from_keyboard);
        }
        if stops == Stops::WithTheCommand {
            let stopping = [TERMINAL_STOP, TERMINAL_INPUT, TERMINAL_OUTPUT];
            swallowed.extend(stopping.map(SignalKind::from_raw));
        }
        let listen = |kind: SignalKind| Ok((kind.as_raw_value(), signal(kind)?));
        Ok(Self {
            passed_on: passed_on
                .into_iter()
                .map(listen)
                .collect::<io::Result<_>>()?,
            _swallowed: swallowed
                .into_iter()
                .map(signal)
                .collect::<io::Result<_>>()?,
        })
    }

    /// The number of the next signal that is the command's.
    pub(super) async fn next(&mut self) -> i32 {
        let waiting = self.passed_on.iter_mut().map(|(number, stream)| {
            Box::pin(async move {
                // Ends only with the runtime.
                stream.recv().await;
                *number
            })
        });
        futures_util::future::select_all(waiting).await.0
    }
}
