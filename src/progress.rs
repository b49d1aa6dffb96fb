//! Progress of a run or a rekey: a line that is redrawn on a terminal, a log line every ten seconds elsewhere.
//!
//! Always true: the line is never wider than the terminal, whatever its size is now; log lines stand above it; and it is
//! wiped before the process ends, also where a second signal ends it.

mod line;

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use crate::counters::Counters;
use crate::gate::Gate;
use line::Line;

/// Calm enough to be read.
const REDRAW: Duration = Duration::from_millis(250);
const REDRAWS_A_SECOND: u8 = 4;
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The line that is on the terminal now, which log lines must not break.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// On a terminal as a line that is redrawn, elsewhere as log lines.
    Auto,
    /// As a line that is redrawn, also where there is no terminal.
    Always,
    /// Not at all.
    Never,
}

/// Shows counters until what they count is finished.
#[derive(Debug)]
pub struct Progress {
    task: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts to show `counters`, and what `gate` waits for. Must be called in a runtime.
    #[must_use]
    pub fn start(mode: ProgressMode, quiet: bool, counters: Arc<Counters>, gate: Arc<Gate>) -> Self {
        let mut line = Line::new(counters, gate);
        Self::of(mode, quiet, move || line.now())
    }

    /// Starts to show what `line` says. Must be called in a runtime.
    #[must_use]
    pub fn of(mode: ProgressMode, quiet: bool, line: impl FnMut() -> String + Send + 'static) -> Self {
        if mode == ProgressMode::Never || quiet {
            return Self { task: None };
        }
        if mode == ProgressMode::Auto && !stderr().is_terminal() {
            return Self { task: Some(tokio::spawn(log(line))) };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(REDRAWS_A_SECOND));
        // Cut at the terminal's width, which is asked for at each redraw.
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_msg}") {
            bar.set_style(style);
        }
        *shown() = Some(bar.clone());
        Self { task: Some(tokio::spawn(redraw(bar, line))) }
    }

    /// Whether somebody sees it.
    #[must_use]
    pub const fn is_shown(&self) -> bool {
        self.task.is_some()
    }

    /// Ends the progress, as a drop does.
    pub fn finish(self) {
        drop(self);
    }
}

/// Wipes the line from the terminal, however a command ends.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        wipe();
    }
}

/// Wipes the line from the terminal, where one is there: before the process ends.
pub fn wipe() {
    if let Some(bar) = shown().take() {
        bar.finish_and_clear();
    }
}

/// Stderr for log lines, which stand above the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct AboveTheLine;

impl Write for AboveTheLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*shown() {
            Some(bar) => bar.suspend(|| stderr().write(bytes)),
            None => stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

fn shown() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn redraw(bar: ProgressBar, mut line: impl FnMut() -> String) {
    let mut ticks = tokio::time::interval(REDRAW);
    loop {
        ticks.tick().await;
        bar.set_message(line()); // which draws
    }
}

async fn log(mut line: impl FnMut() -> String) {
    let mut ticks = tokio::time::interval(LOG_EVERY);
    ticks.tick().await; // the first tick is immediate, when there is nothing to tell
    loop {
        ticks.tick().await;
        tracing::info!("{}", line());
    }
}
