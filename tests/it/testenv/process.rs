//! A command that runs beside the test, or to its end. Its output is read while it runs, so a test can wait for it.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::{COMMAND_LIMIT, Outcome};

/// A process that runs; dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    shown: String,
    output: Arc<Captured>,
    report_path: PathBuf,
    /// Environment variables whose values it must not print.
    secrets: Vec<(String, String)>,
}

/// What a process printed so far.
#[derive(Default)]
struct Captured {
    printed: Mutex<Printed>,
    changed: Condvar,
}

#[derive(Default)]
struct Printed {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Streams that ended.
    ended: usize,
}

/// One of the two streams.
type Stream = fn(&mut Printed) -> &mut Vec<u8>;
const STREAMS: usize = 2;

impl Running {
    /// Starts `command` with this text as its standard input. Its report, where it writes one, is at `report_path`.
    pub(super) fn start(
        mut command: Command,
        input: &str,
        report_path: PathBuf,
        secrets: Vec<(String, String)>,
    ) -> Self {
        let shown = format!("{} {:?}", command.get_program().display(), command.get_args().collect::<Vec<_>>());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_owned());
        // Beside the reading of its output: a command that answers as it reads would wait for us, and we for it.
        // One that reads no input may be gone already.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = Arc::<Captured>::default();
        output.capture(child.stdout.take().expect("a pipe"), |printed| &mut printed.stdout);
        output.capture(child.stderr.take().expect("a pipe"), |printed| &mut printed.stderr);
        Self { child, shown, output, report_path, secrets }
    }

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has printed this text to stderr.
    pub(crate) fn until_stderr_contains(&self, text: &str) {
        let says = |printed: &Printed| String::from_utf8_lossy(&printed.stderr).contains(text);
        let printed = self.output.wait_until(|printed| says(printed) || printed.ended == STREAMS);
        let stderr = String::from_utf8_lossy(&printed.stderr);
        assert!(says(&printed), "{} did not say {text:?}\nstderr:\n{stderr}", self.shown);
    }

    /// Whether it ends within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let (lock, changed) = (self.output.lock(), &self.output.changed);
        let waited = changed.wait_timeout_while(lock, time, |printed| printed.ended < STREAMS);
        waited.expect("what was printed").0.ended == STREAMS
    }

    /// Sends SIGKILL, also to one that ended a moment ago.
    pub(crate) fn strike(&self) {
        self.signal("KILL");
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGINT.
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends SIGKILL. Where it had ended before, it must have succeeded.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill().expect("a child of this process");
        let outcome = self.ended();
        if outcome.was_killed() { outcome } else { outcome.succeeds() }
    }

    /// What it did, once it has ended by itself. Its report's sum must hold, each reject must have a reason, the
    /// exit code must be the reported one, and no delete may have failed.
    pub(crate) fn wait(self) -> Outcome {
        let outcome = self.ended();
        if let Some(report) = outcome.find_report() {
            assert!(report.sum_holds(), "the sum does not hold: {report:?}");
            assert_eq!(report.exit_code, outcome.code, "{outcome}");
            assert_eq!(report.reasons(), report.counts.rejected, "a reject without a reason: {report:?}");
            assert_eq!(report.ack_failed, 0, "{outcome}");
        }
        outcome
    }

    /// What it did, once it has ended, whatever its report says.
    pub(crate) fn ended(mut self) -> Outcome {
        let hung = self.output.wait_until(|printed| printed.ended == STREAMS).ended < STREAMS;
        if hung {
            _ = self.child.kill();
        }
        let status = self.child.wait().expect("a child of this process");
        let printed = std::mem::take(&mut *self.output.lock());
        let output = Output { status, stdout: printed.stdout, stderr: printed.stderr };
        let outcome = Outcome::new(self.shown.clone(), &output, self.report_path.clone());
        assert!(!hung, "not ended within {} s: {outcome}", COMMAND_LIMIT.as_secs());
        for (name, secret) in &self.secrets {
            assert!(!outcome.stderr.contains(secret.as_str()), "{name} is a secret: {outcome}");
        }
        outcome
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("the program kill").success(), "no process to send SIG{name} to: {}", self.shown);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Captured {
    fn capture(self: &Arc<Self>, mut from: impl Read + Send + 'static, stream: Stream) {
        let captured = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                stream(&mut captured.lock()).extend_from_slice(&buffer[..length]);
                captured.changed.notify_all();
            }
            captured.lock().ended += 1;
            captured.changed.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().expect("what was printed")
    }

    /// Until it is so, or longer than any command may take.
    fn wait_until(&self, mut is_so: impl FnMut(&Printed) -> bool) -> MutexGuard<'_, Printed> {
        let waited = self.changed.wait_timeout_while(self.lock(), COMMAND_LIMIT, |printed| !is_so(printed));
        waited.expect("what was printed").0
    }
}
