//! The thread that sorts full buffers and writes them to the temporary file, beside the one that
//! fills them: a run costs about as much as decoding and mapping its rows.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::buffer::Buffer;
use super::run::{Run, Spill};
use crate::seal::Space;

/// The file and its runs.
type Written = io::Result<(Spill, Vec<Run>)>;

/// The thread, and the two buffers' way to it and back.
#[derive(Debug)]
pub struct Spiller {
    /// `None` once no more will come.
    full: Option<SyncSender<Buffer>>,
    spare: Receiver<Buffer>,
    thread: Option<JoinHandle<Written>>,
}

impl Spiller {
    /// Makes the temporary file and starts the thread. `memory` is what the delivery has
    /// at this moment.
    pub fn start(space: &Space, memory: usize) -> io::Result<Self> {
        let spill = Spill::create(space, memory)?;
        // A buffer is handed over only when the thread takes it, so no third one is ever needed.
        let (full, work) = sync_channel(0);
        let (done, spare) = sync_channel(1);
        done.try_send(Buffer::default()).ok();
        let thread = std::thread::Builder::new()
            .name("spill".to_owned())
            .spawn(move || write_runs(spill, &work, &done))?;
        Ok(Self {
            full: Some(full),
            spare,
            thread: Some(thread),
        })
    }

    /// Has the records of `buffer` written as one run; `buffer` is empty then. Waits for the run
    /// before.
    ///
    /// # Errors
    /// The file failed, on this run or an earlier one.
    pub fn write(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        if let Ok(spare) = self.spare.recv() {
            let full = std::mem::replace(buffer, spare);
            if self.full.as_ref().is_some_and(|way| way.send(full).is_ok()) {
                return Ok(());
            }
        }
        // The thread hangs up only when it has failed.
        self.join().map(drop)?;
        Err(io::Error::other("the thread that sorts rows is gone"))
    }

    /// Waits until all is written; returns the file and its runs.
    pub fn finish(mut self) -> Written {
        self.join()
    }

    fn join(&mut self) -> Written {
        self.full = None;
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(written)) => written,
            Some(Err(_)) | None => Err(io::Error::other("sorting the rows failed")),
        }
    }
}

impl Drop for Spiller {
    fn drop(&mut self) {
        // A delivery that is given up: the run that is being written is the last one.
        self.join().ok();
    }
}

fn write_runs(mut spill: Spill, work: &Receiver<Buffer>, done: &SyncSender<Buffer>) -> Written {
    let mut runs = Vec::new();
    while let Ok(mut buffer) = work.recv() {
        buffer.sort();
        buffer.pieces().try_for_each(|piece| spill.append(piece))?;
        runs.push(spill.end_run()?);
        buffer.clear();
        // There is room for each buffer that was taken; at the end nobody needs it.
        done.try_send(buffer).ok();
    }
    Ok((spill, runs))
}
