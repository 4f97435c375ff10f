//! What a log keeps, marks and counts: at its bounds, on a disk that refuses, and through a worker
//! that is killed at any time. Each test reads through the same reader as the pusher.

use std::fmt::Write as _;
use std::pin::pin;

use super::*;
use cloudai_proto::log_record::{Decoder, RECORD_LEN_MAX, encode};
use proptest::prelude::*;

/// A head of three small records, and segments of two.
const SMALL: Bounds = Bounds { all: 300, head: 60, segment: 124 };

fn at() -> Timestamp {
    Timestamp(1)
}

/// All that can be read, a line for each record.
async fn text(spool: &LogSpool) -> String {
    let (mut reader, mut decoder, mut read) = (spool.reader(), Decoder::default(), 0);
    loop {
        // Pieces that end anywhere.
        let piece =
            reader.read(read, if spool.length() < 10_000 { 7 } else { 65_537 }).await.unwrap();
        if piece.is_empty() {
            break;
        }
        read += piece.len() as u64;
        decoder.push(&piece);
    }
    assert_eq!(read, spool.length());
    let mut text = String::new();
    while let Some(record) = decoder.next_record().unwrap() {
        let bytes = String::from_utf8_lossy(&record.bytes).into_owned();
        writeln!(text, "{:?} {}", record.stream, bytes.escape_debug()).unwrap();
    }
    assert_eq!(decoder.pending_len(), 0);
    text
}

/// Reopens a log, and how much it has been given.
async fn reopened(path: PathBuf, bounds: Bounds) -> (LogWriter, LogSpool, Copied) {
    let (mut writer, spool) = reopen_bounded(path, bounds, &Arc::new(Semaphore::new(1)));
    let copied = writer.copied().await;
    (writer, spool, copied)
}

async fn write(writer: &mut LogWriter, texts: &[&str]) {
    for text in texts {
        writer.write(LogStream::Stdout, at(), text.as_bytes()).await;
    }
}

/// Bytes of disk that the log takes now.
fn on_disk(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn a_log_has_no_file_before_its_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut spool) = open(dir.path().join("log"), 2 << 20);
    writer.write(LogStream::Stdout, at(), b"").await;
    assert!(!spool.path().exists());
    writer.write(LogStream::Stdout, at(), b"out").await;
    writer.write(LogStream::Stderr, Timestamp(2), b"err").await;
    assert_eq!(text(&spool).await, "Stdout out\nStderr err\n");
    assert_eq!(spool.wait_beyond(0).await, LogLength::Open(32));
    drop(writer);
    assert_eq!(spool.wait_beyond(32).await, LogLength::Final(32));
}

#[tokio::test]
async fn beyond_its_bound_a_log_keeps_its_head_and_its_tail_and_marks_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, spool) = open_bounded(dir.path().join("log"), SMALL);
    let lines = (0..100).map(|number| format!("line {number:02}\n")).collect::<Vec<_>>();
    write(&mut writer, &lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let head = "Stdout line 00\\n\nStdout line 01\\n\n\
                Gap the log grows beyond its bound of 300 bytes: its end follows when the task has \
                ended\n";
    assert_eq!(text(&spool).await, head, "a follower is told why nothing comes");
    writer.finish().await.unwrap();
    // Two lines fit into a segment, and the last segment of the four has one or two.
    let gap = "Gap 720 bytes of stdout and 0 bytes of stderr (90 lines) are missing here: the log \
               is longer than 300 bytes\n";
    let tail =
        (92..100).fold(String::new(), |tail, number| tail + &format!("Stdout line {number}\\n\n"));
    assert_eq!(text(&spool).await, format!("{head}{gap}{tail}"));
}

#[tokio::test]
async fn a_log_that_just_fits_has_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, spool) = open_bounded(dir.path().join("log"), SMALL);
    write(&mut writer, &["a", "b", "c", "d", "e"]).await;
    writer.finish().await.unwrap();
    let all = text(&spool).await;
    assert!(!all.contains("missing"), "{all}");
    assert!(all.starts_with("Stdout a\nStdout b\n") && all.ends_with("d\nStdout e\n"), "{all}");
}

