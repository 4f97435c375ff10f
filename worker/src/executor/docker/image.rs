//! Fetching images. One pull an image at a time, whoever wants it; each waiter may leave, and the
//! pull goes on as long as one is left. A pull that makes no progress is ended. It must never
//! decide whether a pull is needed: that is the policy's, in `life.rs`.
//!
//! Whose fault a failure is, is told by words only: the engine gives one status for all of them. An
//! image that is not there, or that nobody may have, is the task's; everything else may be well the
//! next time, or on another worker.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use cloudai_model::{Cause, Outcome};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::credentials;
use super::engine::CallError;

/// How long a pull may go on without progress, unless the settings say otherwise.
pub const PULL_STALL_DEFAULT: Duration = Duration::from_mins(2);
/// Fewer new bytes than this are no progress: a trickle is a stall.
const STALL_BYTES: u64 = 64 << 10;
/// How often a pull's progress is told, unless a tenth of it was passed.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
/// Words by which the registry could not be asked, or could not answer, in lower case. They stand
/// above those of an image, because they may be said of one. A host that does not exist is not
/// among them: it is a wrong name.
const AWAY_WORDS: [&str; 23] = [
    "connection refused",
    "connection reset",
    "no route to host",
    "network is unreachable",
    "host is down",
    "broken pipe",
    "timeout",
    "timed out",
    "deadline exceeded",
    "request canceled",
    "server misbehaving",
    "temporary failure",
    ": eof",
    "unexpected eof",
    "x509",
    "proxyconnect",
    "http status: 5",
    "service unavailable",
    "bad gateway",
    "toomanyrequests",
    "no space left on device",
    "read-only file system",
    "input/output error",
];
/// Words by which there is no such image, or none for this worker, in lower case.
const IMAGE_WORDS: [&str; 15] = [
    "no such host",
    "not found",
    "no such image",
    "manifest unknown",
    "name unknown",
    "does not exist",
    "access denied",
    "is denied",
    "denied:",
    "unauthorized",
    "authentication required",
    "no basic auth credentials",
    "no matching manifest",
    "invalid reference",
    "unsupported",
];

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PullState {
    /// On its way, with words for people.
    Running(String),
    /// Over; the error is what the attempts that wait for it end with.
    Done(Result<(), Outcome>),
}

/// The pulls that are under way, by the whole reference.
#[derive(Debug)]
pub(super) struct Pulls {
    running: Mutex<HashMap<String, watch::Receiver<PullState>>>,
    stall: Duration,
}

impl Pulls {
    /// None yet; one that makes no progress for as long as `stall` is ended.
    pub(super) fn new(stall: Duration) -> Self {
        Self { running: Mutex::default(), stall }
    }

    /// Joins the pull of `image` that is under way, or begins one.
    pub(super) fn join(
        self: &Arc<Self>,
        docker: &Docker,
        config_dir: Option<PathBuf>,
        image: &str,
    ) -> watch::Receiver<PullState> {
        let image = with_tag(image);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pull) = running.get(&image) {
            // A pull whose sender is gone has ended, or was given up by its last waiter.
            if pull.has_changed().is_ok() {
                return pull.clone();
            }
        }
        let (sender, receiver) = watch::channel(PullState::Running(format!("pulling {image}")));
        running.insert(image.clone(), receiver.clone());
        let (pulls, docker) = (Arc::clone(self), docker.clone());
        tokio::spawn(async move { pulls.drive(&docker, config_dir, &image, sender).await });
        receiver
    }

    async fn drive(
        &self,
        docker: &Docker,
        config_dir: Option<PathBuf>,
        image: &str,
        sender: watch::Sender<PullState>,
    ) {
        let given_up = self.given_up(image, &sender);
        let result = tokio::select! {
            result = pull(docker, config_dir, image, self.stall, &sender) => Some(result),
            () = given_up => None,
        };
        // One that was given up is out of the map; the image's entry may be the next pull's.
        let Some(result) = result else { return };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
        sender.send_replace(PullState::Done(result));
    }

    /// Resolves when nobody waits any more. The map holds a receiver of its own, so the count is
    /// looked at under its lock, where nobody can join at the same time.
    async fn given_up(&self, image: &str, sender: &watch::Sender<PullState>) {
        let mut look = tokio::time::interval(NOTE_INTERVAL);
        loop {
            look.tick().await;
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() <= 1 {
                running.remove(image);
                return;
            }
        }
    }
}

/// The reference with the tag that people mean when they give none; without it the engine would
/// fetch every tag there is.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// The reference without its tag or digest.
fn without_tag(image: &str) -> &str {
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    let end = image[name..].find([':', '@']).map_or(image.len(), |tag| name + tag);
    &image[..end]
}

