//! The columns of the table: their cells, the order that they give to modules, and their widths.

use std::cmp::Ordering;

use super::frame::{Row, events, percent};
use crate::human;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Module,
    State,
    Isolation,
    Cpu,
    Memory,
    Threads,
    Queue,
    Lag,
    Events,
    P50,
    P99,
    Drops,
    Errors,
}

impl Column {
    /// All columns in their order.
    const ALL: [Self; 13] = [
        Self::Module,
        Self::State,
        Self::Isolation,
        Self::Cpu,
        Self::Memory,
        Self::Threads,
        Self::Queue,
        Self::Lag,
        Self::Events,
        Self::P50,
        Self::P99,
        Self::Drops,
        Self::Errors,
    ];

    /// Columns that are left out where it is narrow, the first one first.
    const EXPENDABLE: [Self; 11] = [
        Self::Isolation,
        Self::Threads,
        Self::Lag,
        Self::P50,
        Self::Drops,
        Self::Errors,
        Self::P99,
        Self::Queue,
        Self::Memory,
        Self::Events,
        Self::Cpu,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Module => "MODULE",
            Self::State => "STATE",
            Self::Isolation => "ISOLATION",
            Self::Cpu => "CPU%",
            Self::Memory => "MEMORY",
            Self::Threads => "THREADS",
            Self::Queue => "QUEUE",
            Self::Lag => "LAG",
            Self::Events => "EV/S",
            Self::P50 => "P50",
            Self::P99 => "P99",
            Self::Drops => "DROPS",
            Self::Errors => "ERRORS",
        }
    }

    /// Returns whether the column holds numbers: they stand at the right, the largest first.
    pub(super) const fn is_number(self) -> bool {
        !matches!(self, Self::Module | Self::State | Self::Isolation)
    }

    pub(super) fn text(self, row: &Row) -> String {
        let duration = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), human::duration_ns);
        match self {
            Self::Module => row.name.clone(),
            Self::State => row.state.clone(),
            Self::Isolation => row.isolation.clone(),
            Self::Cpu => percent(row.cpu_percent),
            Self::Memory => human::bytes(row.memory_bytes),
            Self::Threads => human::count(row.threads),
            Self::Queue => human::count(row.pending),
            Self::Lag if row.pending == 0 => "-".to_owned(),
            Self::Lag => largest_unit(row.lag_ms),
            Self::Events => events(row.events_per_s),
            Self::P50 => duration(row.p50_ns),
            Self::P99 => duration(row.p99_ns),
            Self::Drops => human::count(row.dropped),
            Self::Errors => human::count(row.errors),
        }
    }

    /// Returns the next column to sort by.
    pub(super) fn next(self, shown: &[Self]) -> Self {
        let place = shown.iter().position(|column| *column == self);
        let next = place.map_or(0, |place| (place + 1) % shown.len().max(1));
        shown.get(next).copied().unwrap_or(Self::Module)
    }

    /// Puts the modules in the order of this column: words from A on, numbers from the largest on.
    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|left, right| {
            let order = match self {
                Self::Module => Ordering::Equal,
                Self::State => left.state.cmp(&right.state),
                Self::Isolation => left.isolation.cmp(&right.isolation),
                _ => self.number(right).total_cmp(&self.number(left)),
            };
            order.then_with(|| left.name.cmp(&right.name))
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "it only decides about the order")]
    fn number(self, row: &Row) -> f64 {
        let count = |count: u64| count as f64;
        match self {
            Self::Cpu => row.cpu_percent.unwrap_or(-1.0),
            Self::Events => row.events_per_s.unwrap_or(-1.0),
            Self::Memory => count(row.memory_bytes),
            Self::Threads => count(row.threads),
            Self::Queue => count(row.pending),
            Self::Lag => count(row.lag_ms),
            Self::P50 => row.p50_ns.map_or(-1.0, count),
            Self::P99 => row.p99_ns.map_or(-1.0, count),
            Self::Drops => count(row.dropped),
            Self::Errors => count(row.errors),
            Self::Module | Self::State | Self::Isolation => 0.0,
        }
    }
}

/// Returns the columns that fit into a width with a gap between each two, and their own widths.
pub(super) fn fitting(rows: &[Row], width: usize, gap: usize) -> Vec<(Column, usize)> {
    let own_width = |column: Column| {
        let cells = rows.iter().map(|row| column.text(row).chars().count());
        (column, cells.chain([column.title().len()]).max().unwrap_or_default())
    };
    let mut columns: Vec<(Column, usize)> = Column::ALL.into_iter().map(own_width).collect();
    for expendable in Column::EXPENDABLE {
        let gaps = gap * (columns.len() - 1);
        if columns.iter().map(|(_, width)| width).sum::<usize>() + gaps <= width {
            break;
        }
        columns.retain(|(column, _)| *column != expendable);
    }
    columns
}

/// Formats a duration in the largest unit that it fills.
fn largest_unit(milliseconds: u64) -> String {
    let text = human::duration_ms(milliseconds);
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::top::frame::{Frame, Sample},
        tests::sample,
    };

    fn rows() -> Vec<Row> {
        Frame::between(None, &Sample::now(sample::status())).modules
    }

    #[test]
    fn sorts_by_any_column() {
        let mut first = rows().remove(0);
        (first.name, first.cpu_percent) = ("zeta".to_owned(), Some(3.0));
        let mut rows = [rows(), vec![first]].concat();
        let mut check = |column: Column, expected: [&str; 3]| {
            column.sort(&mut rows);
            let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            assert_eq!(names, expected, "{column:?}");
        };
        check(Column::Module, ["ingest", "usage_tracker", "zeta"]);
        check(Column::Cpu, ["zeta", "ingest", "usage_tracker"]);
        check(Column::State, ["usage_tracker", "ingest", "zeta"]);
        check(Column::Queue, ["usage_tracker", "ingest", "zeta"]);
        check(Column::Memory, ["ingest", "zeta", "usage_tracker"]);
        check(Column::P99, ["usage_tracker", "ingest", "zeta"]);
    }

    #[test]
    fn every_column_can_be_reached() {
        let mut column = Column::Module;
        for expected in Column::ALL.into_iter().skip(1).chain([Column::Module]) {
            column = column.next(&Column::ALL);
            assert_eq!(column, expected);
        }
        assert_eq!(Column::Lag.next(&[Column::Module, Column::Cpu]), Column::Module);
        assert_eq!(Column::Lag.next(&[]), Column::Module);
    }

    #[test]
    fn never_wider_than_asked_while_columns_can_give_way() {
        for width in 24..200 {
            let columns = fitting(&rows(), width, 1);
            let used = columns.iter().map(|(_, width)| width + 1).sum::<usize>() - 1;
            assert!(used <= width, "{used} > {width}: {columns:?}");
            assert!(columns.len() >= 2);
        }
        assert_eq!(fitting(&rows(), 200, 1).len(), Column::ALL.len());
        let at_80: Vec<Column> = fitting(&rows(), 80, 1).into_iter().map(|it| it.0).collect();
        assert!(at_80.contains(&Column::P99) && at_80.contains(&Column::Errors), "{at_80:?}");
    }
}