#[tokio::test]
async fn a_log_never_takes_more_disk_than_its_bound_and_keeps_that_much() {
    let (dir, bound) = (tempfile::tempdir().unwrap(), 2 << 20);
    let (mut writer, spool) = open_bounded(dir.path().join("log"), Bounds::of(bound));
    // Longer than a segment, shorter than a record, and with the longest records in between.
    for length in [300_000, 100, RECORD_LEN_MAX, 77_777].repeat(20) {
        writer.write(LogStream::Stdout, at(), &vec![b'x'; length]).await;
        assert!(on_disk(dir.path()) <= bound);
    }
    writer.finish().await.unwrap();
    assert!(on_disk(dir.path()) <= bound);
    assert!((bound * 3 / 4..=bound).contains(&spool.length()), "{}", spool.length());
    assert!(text(&spool).await.contains("are missing here: the log is longer than 2097152 bytes"));
    remove(spool.path()).unwrap();
    assert_eq!(on_disk(dir.path()), 0);
}

#[tokio::test]
async fn what_the_disk_refused_is_counted_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("not-yet");
    let (mut writer, spool) = open(place.join("log"), 2 << 20);
    write(&mut writer, &["lost\n", "too"]).await;
    writer.write(LogStream::Stderr, at(), b"and this").await;
    std::fs::create_dir(&place).unwrap();
    write(&mut writer, &["kept"]).await;
    let want = "Gap 8 bytes of stdout and 8 bytes of stderr (1 lines) are missing here: the disk \
                refused them\nStdout kept\n";
    assert_eq!(text(&spool).await, want);
}

#[tokio::test]
async fn what_the_disk_refused_to_the_end_is_told_nevertheless() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut spool) = open(dir.path().join("not-there").join("log"), 2 << 20);
    write(&mut writer, &["lost"]).await;
    assert_eq!(spool.wait_now_or_beyond(false, 0).await, LogLength::Open(0));
    writer.finish().await.unwrap_err();
    assert_eq!(spool.wait_now_or_beyond(false, 0).await, LogLength::Final(spool.length()));
    let want = "Gap 4 bytes of stdout and 0 bytes of stderr (0 lines) are missing here: the disk \
                refused them\n";
    assert_eq!(text(&spool).await, want);
}

#[tokio::test]
async fn a_log_is_not_ended_for_the_next_process_while_the_disk_refuses_its_end() {
    // The disk refuses the head, the first segment, and one in the place of another.
    check_refused_end(0, "log").await;
    check_refused_end(2, "log.tail0").await;
    check_refused_end(100, "log.tail1").await;
}

/// After `count` lines, what stands in the place of the file `in_the_way` is a folder.
async fn check_refused_end(count: usize, in_the_way: &str) {
    let (dir, next) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, in_the_way) = (dir.path().join("log"), dir.path().join(in_the_way));
    let (mut writer, spool) = open_bounded(path.clone(), SMALL);
    write(&mut writer, &vec!["12345678"; count]).await;
    if count == 100 {
        std::fs::remove_file(&in_the_way).unwrap();
    }
    std::fs::create_dir(&in_the_way).unwrap();
    write(&mut writer, &["all lost"]).await;
    writer.finish().await.unwrap_err();
    let all = text(&spool).await;
    let note = "Gap 8 bytes of stdout and 0 bytes of stderr (0 lines) are missing here: the disk \
                refused them\n";
    assert!(all.ends_with(note), "{all}");

    // Killed now, the next process goes on where the disk stands.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), next.path().join(entry.file_name())).unwrap();
        }
    }
    let (mut again, again_spool, copied) = reopened(next.path().join("log"), SMALL).await;
    assert_eq!(copied.stdout_bytes, 8 * count as u64);
    write(&mut again, &["all lost"]).await;
    again.finish().await.unwrap();
    let all_again = text(&again_spool).await;
    assert!(all_again.ends_with("Stdout all lost\n"), "{all_again}");

    // Once the disk takes the end, the log is final, with what was shown.
    std::fs::remove_dir(&in_the_way).unwrap();
    write(&mut writer, &["too late"]).await;
    writer.finish().await.unwrap();
    assert_eq!(text(&spool).await, all);
    let (mut writer, spool, copied) = reopened(path, SMALL).await;
    assert_eq!(copied, Copied::default());
    write(&mut writer, &["too late"]).await;
    assert_eq!(text(&spool).await, all);
}

