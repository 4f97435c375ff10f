//! Reads the log records of one attempt from disk while they may still be appended, in bounded
//! memory. It never writes, and a record of which only a part is there is not there yet.

use std::io;
use std::path::{Path, PathBuf};

use cloudai_proto::log_record::{Decoder, Record};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

/// Bytes that are read at a time.
const PIECE_LEN: usize = 128 << 10;

/// A position in a file of log records.
#[derive(Debug)]
pub(crate) struct LogReader {
    path: PathBuf,
    /// Open once the file exists; it is made with its first byte.
    file: Option<File>,
    decoder: Decoder,
    piece: Vec<u8>,
}

impl LogReader {
    /// Begins at the first record. The file need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, decoder: Decoder::default(), piece: Vec::new() }
    }

    /// The next records, at least one; `None` when no whole one is there now. Bytes that are no
    /// record are an error of the kind `InvalidData`, and nothing more can be read after it.
    pub(crate) async fn next_records(&mut self) -> io::Result<Option<Vec<Record>>> {
        let Some(file) = open(&self.path, &mut self.file).await? else { return Ok(None) };
        loop {
            self.piece.resize(PIECE_LEN, 0);
            let length = file.read(&mut self.piece).await?;
            if length == 0 {
                return Ok(None);
            }
            self.decoder.push(&self.piece[..length]);
            let mut records = Vec::new();
            loop {
                match self.decoder.next_record() {
                    Ok(Some(record)) => records.push(record),
                    Ok(None) if records.is_empty() => break,
                    Ok(None) => return Ok(Some(records)),
                    // What is whole comes first; the error comes again with the next call.
                    Err(_) if !records.is_empty() => return Ok(Some(records)),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
            }
        }
    }
}

async fn open<'f>(path: &Path, file: &'f mut Option<File>) -> io::Result<Option<&'f mut File>> {
    if file.is_none() {
        match File::open(path).await {
            Ok(opened) => *file = Some(opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(file.as_mut())
}

/// Every whole record of a small file; none when it does not exist. What follows damage is left
/// out.
pub(crate) async fn read_all(path: &Path) -> io::Result<Vec<Record>> {
    let mut reader = LogReader::new(path.to_owned());
    let mut all = Vec::new();
    loop {
        match reader.next_records().await {
            Ok(Some(mut records)) => all.append(&mut records),
            Ok(None) => return Ok(all),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use cloudai_model::Timestamp;
    use cloudai_proto::log_record::{LogStream, encode};

    use super::*;

    fn record(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(LogStream::Stdout, Timestamp(1), text.as_bytes(), &mut bytes);
        bytes
    }

    async fn texts(reader: &mut LogReader) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(records) = reader.next_records().await.unwrap() {
            texts.extend(records.into_iter().map(|r| String::from_utf8(r.bytes).unwrap()));
        }
        texts
    }

    #[tokio::test]
    async fn a_partial_record_is_not_there_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = LogReader::new(path.clone());
        assert_eq!(texts(&mut reader).await, [""; 0]);
        let bytes = [record("one"), record("two")].concat();
        let (head, tail) = bytes.split_at(bytes.len() - 1);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(head).unwrap();
        assert_eq!(texts(&mut reader).await, ["one"]);
        file.write_all(tail).unwrap();
        assert_eq!(texts(&mut reader).await, ["two"]);
    }

    #[tokio::test]
    async fn damage_ends_the_reading_after_what_was_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [record("one"), vec![9; 40], record("two")].concat()).unwrap();
        let mut reader = LogReader::new(path.clone());
        assert_eq!(reader.next_records().await.unwrap().unwrap().len(), 1);
        assert_eq!(read_all(&path).await.unwrap().len(), 1);
    }
}
