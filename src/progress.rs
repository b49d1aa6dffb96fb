//! Progress of a run or a rekey: a line that is redrawn on a terminal, a log line every ten seconds elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::counters::Counters;
use crate::report::grouped;

const REDRAW: Duration = Duration::from_millis(100);
const LOG_EVERY: Duration = Duration::from_secs(10);

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
    bar: ProgressBar,
    task: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts to show `counters`. Must be called in a runtime.
    #[must_use]
    pub fn start(mode: ProgressMode, quiet: bool, counters: Arc<Counters>) -> Self {
        Self::of(mode, quiet, move || line(&counters))
    }

    /// Starts to show what `line` says. Must be called in a runtime.
    #[must_use]
    pub fn of(mode: ProgressMode, quiet: bool, line: impl Fn() -> String + Send + 'static) -> Self {
        let hidden = Self { bar: ProgressBar::hidden(), task: None };
        let lively = mode == ProgressMode::Always || stderr().is_terminal();
        if mode == ProgressMode::Never || quiet {
            return hidden;
        }
        if !lively {
            return Self { task: Some(tokio::spawn(log(line))), ..hidden };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        Self { task: Some(tokio::spawn(redraw(bar.clone(), line))), bar }
    }

    /// Ends the progress, and wipes its line from the terminal.
    pub fn finish(self) {
        if let Some(task) = self.task {
            task.abort();
        }
        self.bar.finish_and_clear();
    }
}

async fn redraw(bar: ProgressBar, line: impl Fn() -> String) {
    let mut ticks = tokio::time::interval(REDRAW);
    loop {
        ticks.tick().await;
        bar.set_message(line());
        bar.tick();
    }
}

async fn log(line: impl Fn() -> String) {
    let mut ticks = tokio::time::interval(LOG_EVERY);
    ticks.tick().await; // the first tick is immediate, when there is nothing to tell
    loop {
        ticks.tick().await;
        tracing::info!("{}", line());
    }
}

/// The counts so far.
fn line(counters: &Counters) -> String {
    let counts = counters.counts();
    let received = counters.drain.counts().items;
    let [received, loaded, duplicates, rejected, acknowledged] =
        [received, counts.loaded, counts.duplicates, counts.rejected, counts.acknowledged].map(grouped);
    format!(
        "received {received} · loaded {loaded} · duplicates {duplicates} · rejected {rejected} · \
         acknowledged {acknowledged}"
    )
}
