//! The arguments of `outgate capture`.

use std::num::{NonZeroU16, NonZeroU32};

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Capture {
    /// Drop what everybody but the excepted user sends to other machines. Required, so that whoever runs it has said it
    #[arg(long, required = true)]
    pub(crate) drop: bool,
    /// The user, by number, whose packets leave: the one that the gateway runs as. Not 0
    #[arg(long, value_name = "UID", value_parser = user)]
    pub(crate) except_user: NonZeroU32,
    /// Send TCP of everybody else to this port on 127.0.0.1 and ::1, where `listen.transparent` is
    #[arg(long, value_name = "PORT")]
    pub(crate) redirect: Option<NonZeroU16>,
}

fn user(text: &str) -> Result<NonZeroU32, String> {
    let number: u32 = text
        .parse()
        .map_err(|_| "not the number of a user".to_owned())?;
    NonZeroU32::new(number)
        .ok_or_else(|| "0 is root: root in the agent's container would be let out".to_owned())
}