async fn pull(
    docker: &Docker,
    config_dir: Option<PathBuf>,
    image: &str,
    stall: Duration,
    sender: &watch::Sender<PullState>,
) -> Result<(), Outcome> {
    let credentials = find_credentials(config_dir, image, sender).await;
    let options = CreateImageOptionsBuilder::default().from_image(image).build();
    let mut stream = std::pin::pin!(docker.create_image(Some(options), None, credentials));
    let mut meter = Meter::new(image, stall);
    loop {
        let next = tokio::time::timeout_at(meter.stalled_at, stream.next()).await;
        match next {
            Err(_) => {
                let seconds = stall.as_secs_f32();
                let words = format!("cannot pull '{image}': no progress for {seconds} s");
                return Err(Outcome::new(Cause::Infra, words));
            }
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => {
                return Err(refused(image, &CallError::new("pull an image", &error)));
            }
            Ok(Some(Ok(info))) => {
                if let Some(words) = meter.take(&info, Instant::now()) {
                    sender.send_replace(PullState::Running(words));
                }
            }
        }
    }
}

async fn find_credentials(
    config_dir: Option<PathBuf>,
    image: &str,
    sender: &watch::Sender<PullState>,
) -> Option<DockerCredentials> {
    match credentials::find(config_dir.as_ref(), image).await {
        Ok(credentials) => credentials,
        Err(words) => {
            tracing::warn!("Pulling {image} without credentials: {words}");
            let words = format!("pulling {image} without credentials: {words}");
            sender.send_replace(PullState::Running(words));
            None
        }
    }
}

/// What the engine or the registry said, as the end of an attempt.
fn refused(image: &str, error: &CallError) -> Outcome {
    let (cause, words) = match error {
        // A name may hold any of the words.
        CallError::Refused { message, .. } => {
            (cause_of(&message.replace(without_tag(image), "")), message.clone())
        }
        lost => (Cause::Infra, lost.to_string()),
    };
    Outcome::new(cause, format!("cannot pull '{image}': {words}"))
}

fn cause_of(message: &str) -> Cause {
    let message = message.to_lowercase();
    let says = |list: &[&str]| list.iter().any(|words| message.contains(words));
    if !says(&AWAY_WORDS) && says(&IMAGE_WORDS) { Cause::Image } else { Cause::Infra }
}

/// What is known of one layer.
#[derive(Debug, Default)]
struct Layer {
    status: String,
    /// What the status counts, from 0 on at each: bytes fetched, bytes or seconds of extracting.
    count: u64,
    current: u64,
    total: u64,
}

/// Adds up the layers, and knows what is worth telling and what is progress.
#[derive(Debug)]
struct Meter {
    image: String,
    layers: HashMap<String, Layer>,
    stall: Duration,
    stalled_at: Instant,
    /// Bytes since progress was last seen.
    trickle: u64,
    told_at: Option<Instant>,
    told_tenth: u64,
}

impl Meter {
    fn new(image: &str, stall: Duration) -> Self {
        Self {
            image: image.to_owned(),
            layers: HashMap::new(),
            stall,
            stalled_at: Instant::now() + stall,
            trickle: 0,
            told_at: None,
            told_tenth: 0,
        }
    }

    /// Takes one message of the engine in; gives words when there is something to tell.
    fn take(&mut self, info: &CreateImageInfo, now: Instant) -> Option<String> {
        let (id, status) = (info.id.as_deref()?, info.status.as_deref()?);
        let layer = self.layers.entry(id.to_owned()).or_default();
        let detail = info.progress_detail.as_ref();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let current = number(detail.and_then(|detail| detail.current)).unwrap_or(0);
        // "Retrying in 3 seconds" counts down without getting anywhere.
        let is_new = layer.status != status && !status.starts_with("Retrying");
        if layer.status != status {
            layer.count = 0;
            status.clone_into(&mut layer.status);
        }
        let more = current.saturating_sub(layer.count);
        layer.count = layer.count.max(current);
        self.trickle += more;
        // Extracting is this machine's own work, and some engines count it in seconds.
        let is_extracted = more > 0 && status == "Extracting";
        if is_new || is_extracted || self.trickle >= STALL_BYTES {
            self.trickle = 0;
            self.stalled_at = now + self.stall;
        }
        if status == "Downloading" {
            layer.current = current;
            layer.total = number(detail.and_then(|detail| detail.total)).unwrap_or(layer.total);
        } else if status == "Download complete" || status == "Pull complete" {
            layer.current = layer.total;
        } else {
            layer.current = layer.current.max(current);
        }
        self.tell(now)
    }

