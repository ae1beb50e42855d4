//! A whole snapshot of a difference and its base.

use super::fault::Fault;
use super::file::Saved;
use super::layout::{BLOCK, MEMORY_START, file_bytes};
use super::parts::{First, Holes, Tail, exactly, lay_over};
use super::sections::{encode, with_note};
use super::sink::finish;
use super::state::VmState;
use crate::memory::PAGE_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

impl Saved {
    /// A difference in an open file, laid over a base of which this process knows that it is that, whatever has become of the
    /// file's end since: pages that the difference has in it as well.
    ///
    /// # Errors
    /// What is wrong with the difference.
    pub fn lay_over(self, file: File) -> Result<Self, Fault> {
        let first = First::of(&file)?;
        let memory = first.state.machine.memory_bytes;
        if first.state.base.is_none() || memory != self.state.machine.memory_bytes {
            return Err(Fault::OtherBase);
        }
        let pages = Tail::of(&file, memory, true)?.pages(memory)?;
        Ok(self.below(first, file, pages))
    }

    /// Writes a whole snapshot with the same content to an empty file.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write_whole_to(&self, to: &File) -> io::Result<()> {
        Ok(self.put_together(to)?)
    }

    fn put_together(&self, to: &File) -> Result<(), Fault> {
        let state = VmState {
            base: None,
            ..self.state.clone()
        };
        let mut first = encode(&state);
        if let Some(note) = &self.note {
            first = with_note(&first, note)?;
        }
        to.write_all_at(&first, 0)?;
        let memory = state.machine.memory_bytes;
        let length = file_bytes(memory);
        to.set_len(length)?;
        let over = self.difference.as_ref();
        let mut holes = Holes::of(&self.memory, MEMORY_START + memory);
        let mut block = vec![0; BLOCK];
        for start in (0..memory).step_by(BLOCK) {
            let block = &mut block[..(memory - start).min(BLOCK as u64) as usize];
            let (range, place) = (start..start + block.len() as u64, MEMORY_START + start);
            let changes = over.is_some_and(|it| it.pages.parts_in(range).next().is_some());
            if !changes && holes.has(place, block.len() as u64) {
                continue;
            }
            exactly(&self.memory, block, place)?;
            if let Some(it) = over {
                lay_over(block, start, &it.pages, &it.file)?;
            }
            write_pages(to, block, place)?;
        }
        Ok(finish(to, length)?)
    }
}

/// Writes pages that are not zero, those that follow each other at once.
fn write_pages(to: &File, block: &[u8], place: u64) -> io::Result<()> {
    let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let pages = block.chunks(PAGE_BYTES as usize);
    let mut written = 0;
    let runs: Vec<_> = pages.map(is_zero).collect();
    for run in runs.chunk_by(|one, other| one == other) {
        let bytes = block.len().min(written + run.len() * PAGE_BYTES as usize) - written;
        if !run[0] {
            to.write_all_at(&block[written..written + bytes], place + written as u64)?;
        }
        written += bytes;
    }
    Ok(())
}
