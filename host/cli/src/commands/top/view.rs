//! The live view as cells of a terminal.

use ratatui::{
    Frame as Canvas,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Text},
    widgets::{Cell, Paragraph, Row as Cells, Table, TableState, Wrap},
};

use super::{app::App, columns, columns::Column, frame::Row};
use crate::{
    commands::{
        modules::{counters, dropped, spent},
        status::{address, note},
    },
    human,
};

/// Draws the whole view.
pub(super) fn draw(canvas: &mut Canvas<'_>, app: &mut App) {
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [head, message, middle, foot] = areas.areas(canvas.area());
    canvas.render_widget(Text::from_iter(app.frame.head(head.width.into())), head);
    if let Some(reason) = &app.silent {
        let text = format!("{}; trying again", human::plain(reason));
        canvas.render_widget(Line::styled(text, tone(app, Color::Red)), message);
    }
    let footer = match app.detailed() {
        Some(row) => {
            canvas.render_widget(details(row), middle);
            "q quit   Esc back   ↑↓ other module   p pause".to_owned()
        }
        None => {
            modules(canvas, middle, app);
            let sort = app.sort.title();
            format!("q quit   ↑↓ select   Enter details   s sort ({sort})   p pause")
        }
    };
    let footer = if app.paused { format!("PAUSED   {footer}") } else { footer };
    canvas.render_widget(Line::styled(footer, Style::new().add_modifier(Modifier::DIM)), foot);
}

fn modules(canvas: &mut Canvas<'_>, area: Rect, app: &mut App) {
    let columns = columns::fitting(&app.frame.modules, area.width.into(), 1);
    app.shown = columns.iter().map(|(column, _)| *column).collect();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let titles = columns.iter().map(|(column, _)| {
        let sorted = bold.add_modifier(Modifier::UNDERLINED);
        let style = if *column == app.sort { sorted } else { bold };
        aligned(*column, column.title().to_owned()).style(style)
    });
    let rows = app.frame.modules.iter().map(|row| {
        Cells::new(columns.iter().map(|(column, _)| {
            let text = human::plain(&column.text(row)).into_owned();
            let cell = aligned(*column, text);
            if *column == Column::State { cell.style(state_style(app, row)) } else { cell }
        }))
    });
    let widths = columns.iter().map(|(_, width)| u16::try_from(*width).unwrap_or(u16::MAX));
    let table = Table::new(rows, widths.map(Constraint::Length))
        .header(Cells::new(titles))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(app.place());
    canvas.render_stateful_widget(table, area, &mut state);
    if app.frame.modules.is_empty() {
        let text = "\nNo module is configured and none lies on the module path.";
        canvas.render_widget(Paragraph::new(text), area);
    }
}

fn aligned(column: Column, text: String) -> Cell<'static> {
    let side = if column.is_number() { Alignment::Right } else { Alignment::Left };
    Cell::from(Text::from(text).alignment(side))
}

/// Builds the page with everything about one module.
fn details(row: &Row) -> Paragraph<'static> {
    let module = &row.module;
    let events = counters(module.events);
    let version = module.version.clone().unwrap_or_default();
    let mut lines = vec![
        ("module", format!("{} {version}", module.name)),
        ("state", module.state.clone()),
        ("note", note(module)),
        ("health", format!("{} {}", module.health.status, module.health.message)),
        ("isolation", module.isolation.clone()),
        ("generation", module.generation.to_string()),
        ("restarts", human::count(module.restarts)),
        ("cpu", format!("{}%, {}", Column::Cpu.text(row), human::duration_ms(module.cpu_ms))),
        ("memory", human::bytes(module.memory_bytes)),
        ("threads", human::count(module.threads)),
        ("events", events),
        ("dropped", dropped(module)),
        ("events/s", Column::Events.text(row)),
        ("lag", Column::Lag.text(row)),
    ];
    lines.extend(module.calls.iter().map(|calls| ("calls", spent(calls))));
    lines.extend(
        module
            .listeners
            .iter()
            .map(|listener| ("listener", format!("{} {}", listener.name, address(listener)))),
    );
    let shown = lines.into_iter().filter(|(_, value)| !value.trim().is_empty());
    let text = shown.map(|(key, value)| {
        let value = human::plain(value.trim()).replace('\n', " ");
        Line::from(format!("{key:<12}{value}"))
    });
    Paragraph::new(Text::from_iter(text)).wrap(Wrap { trim: false })
}

