//! Batches made ahead of time in a thread of their own.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Loader, LoaderCursor};
use crate::batch::TokenBatch;

/// A batch, and the place in the data after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefetched {
    /// The batch.
    pub batch: TokenBatch,
    /// Where the batch after it begins: what a checkpoint stores once this batch is trained.
    pub cursor: LoaderCursor,
}

/// Makes batches while the caller trains on earlier ones.
///
/// The sequence is the loader's own; a cursor comes with its batch, so those made ahead but never
/// taken do not count.
#[derive(Debug)]
pub struct Prefetcher {
    // Dropped before the thread is joined, which ends the thread's sending.
    batches: Option<Receiver<Prefetched>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetcher {
    /// Takes the loader from where it stands, and keeps up to `depth` batches ready.
    ///
    /// # Panics
    ///
    /// If the system gives no thread.
    pub fn new(mut loader: Loader, depth: usize) -> Self {
        let (sender, receiver) = sync_channel(depth);
        let make = move || {
            loop {
                let batch = loader.next_batch();
                let cursor = loader.cursor();
                if sender.send(Prefetched { batch, cursor }).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("batches".to_owned())
            .spawn(make)
            .expect("the system has a thread left");
        Self {
            batches: Some(receiver),
            thread: Some(thread),
        }
    }

    /// The next batch; waits until it is made.
    ///
    /// # Panics
    ///
    /// If the loader panicked.
    pub fn next_batch(&mut self) -> Prefetched {
        let batches = self.batches.as_ref().expect("taken only on drop");
        match batches.recv() {
            Ok(prefetched) => prefetched,
            Err(_) => self.rethrow(),
        }
    }

    fn rethrow(&mut self) -> ! {
        let thread = self.thread.take().expect("asked only once");
        match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the thread ends only after its receiver"),
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the loader was of no interest to anybody who asks for no batch.
            let _ = thread.join();
        }
    }
}