    fn tell(&mut self, now: Instant) -> Option<String> {
        let total = self.layers.values().map(|layer| layer.total).sum::<u64>();
        let current = self.layers.values().map(|layer| layer.current.min(layer.total)).sum::<u64>();
        let percent = (current * 100).checked_div(total)?;
        let is_due = self.told_at.is_none_or(|told| now >= told + NOTE_INTERVAL);
        if percent / 10 == self.told_tenth && !is_due {
            return None;
        }
        self.told_at = Some(now);
        self.told_tenth = percent / 10;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (image, done, of) = (&self.image, mib(current), mib(total));
        Some(format!("pulling {image}: {percent} % of {of:.1} MiB ({done:.1} MiB)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn an_image_without_a_tag_means_latest() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("127.0.0.1:5000/a"), "127.0.0.1:5000/a:latest");
        assert_eq!(with_tag("127.0.0.1:5000/a:b"), "127.0.0.1:5000/a:b");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }

    fn message(status: &str, current: i64, total: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some("layer".into()),
            status: Some(status.into()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_told_every_tenth_or_every_two_seconds() {
        let mut meter = Meter::new("x", PULL_STALL_DEFAULT);
        let start = Instant::now();
        let mib = 1 << 20;
        let first = meter.take(&message("Downloading", mib, 100 * mib), start).unwrap();
        assert_eq!(first, "pulling x: 1 % of 100.0 MiB (1.0 MiB)");
        assert_eq!(meter.take(&message("Downloading", 2 * mib, 100 * mib), start), None);
        assert!(meter.take(&message("Downloading", 10 * mib, 100 * mib), start).is_some());
        let later = start + NOTE_INTERVAL;
        assert!(meter.take(&message("Downloading", 11 * mib, 100 * mib), later).is_some());
        let done = meter.take(&message("Download complete", 0, 0), later).unwrap();
        assert!(done.starts_with("pulling x: 100 %"), "{done}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_and_a_countdown_are_no_progress() {
        let mut meter = Meter::new("x", PULL_STALL_DEFAULT);
        let start = Instant::now();
        meter.take(&message("Downloading", 0, 100 << 20), start);
        let end = meter.stalled_at;
        let later = start + Duration::from_mins(1);
        meter.take(&message("Retrying in 5 seconds", 0, 0), later);
        meter.take(&message("Retrying in 4 seconds", 0, 0), later);
        assert_eq!(meter.stalled_at, end);
        meter.take(&message("Downloading", 10, 100 << 20), later);
        let resumed = meter.stalled_at;
        meter.take(&message("Downloading", 1000, 100 << 20), later + Duration::from_secs(1));
        assert_eq!(meter.stalled_at, resumed);
        meter.take(&message("Downloading", 1 << 20, 100 << 20), later + Duration::from_secs(2));
        assert!(meter.stalled_at > resumed);
    }

    #[tokio::test(start_paused = true)]
    async fn extracting_a_layer_that_is_fetched_is_progress_in_bytes_or_seconds() {
        let mut meter = Meter::new("x", PULL_STALL_DEFAULT);
        let start = Instant::now();
        let mib = 1 << 20;
        meter.take(&message("Downloading", 100 * mib, 100 * mib), start);
        meter.take(&message("Download complete", 0, 0), start);
        for (minute, count) in [(1, 0), (2, 1), (3, 2), (4, 50 * mib), (5, 100 * mib)] {
            let now = start + Duration::from_mins(minute);
            meter.take(&message("Extracting", count, 100 * mib), now);
            assert_eq!(meter.stalled_at, now + PULL_STALL_DEFAULT, "{count}");
            meter.take(&message("Extracting", count, 100 * mib), now + Duration::from_secs(9));
            assert_eq!(meter.stalled_at, now + PULL_STALL_DEFAULT, "{count} again");
        }
    }

    #[test]
    fn the_name_of_an_image_says_nothing_of_its_cause() {
        let cause = |image: &str, message: &str| {
            let message = message.to_owned();
            refused(image, &CallError::Refused { what: "pull an image", status: 404, message })
                .cause
        };
        let missing = "manifest for r:5000/timeout:1 not found: manifest unknown";
        assert_eq!(cause("r:5000/timeout:1", missing), Cause::Image);
        assert_eq!(cause("not found", "something new about not found"), Cause::Infra);
        assert_eq!(without_tag("a@sha256:00"), "a");
        assert_eq!(without_tag("a"), "a");
    }

    #[test]
    fn only_an_image_that_is_not_to_be_had_is_the_tasks_fault() {
        let cause = |message: &str| {
            let message = message.to_owned();
            refused("x", &CallError::Refused { what: "pull an image", status: 500, message }).cause
        };
        for words in [
            "manifest for x:1 not found: manifest unknown: manifest unknown",
            "pull access denied for x, repository does not exist or may require 'docker login'",
            "unauthorized: authentication required",
            "no matching manifest for linux/arm64 in the manifest list entries",
            "Get \"https://typo.example/v2/\": dial tcp: lookup typo.example: no such host",
            "invalid reference format",
        ] {
            assert_eq!(cause(words), Cause::Image, "{words}");
        }
        for words in [
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "Get \"https://r.example/v2/\": dial tcp: lookup r.example: server misbehaving",
            "Get \"https://r.example/v2/\": net/http: TLS handshake timeout",
            "Get \"https://r.example/v2/\": request canceled while waiting for connection",
            "received unexpected HTTP status: 503 Service Unavailable",
            "unexpected EOF",
            "write /var/lib/x: no space left on device",
            "toomanyrequests: You have reached your pull rate limit",
            "something that nobody has seen yet",
        ] {
            assert_eq!(cause(words), Cause::Infra, "{words}");
        }
    }
}
