//! The second connection to the master: logs and files, so that they never delay a lease. One call
//! here is retried until it is done, refused for good, or not wanted any more. Read next:
//! `push.rs` and `upload.rs`, which make the calls.

use std::error::Error;
use std::io;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use rustix::io::Errno;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::config::WorkerError;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a quiet connection is asked whether its peer is there, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Receive windows: a burst of assigns must not wait for window updates.
const WINDOW_BYTES: u32 = 4 << 20;
/// Longest message from the master: orders that assign as many attempts as a worker may hold.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The longest pause between two tries, before jitter, which at most doubles it: a worker is back
/// within 5 s of its master's return.
const PAUSE_MAX: Duration = Duration::from_millis(2500);
/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// A client of the master over one connection.
pub(crate) type Client = MasterWorkerClient<Channel>;

/// How the master is reached; connections are made from it.
pub(crate) fn endpoint(master: &str) -> Result<Endpoint, WorkerError> {
    let wrong = || WorkerError::MasterAddress { address: master.to_owned() };
    let has_port = master.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !has_port || master.contains('/') {
        return Err(wrong());
    }
    let endpoint = Endpoint::from_shared(format!("http://{master}")).map_err(|_| wrong())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true))
}

/// A client over a connection.
pub(crate) fn client(channel: Channel) -> Client {
    MasterWorkerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The pauses between tries: growing, jittered, without an end.
pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .without_max_times()
        .build()
}

/// The next pause; the sequence has no end.
pub(crate) fn next_pause(pauses: &mut ExponentialBackoff) -> Duration {
    pauses.next().unwrap_or(PAUSE_MAX)
}

/// How often a call is made that the master itself fails, and not the way to it.
const FAULTS_MAX: u32 = 10;

/// The tries of one call.
pub(crate) struct Tries {
    pauses: ExponentialBackoff,
    faults: u32,
    of_session: bool,
}

impl Tries {
    /// Of a call that a refusal ends.
    pub(crate) fn new() -> Self {
        Self { pauses: pauses(), faults: 0, of_session: false }
    }

    /// Of a call for an attempt of the session. That the attempt is not this worker's says the
    /// master also while it reconciles, as after its restore; once it is so for good, the attempt
    /// is dropped, and the call with it.
    pub(crate) fn of_session() -> Self {
        Self { of_session: true, ..Self::new() }
    }

    /// The call goes well enough to begin its tries anew.
    pub(crate) fn made_progress(&mut self) {
        *self = Self { of_session: self.of_session, ..Self::new() };
    }

    /// Waits for the next try; false when the master will not or cannot do what is asked. A master
    /// that is away is waited for as long as it takes.
    pub(crate) async fn again(&mut self, status: &Status) -> bool {
        match status.code() {
            Code::FailedPrecondition if self.of_session => {}
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented => return false,
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {}
            _ => self.faults += 1,
        }
        if self.faults == FAULTS_MAX {
            return false;
        }
        tracing::debug!("A call to the master is made again: {}", words(status));
        tokio::time::sleep(next_pause(&mut self.pauses)).await;
        true
    }
}

/// For a file that cannot be opened because too many are open: that passes, as when all that ended
/// while the master was away is delivered at once. `None` for any other error.
pub(crate) fn find_exhausted(error: &io::Error) -> Option<Status> {
    let code = Errno::from_io_error(error)?;
    let passes = matches!(code, Errno::MFILE | Errno::NFILE);
    passes.then(|| Status::unavailable(format!("this worker cannot open a file: {error}")))
}

/// A failed call in words: its status, or what is below it when the connection failed.
pub(crate) fn words(status: &Status) -> String {
    let message = status.message();
    match status.source().map(|cause| innermost(cause).to_string()) {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        _ if message.is_empty() => status.code().description().to_owned(),
        _ => message.to_owned(),
    }
}

/// The innermost cause, which says what a person can act on (`Connection refused`).
pub(crate) fn innermost<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_is_named_by_host_and_port() {
        for address in ["localhost:50051", "10.0.0.1:1", "[::1]:50051"] {
            assert!(endpoint(address).is_ok(), "{address}");
        }
        for address in ["", "localhost", ":50051", "localhost:0", "http://x:1", "a b:1"] {
            assert!(endpoint(address).is_err(), "{address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_master_that_is_away_is_waited_for_and_one_that_cannot_is_not() {
        let mut tries = Tries::new();
        for _ in 0..1000 {
            assert!(tries.again(&Status::unavailable("")).await);
        }
        assert!(!tries.again(&Status::permission_denied("")).await);
        let full = Status::resource_exhausted("");
        let mut count = 1;
        while tries.again(&full).await {
            count += 1;
        }
        assert_eq!(count, FAULTS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_master_that_does_not_know_the_sessions_attempt_yet_is_waited_for() {
        let unknown = Status::failed_precondition("not the current attempt any more");
        let mut tries = Tries::of_session();
        for _ in 0..1000 {
            tries.made_progress();
            assert!(tries.again(&unknown).await);
        }
        assert!(!Tries::new().again(&unknown).await);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_open_files_are_waited_for_and_a_missing_one_is_not() {
        let mut tries = Tries::of_session();
        for code in [Errno::MFILE, Errno::NFILE].repeat(100) {
            assert!(tries.again(&find_exhausted(&code.into()).unwrap()).await);
        }
        assert!(find_exhausted(&Errno::NOENT.into()).is_none());
    }

    #[test]
    fn a_worker_tries_again_within_five_seconds_for_ever() {
        let mut pauses = pauses();
        for _ in 0..200 {
            assert!(next_pause(&mut pauses) <= Duration::from_secs(5));
        }
        assert!(pauses.next().is_some());
    }
}
