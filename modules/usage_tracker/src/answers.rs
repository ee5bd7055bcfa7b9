//! Answers the commands: resolves the period, opens a reader and calls [`commands`].

use jiff::Timestamp;
use module_sdk::{Job, Reply, Result, TimeRange, TimeRangeArgs};

use crate::{
    UsageTracker,
    backup::{BackupArgs, Turn},
    commands::{self, ModelsArgs, RequestsArgs, SessionsArgs, SourcesArgs, SummaryArgs},
    export::{self, ExportArgs},
    query::Reader,
};

impl UsageTracker {
    pub(crate) fn summary(&mut self, args: SummaryArgs) -> Result<Reply> {
        let period = self.range(&args.range, commands::SINCE)?;
        commands::summary(&mut self.reader()?, &period, &args)
    }

    pub(crate) fn sessions(&mut self, args: SessionsArgs) -> Result<Reply> {
        let period = self.range(&args.range, commands::SINCE)?;
        commands::sessions(&mut self.reader()?, &period, &args)
    }

    pub(crate) fn requests(&mut self, args: RequestsArgs) -> Result<Reply> {
        let period = self.range(&args.range, commands::SINCE)?;
        commands::requests_list(&mut self.reader()?, &period, args)
    }

    pub(crate) fn models(&mut self, args: ModelsArgs) -> Result<Reply> {
        let period = self.range(&args.range, commands::SINCE)?;
        let mut reader = self.reader()?;
        commands::models(&mut reader, &period, self.store().pricer().table())
    }

    pub(crate) fn sources(&mut self, args: SourcesArgs) -> Result<Reply> {
        let period = self.range(&args.range, commands::SINCE)?;
        commands::sources(&mut self.reader()?, &period)
    }

    pub(crate) fn export(&mut self, args: ExportArgs) -> Result<Job> {
        let period = self.range(&args.range, export::SINCE)?;
        Ok(export::job(self.reader()?, args.format, period, self.stopping.clone()))
    }

    pub(crate) fn backup(&mut self, args: BackupArgs) -> Result<Job> {
        let turn = Turn::take(&self.backing_up)?;
        let to = args.target(self.host.data_dir())?;
        let reader = self.store().reader()?;
        let (bytes, _) = self.store().sizes();
        Ok(args.job(reader, to, bytes, turn, self.stopping.clone()))
    }

    pub(crate) fn range(&self, args: &TimeRangeArgs, default_since: &str) -> Result<TimeRange> {
        // Thirty days back from 2099 there is nothing.
        let arrival = self.arrival();
        let newest = Timestamp::from_millisecond(arrival.at_ms).ok();
        let now = newest.filter(|_| !arrival.by_clock).unwrap_or_else(|| self.host.now());
        args.resolve(default_since, now, &self.zone)
    }

    fn reader(&self) -> Result<Reader> {
        Ok(self.store().reader()?.into())
    }
}
