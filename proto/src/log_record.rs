//! The records of which an attempt's log is made, as one sequence of bytes: what the worker
//! spools, `PushLog` carries by offset, the master keeps, and readers decode.
//!
//! A record, little endian: `u8` stream (1 stdout, 2 stderr, 3 gap note), `u64` Unix
//! milliseconds, `u32` length, bytes. A record says nothing about lines: a line may span records.
//! The decoder takes bytes from files and peers that may be cut or damaged; it must never panic.

use cloudai_model::Timestamp;

/// Longest payload of one record in bytes; `encode` splits what is longer.
pub const RECORD_LEN_MAX: usize = 64 << 10;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 13;

/// Where a record's bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// The container's standard output.
    Stdout,
    /// The container's standard error.
    Stderr,
    /// CloudAI itself: output is missing here, and the payload says why.
    Gap,
}

impl LogStream {
    /// Its number in a record.
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Gap => 3,
        }
    }

    /// The stream with this number.
    pub const fn find(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Gap),
            _ => None,
        }
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it came from.
    pub stream: LogStream,
    /// When the worker read it.
    pub at: Timestamp,
    /// The bytes as the container wrote them; any bytes at all.
    pub bytes: Vec<u8>,
}

/// Appends `bytes` to `out` as one record, or as several when they are longer than
/// [`RECORD_LEN_MAX`]; nothing for no bytes.
pub fn encode(stream: LogStream, at: Timestamp, bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(RECORD_LEN_MAX) {
        out.push(stream.number());
        out.extend_from_slice(&at.unix_ms().to_le_bytes());
        out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        out.extend_from_slice(piece);
    }
}

/// Bytes that are no record: the rest of the sequence cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A stream number that does not exist.
    Stream(u8),
    /// A payload longer than [`RECORD_LEN_MAX`].
    Length(u32),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(number) => write!(f, "the log is damaged: no stream has number {number}"),
            Self::Length(length) => {
                write!(f, "the log is damaged: a record of {length} bytes cannot be")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

/// Takes the sequence in pieces of any size and gives its records in order.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of `buffer` was given out as records.
    read: usize,
}

impl Decoder {
    /// Adds the next piece of the sequence.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole record; `None` until more is pushed. After an error, only errors follow.
    pub fn next_record(&mut self) -> Result<Option<Record>, DecodeError> {
        let Some((header, rest)) = self.buffer[self.read..].split_first_chunk::<HEADER_LEN>()
        else {
            return Ok(None);
        };
        let [number, a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3] = *header;
        let stream = LogStream::find(number).ok_or(DecodeError::Stream(number))?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length as usize > RECORD_LEN_MAX {
            return Err(DecodeError::Length(length));
        }
        let Some(bytes) = rest.get(..length as usize) else { return Ok(None) };
        let at = Timestamp(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]));
        let record = Record { stream, at, bytes: bytes.to_vec() };
        self.read += HEADER_LEN + length as usize;
        Ok(Some(record))
    }

    /// Bytes that were pushed and do not yet make a whole record.
    pub fn pending_len(&self) -> usize {
        self.buffer.len() - self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<Record>, DecodeError> {
        let mut decoder = Decoder::default();
        let mut records = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(record) = decoder.next_record()? {
                records.push(record);
            }
        }
        Ok(records)
    }

    #[test]
    fn a_record_is_laid_out_as_the_header_says() {
        let mut out = Vec::new();
        encode(LogStream::Stderr, Timestamp(0x0102), b"hi", &mut out);
        assert_eq!(out, [2, 2, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'h', b'i']);
    }

    #[test]
    fn long_output_is_split_at_the_bound_and_none_is_lost() {
        for (length, want) in [(0, 0), (1, 1), (RECORD_LEN_MAX, 1), (RECORD_LEN_MAX + 1, 2)] {
            let mut out = Vec::new();
            encode(LogStream::Stdout, Timestamp(1), &vec![7; length], &mut out);
            let records = decode(&[&out]).unwrap();
            assert_eq!(records.len(), want);
            assert_eq!(records.iter().map(|record| record.bytes.len()).sum::<usize>(), length);
        }
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        assert_eq!(decode(&[&[9; 13]]), Err(DecodeError::Stream(9)));
        let mut long = vec![1; 9];
        long.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&[&long]), Err(DecodeError::Length(u32::MAX)));
    }

    proptest! {
        #[test]
        fn records_survive_any_cutting(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            cut in 1_usize..40,
        ) {
            let mut bytes = Vec::new();
            for (at, payload) in payloads.iter().enumerate() {
                encode(LogStream::Stdout, Timestamp(at as u64), payload, &mut bytes);
            }
            let pieces = bytes.chunks(cut).collect::<Vec<_>>();
            let records = decode(&pieces).unwrap();
            let got = records.into_iter().map(|record| record.bytes).collect::<Vec<_>>();
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
