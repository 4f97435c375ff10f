//! The file of a record: steps, each framed by its length and its checksum. A process that is
//! killed can leave one frame that is cut short; its step was then not acted upon, and the frame is
//! cut off when it is read or written to. It must never take for damage what only cannot be read
//! now, and never cut off what was acted upon. Read next: `records.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use cloudai_model::AttemptId;
use cloudai_proto::convert::ConvertError;
use cloudai_proto::convert::record::{RecordStep, decode, encode};

use super::{Kept, replay};

/// Bytes in front of a step: its length and its CRC-32, little endian.
pub(super) const FRAME_HEADER_LEN: usize = 8;
/// The end of a record's file name; `task-1-a1.record`.
pub(super) const RECORD_END: &str = "record";
/// The end of the name of a record that could not be read.
pub(super) const DAMAGED_END: &str = "damaged";
/// Most damaged records that are kept for people to look at.
pub(super) const DAMAGED_LEN_MAX: usize = 100;

/// The name of an attempt's record.
pub(crate) fn file_name(attempt: AttemptId) -> String {
    format!("{attempt}.{RECORD_END}")
}

/// A record with its first step.
pub(super) fn create(path: &Path, step: &RecordStep) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(&frame(step))
}

/// The frame goes out in one write, so that a kill leaves all of it or a piece that is found out.
/// A full disk leaves such a piece too, and the process goes on: behind it nothing would be read.
pub(super) fn append(path: &Path, step: &RecordStep) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(length).read_to_end(&mut bytes)?;
    let (_, whole_len) = steps(&bytes)?;
    check_rest(&bytes[whole_len..]).map_err(io::Error::other)?;
    if (whole_len as u64) < length {
        file.set_len(whole_len as u64)?;
    }
    file.write_all(&frame(step))?;
    Ok(file)
}

fn frame(step: &RecordStep) -> Vec<u8> {
    let step = encode(step);
    let mut frame = Vec::with_capacity(FRAME_HEADER_LEN + step.len());
    frame.extend_from_slice(&(step.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&step).to_le_bytes());
    frame.extend_from_slice(&step);
    frame
}

/// Why a record says nothing.
#[derive(Debug)]
enum Unread {
    /// It never will: its bytes are not those that were written.
    Damaged(String),
    /// Now, or to this version.
    Failed(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Every record of a folder. What is damaged is moved aside and told; it ends here.
pub(crate) fn read_all(folder: &Path) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    let mut damaged = Vec::new();
    let mut damaged_before = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.extension().and_then(|end| end.to_str()) {
            Some(RECORD_END) => match read(&path) {
                Ok(record) => kept.push(record),
                Err(Unread::Damaged(why)) => damaged.push((path, why)),
                Err(Unread::Failed(error)) => {
                    let words = format!("{}: {error}", path.display());
                    return Err(io::Error::new(error.kind(), words));
                }
            },
            Some(DAMAGED_END) => damaged_before += 1,
            _ => {}
        }
    }
    for (at, (path, why)) in damaged.into_iter().enumerate() {
        put_aside(&path, &why, damaged_before + at < DAMAGED_LEN_MAX);
    }
    kept.sort_by_key(|record| record.attempt);
    Ok(kept)
}

fn put_aside(path: &Path, why: &str, keep: bool) {
    let aside = path.with_extension(DAMAGED_END);
    let moved = if keep { std::fs::rename(path, &aside) } else { std::fs::remove_file(path) };
    let path = path.display();
    tracing::warn!(
        "The record {path} is damaged ({why}): its attempt is given up, and tried again"
    );
    if let Err(error) = moved {
        tracing::warn!("Cannot move {path} aside: {error}");
    }
}

/// One record.
fn read(path: &Path) -> Result<Kept, Unread> {
    let bytes = std::fs::read(path)?;
    let (steps, whole_len) = steps(&bytes)?;
    check_rest(&bytes[whole_len..]).map_err(Unread::Damaged)?;
    let kept = replay(steps).map_err(Unread::Damaged)?;
    let is_its_name = path.file_name().is_some_and(|name| *name == *file_name(kept.attempt));
    if !is_its_name {
        return Err(Unread::Damaged(format!("it is a record of {}", kept.attempt)));
    }
    if whole_len < bytes.len() {
        OpenOptions::new().write(true).open(path)?.set_len(whole_len as u64)?;
    }
    Ok(kept)
}

/// What follows the whole steps is one that was cut short, unless there are whole ones behind it:
/// those were acted upon.
fn check_rest(rest: &[u8]) -> Result<(), String> {
    match (1..rest.len()).find(|at| split_frame(&rest[*at..]).is_some()) {
        Some(_) => Err("a step in its middle is not what was written".to_owned()),
        None => Ok(()),
    }
}

/// The whole steps in front, and how many bytes they take.
fn steps(bytes: &[u8]) -> io::Result<(Vec<RecordStep>, usize)> {
    let (mut steps, mut at) = (Vec::new(), 0);
    while let Some(step) = split_frame(&bytes[at..]) {
        steps.push(decode(step).map_err(|error| unknown(&error))?);
        at += FRAME_HEADER_LEN + step.len();
    }
    Ok((steps, at))
}

/// The step in the whole frame at the beginning.
fn split_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_LEN>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let step = rest.get(..u32::from_le_bytes([l0, l1, l2, l3]) as usize)?;
    // Zeros, as a power failure leaves them, have the checksum of nothing.
    let is_whole =
        !step.is_empty() && crc32fast::hash(step) == u32::from_le_bytes([c0, c1, c2, c3]);
    is_whole.then_some(step)
}

fn unknown(error: &ConvertError) -> io::Error {
    let words = format!(
        "it is whole, but this version of the worker cannot read it ({error}): start the version \
         that wrote it, or remove the file, and its attempt is given up and tried again"
    );
    io::Error::new(io::ErrorKind::InvalidData, words)
}
