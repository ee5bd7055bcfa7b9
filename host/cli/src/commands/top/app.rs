//! The state of the live view, and the effect of each key on it, without a terminal.

use std::ops::ControlFlow;

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    columns::Column,
    frame::{Frame, Row, Sample},
};

/// An input of the live view.
#[derive(Debug)]
pub(super) enum Input {
    /// A key, or a new size.
    Terminal(Event),
    /// A sample of the daemon's status.
    Looked(Box<Sample>),
    /// Reason why the daemon does not answer.
    Silent(String),
    /// Request to end the process.
    End,
}

/// The live view.
#[derive(Debug)]
pub(super) struct App {
    before: Sample,
    /// Figures of the last sample, the modules sorted.
    pub(super) frame: Frame,
    /// Columns of the last drawing: those that `s` goes through.
    pub(super) shown: Vec<Column>,
    pub(super) sort: Column,
    /// Name of the selected module.
    pub(super) selected: Option<String>,
    /// `true` while the selected module is shown instead of the table.
    pub(super) details: bool,
    pub(super) paused: bool,
    /// Reason why the daemon does not answer, so that the figures are old.
    pub(super) silent: Option<String>,
    pub(super) color: bool,
}

impl App {
    pub(super) fn new(first: Sample, color: bool) -> Self {
        let mut app = Self {
            frame: Frame::between(None, &first),
            before: first,
            shown: Vec::new(),
            sort: Column::Cpu,
            selected: None,
            details: false,
            paused: false,
            silent: None,
            color,
        };
        app.sort.sort(&mut app.frame.modules);
        app
    }

    /// Handles an input; breaks when the view is to be left.
    pub(super) fn take(&mut self, input: Input) -> ControlFlow<()> {
        match input {
            Input::End => return ControlFlow::Break(()),
            Input::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                return self.key(key);
            }
            // A new size shows at the next drawing.
            Input::Terminal(_) => {}
            Input::Silent(reason) => self.silent = Some(reason),
            Input::Looked(sample) => {
                self.silent = None;
                if !self.paused {
                    self.frame = Frame::between(Some(&self.before), &sample);
                    self.sort.sort(&mut self.frame.modules);
                    self.before = *sample;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Returns the index of the selected row.
    pub(super) fn place(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.frame.modules.iter().position(|row| row.name == *selected)
    }

    /// Returns the module that is shown instead of the table.
    pub(super) fn detailed(&self) -> Option<&Row> {
        let row = self.frame.modules.get(self.place()?);
        row.filter(|_| self.details)
    }

    fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return ControlFlow::Break(()),
            KeyCode::Char('q') => return ControlFlow::Break(()),
            KeyCode::Esc if self.detailed().is_some() => self.details = false,
            KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Enter => {
                if self.place().is_none() {
                    self.step(0);
                }
                self.details = !self.details;
            }
            KeyCode::Char('s') => {
                self.sort = self.sort.next(&self.shown);
                self.sort.sort(&mut self.frame.modules);
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// Moves the selection; the first step selects the first row.
    fn step(&mut self, by: isize) {
        let rows = &self.frame.modules;
        let Some(last) = rows.len().checked_sub(1) else { return };
        let next = self.place().map_or(0, |place| place.saturating_add_signed(by).min(last));
        self.selected = Some(rows[next].name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample;

    fn app() -> App {
        let mut app = App::new(Sample::now(sample::status()), false);
        app.shown = vec![Column::Module, Column::State, Column::Cpu];
        app
    }

    fn press(app: &mut App, code: KeyCode) -> ControlFlow<()> {
        app.take(Input::Terminal(Event::Key(code.into())))
    }

    fn names(app: &App) -> Vec<&str> {
        app.frame.modules.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn the_selection_follows_its_module() {
        let mut app = app();
        assert_eq!(app.place(), None);
        let mut check = |code, expected: &str| {
            assert!(press(&mut app, code).is_continue());
            assert_eq!(app.selected.as_deref(), Some(expected), "{code:?}");
        };
        check(KeyCode::Down, "ingest");
        check(KeyCode::Up, "ingest");
        check(KeyCode::Char('j'), "usage_tracker");
        check(KeyCode::PageDown, "usage_tracker");
        check(KeyCode::Home, "ingest");
        check(KeyCode::End, "usage_tracker");
        assert_eq!(app.place(), Some(1));
        assert!(press(&mut app, KeyCode::Char('s')).is_continue(), "by module");
        assert!(press(&mut app, KeyCode::Char('s')).is_continue(), "by state");
        assert_eq!((names(&app), app.place()), (vec!["usage_tracker", "ingest"], Some(0)));
    }

    #[test]
    fn enter_shows_a_module_and_escape_leaves_it() {
        let mut app = app();
        assert!(press(&mut app, KeyCode::Enter).is_continue());
        assert_eq!(app.detailed().map(|row| row.name.as_str()), Some("ingest"));
        assert!(press(&mut app, KeyCode::Esc).is_continue());
        assert!(app.detailed().is_none());
        assert!(press(&mut app, KeyCode::Esc).is_break());
        assert!(press(&mut app, KeyCode::Char('q')).is_break());
        assert!(press(&mut app, KeyCode::Char('c')).is_continue());
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(app.take(Input::Terminal(Event::Key(control_c))).is_break());
        assert!(app.take(Input::End).is_break());
    }

    #[test]
    fn a_pause_keeps_what_is_shown() {
        let mut app = app();
        let look = |pid| {
            let mut status = sample::status();
            status.pid = pid;
            Input::Looked(Box::new(Sample::now(status)))
        };
        let mut check = |input, pid, silent: Option<&str>| {
            assert!(app.take(input).is_continue());
            assert_eq!((app.frame.pid, app.silent.as_deref()), (pid, silent));
        };
        let pause = || Input::Terminal(Event::Key(KeyCode::Char('p').into()));
        check(look(1), 1, None);
        check(pause(), 1, None);
        check(look(2), 1, None);
        check(Input::Silent("gone".to_owned()), 1, Some("gone"));
        check(pause(), 1, Some("gone"));
        check(look(3), 3, None);
    }

    #[test]
    fn modules_may_vanish() {
        let mut app = app();
        assert!(press(&mut app, KeyCode::Enter).is_continue());
        let mut status = sample::status();
        status.modules.clear();
        assert!(app.take(Input::Looked(Box::new(Sample::now(status)))).is_continue());
        assert!(app.detailed().is_none() && app.place().is_none());
        for code in [KeyCode::Down, KeyCode::Enter, KeyCode::Char('s')] {
            assert!(press(&mut app, code).is_continue());
        }
    }
}