#[tokio::test]
async fn a_write_that_is_given_up_is_written_nevertheless() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, spool) = open(dir.path().join("log"), 2 << 20);
    {
        let mut given_up = std::pin::pin!(writer.write(LogStream::Stdout, at(), b"one"));
        let polled = futures_util::poll!(&mut given_up);
        assert!(polled.is_pending() || polled.is_ready());
    }
    write(&mut writer, &["two"]).await;
    writer.finish().await.unwrap();
    assert_eq!(text(&spool).await, "Stdout one\nStdout two\n");
}

#[tokio::test]
async fn a_finished_log_is_final_when_it_is_reopened_and_takes_nothing_more() {
    for count in [3, 100] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut writer, spool) = open_bounded(path.clone(), SMALL);
        write(&mut writer, &vec!["12345678"; count]).await;
        writer.finish().await.unwrap();
        let want = text(&spool).await;
        let (mut writer, mut spool, _) = reopened(path, SMALL).await;
        assert_eq!(spool.found().await, Some(spool.length()));
        assert_eq!(spool.wait_beyond(u64::MAX).await, LogLength::Final(spool.length()));
        write(&mut writer, &["more"]).await;
        assert_eq!(text(&spool).await, want);
    }
}

#[tokio::test]
async fn a_log_that_is_not_there_is_reopened_as_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, spool, copied) = reopened(dir.path().join("log"), SMALL).await;
    assert_eq!((copied, spool.found().await), (Copied::default(), Some(0)));
    write(&mut writer, &["first"]).await;
    assert_eq!(text(&spool).await, "Stdout first\n");
}

#[tokio::test]
async fn a_log_that_cannot_be_read_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::create_dir(&path).unwrap();
    let (mut writer, spool, copied) = reopened(path.clone(), SMALL).await;
    assert_eq!((copied, spool.found().await), (Copied::default(), Some(0)));
    std::fs::remove_dir(path).unwrap();
    write(&mut writer, &["first"]).await;
    assert_eq!(text(&spool).await, "Stdout first\n");
}

#[tokio::test]
async fn a_log_that_cannot_be_read_and_gets_nothing_more_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::create_dir(&path).unwrap();
    let (mut writer, spool, _) = reopened(path, SMALL).await;
    writer.finish().await.unwrap_err();
    let all = text(&spool).await;
    assert!(all.starts_with("Gap what an earlier process kept of the log cannot be read"), "{all}");
}

#[tokio::test]
async fn whoever_needs_a_log_waits_until_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut writer, _) = open_bounded(path.clone(), SMALL);
    write(&mut writer, &["before"]).await;
    drop(writer);
    let reads = Arc::new(Semaphore::new(1));
    let other = reads.acquire().await.unwrap();
    let (mut writer, mut spool) = reopen_bounded(path, SMALL, &reads);
    let mut follower = spool.clone();
    {
        // As many are read at once as may be: nobody sees an empty log meanwhile.
        let (mut found, mut copied) = (pin!(spool.found()), pin!(writer.copied()));
        let mut length = pin!(follower.wait_now_or_beyond(false, 0));
        assert!(futures_util::poll!(&mut found).is_pending());
        assert!(futures_util::poll!(&mut copied).is_pending());
        assert!(futures_util::poll!(&mut length).is_pending());
        drop(other);
        assert_eq!(copied.await, Copied { stdout_bytes: 6, stderr_bytes: 0 });
        assert_eq!((found.await, length.await), (Some(19), LogLength::Open(19)));
    }
    write(&mut writer, &["after"]).await;
    assert_eq!(text(&spool).await, "Stdout before\nStdout after\n");
    writer.finish().await.unwrap();
    assert_eq!(spool.wait_beyond(u64::MAX).await, LogLength::Final(37));
}

#[tokio::test]
async fn a_writer_that_goes_before_the_end_leaves_the_log_open_to_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut writer, mut spool) = open_bounded(path.clone(), SMALL);
    for text in ["one", "two", "three", "four"] {
        write(&mut writer, &[text]).await;
        drop(writer);
        assert_eq!(spool.wait_beyond(u64::MAX).await, LogLength::Final(spool.length()));
        // One that goes while its log is still read as well.
        let reads = Arc::new(Semaphore::new(1));
        (writer, spool) = reopen_bounded(path.clone(), SMALL, &reads);
        drop(writer);
        assert_eq!(spool.wait_beyond(u64::MAX).await, LogLength::Final(spool.length()));
        (writer, spool, _) = reopened(path.clone(), SMALL).await;
    }
    writer.finish().await.unwrap();
    let all = text(&spool).await;
    let lines = all.lines().filter(|line| line.starts_with("Stdout")).collect::<Vec<_>>();
    assert_eq!(lines, ["Stdout one", "Stdout two", "Stdout three", "Stdout four"]);
}

