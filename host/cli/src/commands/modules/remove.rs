//! `lodestar modules remove`

use crate::{
    client::{Client, escaped},
    error::Result,
    operation,
    terminal::Terminal,
};

/// Stop an installed module and remove it, with its section and its subscription
#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The module
    #[arg(value_name = "MODULE")]
    name: String,
    /// Delete its data as well
    #[arg(long)]
    purge: bool,
    /// Go on although events wait for it, which are then lost
    #[arg(short, long)]
    yes: bool,
    /// Print the id of the operation and do not wait for its outcome
    #[arg(long)]
    no_wait: bool,
}

impl Remove {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let Self { name, purge, yes, no_wait } = self;
        let path = format!("/v1/modules/{}/remove?purge={purge}&yes={yes}", escaped(&name));
        operation::run(&path, no_wait, client, terminal).await
    }
}
