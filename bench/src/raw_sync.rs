//! The floor under a durable store: appending records to a file and syncing it, nothing else.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Bytes of one record, as large as what the store keeps of one fact.
const RECORD_LEN: usize = 64;

/// Appends `records` with a sync after every `each`, and tells how long it took.
pub(crate) fn append(dir: &Path, records: u32, each: u32) -> Result<Duration> {
    let path = dir.join("raw");
    let mut file = std::fs::File::create(&path)?;
    let batch = vec![7_u8; RECORD_LEN * each as usize];
    let began = Instant::now();
    for _ in 0..records.div_ceil(each) {
        file.write_all(&batch)?;
        file.sync_data()?;
    }
    let took = began.elapsed();
    std::fs::remove_file(&path)?;
    Ok(took)
}