#[tokio::test]
async fn a_new_log_has_nothing_of_an_older_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut writer, _) = open_bounded(path.clone(), SMALL);
    write(&mut writer, &["12345678"; 100]).await;
    writer.finish().await.unwrap();
    let (mut writer, _) = open_bounded(path.clone(), SMALL);
    write(&mut writer, &["new"]).await;
    std::mem::forget(writer);
    let (_writer, spool, _) = reopened(path, SMALL).await;
    assert_eq!(text(&spool).await, "Stdout new\n");
}

/// What happens to a log.
#[derive(Debug, Clone)]
enum Step {
    Write(LogStream, Vec<u8>),
    /// The worker is killed, perhaps in the middle of a write of which so much was done.
    Kill(Option<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let stream = prop_oneof![Just(LogStream::Stdout), Just(LogStream::Stderr)];
    let write = (stream, prop::collection::vec(any::<u8>(), 1..40))
        .prop_map(|(stream, bytes)| Step::Write(stream, bytes));
    let kill = prop::option::of(1..30_usize).prop_map(Step::Kill);
    prop::collection::vec(prop_oneof![9 => write, 1 => kill], 0..60)
}

/// The file that is being written: the segment with the highest number, else the head.
fn newest(path: &Path) -> PathBuf {
    let segments = (0..tail::SEGMENTS).map(|slot| tail::slot_path(path, slot));
    let numbered = segments.filter_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        Some((u64::from_le_bytes(bytes[8..16].try_into().unwrap()), path))
    });
    numbered.max().map_or_else(|| path.to_owned(), |(_, path)| path)
}

fn tear(path: &Path, length: usize) {
    use std::io::Write as _;
    let path = newest(path);
    if !path.exists() {
        return;
    }
    let mut record = Vec::new();
    encode(LogStream::Stdout, at(), &[b'x'; 40], &mut record);
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(&record[..length]).unwrap();
}

proptest! {
    #[test]
    fn killed_at_any_time_a_log_counts_right_and_keeps_a_head_and_a_tail(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check_steps(steps));
    }
}

async fn check_steps(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (mut writer, mut spool) = open_bounded(path.clone(), SMALL);
    let (mut all, mut expected) = ([Vec::new(), Vec::new()], Copied::default());
    for step in steps {
        match step {
            Step::Write(stream, bytes) => {
                writer.write(stream, at(), &bytes).await;
                let side = usize::from(stream == LogStream::Stderr);
                all[side].extend_from_slice(&bytes);
                *[&mut expected.stdout_bytes, &mut expected.stderr_bytes][side] +=
                    bytes.len() as u64;
            }
            Step::Kill(torn) => {
                std::mem::forget(writer);
                if let Some(length) = torn {
                    tear(&path, length);
                }
                let length = spool.length();
                let copied;
                (writer, spool, copied) = reopened(path.clone(), SMALL).await;
                assert_eq!((copied, spool.length()), (expected, length));
            }
        }
    }
    writer.finish().await.unwrap();
    let (mut reader, mut decoder) = (spool.reader(), Decoder::default());
    decoder.push(&reader_all(&mut reader).await);
    let mut kept = [Vec::new(), Vec::new()];
    while let Some(record) = decoder.next_record().unwrap() {
        let missing = seen::Seen::behind(record.stream, &record.bytes);
        match record.stream {
            LogStream::Stdout => kept[0].extend(record.bytes),
            LogStream::Stderr => kept[1].extend(record.bytes),
            // A hole in the place of what is missing.
            LogStream::Gap => {
                for (kept, (all, missing)) in
                    kept.iter_mut().zip(all.iter().zip([missing.stdout, missing.stderr]))
                {
                    let begin = kept.len();
                    kept.extend_from_slice(&all[begin..begin + missing as usize]);
                }
            }
        }
    }
    assert_eq!(kept, all);
}

async fn reader_all(reader: &mut read::SpoolReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let piece = reader.read(bytes.len() as u64, 1 << 20).await.unwrap();
        if piece.is_empty() {
            return bytes;
        }
        bytes.extend(piece);
    }
}
