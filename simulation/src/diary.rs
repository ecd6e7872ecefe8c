//! What happened in a run, for whoever looks at one: what the scheduler did, what was written, and what the processes say of themselves.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A log that everybody of a run writes to, in the order in which things happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub(crate) fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something whose own log goes into this one.
    pub(crate) fn around<T>(&self, run: impl FnOnce() -> T) -> T {
        let diary = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_writer(move || diary.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, run)
    }
}

/// One event of a process is one write.
impl io::Write for Diary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(format!("    {}", String::from_utf8_lossy(bytes).trim_end()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