fn state_style(app: &App, row: &Row) -> Style {
    match row.state.as_str() {
        "running" => tone(app, Color::Green),
        "failed" | "quarantined" | "incompatible" | "stalled" | "absent" => tone(app, Color::Red),
        "disabled" | "stopped" => Style::new(),
        _ => tone(app, Color::Yellow),
    }
}

/// Returns a style with a colour where colours are allowed.
fn tone(app: &App, color: Color) -> Style {
    if app.color { Style::new().fg(color) } else { Style::new() }
}

#[cfg(test)]
mod tests {
    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{Event, KeyCode},
    };

    use super::*;
    use crate::{
        commands::top::{app::Input, frame::Sample},
        tests::sample,
    };

    fn app(color: bool) -> App {
        App::new(Sample::now(sample::status()), color)
    }

    fn drawn(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is memory");
        terminal.draw(|canvas| draw(canvas, app)).expect("it is memory");
        let buffer = terminal.backend().buffer();
        let line = |row: u16| -> String {
            let cells = (0..width).map(|column| buffer[(column, row)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    fn press(app: &mut App, code: KeyCode) {
        assert!(app.take(Input::Terminal(Event::Key(code.into()))).is_continue());
    }

    #[test]
    fn shows_the_modules_in_a_small_window() {
        assert_eq!(
            drawn(&mut app(false), 80, 8),
            [
                "lodestard 0.1.0   pid 4711   up 3h 12m   cpu -%   memory 24 MiB   threads 17",
                "1 of 2 modules run   - events/s   ledger 1 MiB",
                "",
                "MODULE        STATE   CPU% MEMORY QUEUE LAG EV/S    P50    P99 DROPS ERRORS",
                "ingest        running    -  2 MiB     0   -    -      -      -     0      0",
                "usage_tracker failed     -    0 B    41  2m    - 1.20ms 8.30ms     0      4",
                "",
                "q quit   ↑↓ select   Enter details   s sort (CPU%)   p pause",
            ]
        );
    }

    #[test]
    fn shows_something_at_every_size() {
        for (width, height) in [(1, 1), (10, 3), (20, 5), (40, 12), (80, 24), (120, 40), (300, 80)]
        {
            let mut app = app(true);
            let table = drawn(&mut app, width, height);
            assert!(table[0].starts_with('l'), "{width}x{height}: {table:?}");
            press(&mut app, KeyCode::Enter);
            let details = drawn(&mut app, width, height);
            assert!(height < 5 || table != details, "{width}x{height}");
        }
    }

    #[test]
    fn shows_one_module() {
        let mut app = app(false);
        press(&mut app, KeyCode::End);
        press(&mut app, KeyCode::End);
        press(&mut app, KeyCode::Down);
        press(&mut app, KeyCode::Enter);
        let lines = drawn(&mut app, 120, 24).join("\n");
        for expected in [
            "module      usage_tracker 0.1.0",
            "note        the database is locked; 2 dead",
            "events      1,247 accepted = 1,204 handled + 2 dead + 0 dropped + 41 pending",
            "calls       events: 12 calls with 1,206, p50 1.20ms, p99 8.30ms, max 9ms, ",
            "sum 20ms, 2 failed",
        ] {
            assert!(lines.contains(expected), "{expected}\n{lines}");
        }
    }

    #[test]
    fn says_that_the_daemon_is_silent_and_that_it_pauses() {
        let mut app = app(false);
        assert!(app.take(Input::Silent("no daemon\u{1b}[2J at /s".to_owned())).is_continue());
        press(&mut app, KeyCode::Char('p'));
        let lines = drawn(&mut app, 80, 10);
        assert_eq!(lines[2], "no daemon\\u001b[2J at /s; trying again");
        assert!(lines[9].starts_with("PAUSED   q quit"), "{lines:#?}");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        for color in [true, false] {
            let mut terminal = Terminal::new(TestBackend::new(80, 8)).expect("it is memory");
            let mut app = app(color);
            app.silent = Some("gone".to_owned());
            terminal.draw(|canvas| draw(canvas, &mut app)).expect("it is memory");
            let cells = &terminal.backend().buffer().content;
            assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), color);
        }
    }
}
