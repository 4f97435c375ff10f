//! Finding the engine and learning what it can do. Nothing is assumed of an engine: what is used
//! beyond the oldest API is gated by what `/version` and `/info` say, because the client library
//! sends no version that the engine could refuse. Read next: `container.rs`, which uses the gates.

use std::path::Path;
use std::time::Duration;

use bollard::models::{SystemInfo, SystemVersion};
use bollard::{API_DEFAULT_VERSION, Docker};

use super::engine::{self, CallError, READ_DEADLINE, call};
use crate::executor::{Engine, ExecutorError};

/// The engine's socket when neither the settings nor `DOCKER_HOST` name one.
const SOCKET_DEFAULT: &str = "unix:///var/run/docker.sock";
/// The oldest API with the waits and limits that are always used (engine 17.06).
const API_MIN: Api = Api(1, 30);
/// The API that knows device requests (engine 19.03).
const API_DEVICE_REQUESTS: Api = Api(1, 40);
/// The library's own time-out, out of the way: each call has its own deadline, and a `wait` lasts
/// as long as its container.
const CLIENT_TIMEOUT_S: u64 = 10 * 366 * 24 * 3600;
/// How long a sign of life may take; far more than any engine under load was seen to take.
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// How long the GPU driver may take to count its devices.
const GPU_COUNT_DEADLINE: Duration = Duration::from_secs(5);

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Api(u32, u32);

/// What this engine can do.
#[derive(Debug, Clone)]
pub(super) struct Features {
    /// Name and version for people.
    pub(super) name: String,
    /// Whether the engine is reached by a socket of this machine, so that its volumes may be files
    /// that this process can read.
    pub(super) is_local: bool,
    /// GPUs that can be requested for a container.
    pub(super) gpu_count: u32,
    /// Whether the storage driver bounds the size of a container.
    pub(super) bounds_storage: bool,
    /// Cores of the engine's machine; it refuses a container that asks for more.
    pub(super) cores: Option<u32>,
    /// The log driver of our containers.
    pub(super) log_driver: &'static str,
}

impl Features {
    pub(super) fn engine(&self) -> Engine {
        Engine { name: self.name.clone(), gpu_count: self.gpu_count }
    }
}

/// Connects to `host`, else to `DOCKER_HOST`, else to the default socket.
pub(super) async fn connect(host: Option<&str>) -> Result<(Docker, Features), ExecutorError> {
    let host = host
        .map(str::to_owned)
        .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
        .unwrap_or_else(|| SOCKET_DEFAULT.to_owned());
    let docker = open(&host)?;
    let version = docker.version();
    let version = match tokio::time::timeout(READ_DEADLINE, version).await {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => return Err(unreachable(&host, &error)),
        Err(_) => {
            let why = format!("it did not answer within {} s", READ_DEADLINE.as_secs());
            let hint = "restart dockerd, and look at its log";
            return Err(ExecutorError::Unreachable { host, why, hint });
        }
    };
    let api = check_api(&version)?;
    let info = call("tell what it can do", READ_DEADLINE, docker.info()).await?;
    let features = features(&host, api, &version, &info).await;
    tracing::debug!(?features, "Connected to {host}");
    Ok((docker, features))
}

fn open(host: &str) -> Result<Docker, ExecutorError> {
    let docker = if host.starts_with("unix://") {
        Docker::connect_with_unix(host, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
    } else if host.starts_with("tcp://") || host.starts_with("http://") {
        Docker::connect_with_http(host, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION)
    } else {
        return Err(ExecutorError::Unusable {
            host: host.to_owned(),
            why: "it is not an address that CloudAI can use".to_owned(),
            hint: "set DOCKER_HOST to unix:///path/to/docker.sock or tcp://host:port",
        });
    };
    let docker = docker.map_err(|error| unreachable(host, &error))?;
    Ok(docker.with_request_modifier(|mut request| {
        // The engine decodes this header as URL-safe base64 and silently drops what it cannot
        // decode; the library writes standard base64.
        let header = request.headers().get("x-registry-auth").and_then(|auth| auth.to_str().ok());
        let safe = header.map(|auth| auth.replace('+', "-").replace('/', "_"));
        if let Some(Ok(value)) = safe.map(|auth| auth.parse()) {
            request.headers_mut().insert("x-registry-auth", value);
        }
        request
    }))
}

/// What happened, why, and what to do.
fn unreachable(host: &str, error: &bollard::errors::Error) -> ExecutorError {
    use std::io::ErrorKind;
    let host = host.to_owned();
    let kind = match error {
        bollard::errors::Error::SocketNotFoundError(_) => Some(ErrorKind::NotFound),
        other => engine::find_io_kind(other),
    };
    let (why, hint) = match kind {
        Some(ErrorKind::PermissionDenied) => {
            let hint = "run as root, or add this user to the group docker ('sudo usermod -aG \
                        docker $USER') and log in again";
            return ExecutorError::Unusable { host, why: "permission denied".to_owned(), hint };
        }
        Some(ErrorKind::NotFound) => (
            "there is no such socket".to_owned(),
            "install Docker and start dockerd ('sudo systemctl start docker'), or set DOCKER_HOST",
        ),
        Some(ErrorKind::ConnectionRefused) => (
            "nothing listens there".to_owned(),
            "start dockerd ('sudo systemctl start docker'), or set DOCKER_HOST",
        ),
        _ => (engine::chain(error), "see that dockerd runs ('docker info'), or set DOCKER_HOST"),
    };
    ExecutorError::Unreachable { host, why, hint }
}

impl From<CallError> for ExecutorError {
    fn from(error: CallError) -> Self {
        Self::Engine { why: error.to_string() }
    }
}

fn check_api(version: &SystemVersion) -> Result<Api, ExecutorError> {
    let text = version.api_version.as_deref().unwrap_or_default();
    let api = text
        .split_once('.')
        .and_then(|(major, minor)| Some(Api(major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| ExecutorError::Engine {
            why: format!("what answers there is no Docker engine: its API version is '{text}'"),
        })?;
    if api < API_MIN {
        return Err(ExecutorError::TooOld {
            name: engine_name(version),
            api: text.to_owned(),
            least: format!("{}.{}", API_MIN.0, API_MIN.1),
        });
    }
    Ok(api)
}

fn engine_name(version: &SystemVersion) -> String {
    let components = version.components.iter().flatten();
    let is_podman = components.into_iter().any(|component| component.name.contains("Podman"));
    let kind = if is_podman { "Podman Engine" } else { "Docker Engine" };
    format!("{kind} {}", version.version.as_deref().unwrap_or("of unknown version"))
}

/// Asks for the shortest sign of life there is.
pub(super) async fn ping(docker: &Docker) -> Result<(), CallError> {
    call("answer a ping", PING_DEADLINE, docker.ping()).await.map(|_| ())
}

async fn features(host: &str, api: Api, version: &SystemVersion, info: &SystemInfo) -> Features {
    let drivers = info.plugins.as_ref().and_then(|plugins| plugins.log.as_ref());
    let has_local = drivers.is_some_and(|names| names.iter().any(|name| name == "local"));
    Features {
        name: engine_name(version),
        is_local: host.starts_with("unix://"),
        gpu_count: if can_request_gpus(api, info) { count_gpus().await } else { 0 },
        bounds_storage: bounds_storage(info, &mounts_of(host)),
        cores: info.ncpu.and_then(|cores| u32::try_from(cores).ok()).filter(|cores| *cores > 0),
        // It keeps bytes as they are and bounds its files; json-file replaces what is not UTF-8.
        log_driver: if has_local { "local" } else { "json-file" },
    }
}

fn can_request_gpus(api: Api, info: &SystemInfo) -> bool {
    let runtimes = info.runtimes.iter().flatten();
    let devices = info.discovered_devices.iter().flatten();
    let by_runtime = runtimes.into_iter().any(|(name, _)| name == "nvidia");
    let by_device = devices
        .filter_map(|device| device.id.as_deref())
        .any(|id| id.starts_with("nvidia.com/gpu"));
    api >= API_DEVICE_REQUESTS && (by_runtime || by_device)
}

/// Asks the driver; the engine does not count devices. The driver's library may hang with its
/// hardware, so it is asked on a thread that can be left behind.
async fn count_gpus() -> u32 {
    let counted = tokio::task::spawn_blocking(|| {
        nvml_wrapper::Nvml::init().and_then(|nvml| nvml.device_count())
    });
    match tokio::time::timeout(GPU_COUNT_DEADLINE, counted).await {
        Ok(Ok(Ok(count))) => count,
        Ok(Ok(Err(error))) => {
            tracing::warn!("No GPUs are offered: the NVIDIA driver does not answer: {error}");
            0
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("No GPUs are offered: the NVIDIA driver hangs");
            0
        }
    }
}

/// This machine's mounts; none when the engine is on another.
fn mounts_of(host: &str) -> String {
    if host.starts_with("unix://") {
        std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()
    } else {
        String::new()
    }
}

/// Whether `StorageOpt size` works: where the driver cannot do it, the engine refuses the create.
fn bounds_storage(info: &SystemInfo, mounts: &str) -> bool {
    match info.driver.as_deref() {
        Some("btrfs" | "zfs" | "devicemapper" | "windowsfilter") => true,
        Some("overlay2") => {
            let status = info.driver_status.iter().flatten();
            let is_xfs =
                status.into_iter().any(|pair| pair.as_slice() == ["Backing Filesystem", "xfs"]);
            let root = info.docker_root_dir.as_deref().unwrap_or("/var/lib/docker");
            is_xfs && has_project_quota(mounts, Path::new(root))
        }
        _ => false,
    }
}

fn has_project_quota(mounts: &str, root: &Path) -> bool {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.len() > 3 && root.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len())
        .is_some_and(|fields| fields[3].split(',').any(|o| o == "prjquota" || o == "pquota"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{DeviceInfo, Runtime};

    fn overlay_on(filesystem: &str) -> SystemInfo {
        SystemInfo {
            driver: Some("overlay2".into()),
            driver_status: Some(vec![vec!["Backing Filesystem".into(), filesystem.into()]]),
            docker_root_dir: Some("/var/lib/docker".into()),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn a_size_is_only_asked_of_a_driver_that_can_bound_it() {
        let plain = "/dev/a / xfs rw,relatime 0 0\n";
        let quota = "/dev/a / xfs rw 0 0\n/dev/b /var/lib xfs rw,prjquota 0 0\n";
        assert!(!bounds_storage(&overlay_on("extfs"), quota));
        assert!(!bounds_storage(&overlay_on("xfs"), plain));
        assert!(bounds_storage(&overlay_on("xfs"), quota));
        let zfs = SystemInfo { driver: Some("zfs".into()), ..SystemInfo::default() };
        assert!(bounds_storage(&zfs, ""));
        assert!(!bounds_storage(&SystemInfo::default(), quota));
    }

    #[test]
    fn gpus_need_an_engine_that_can_request_them() {
        let mut info = SystemInfo::default();
        assert!(!can_request_gpus(Api(1, 41), &info));
        info.runtimes = Some([("nvidia".to_owned(), Runtime::default())].into());
        assert!(can_request_gpus(Api(1, 40), &info));
        assert!(!can_request_gpus(Api(1, 39), &info));
        info.runtimes = None;
        let device = DeviceInfo { id: Some("nvidia.com/gpu=0".into()), ..DeviceInfo::default() };
        info.discovered_devices = Some(vec![device]);
        assert!(can_request_gpus(Api(1, 51), &info));
    }

    #[test]
    fn an_old_engine_is_told_what_it_lacks() {
        let version = |api: &str| SystemVersion {
            version: Some("17.03".into()),
            api_version: Some(api.into()),
            ..SystemVersion::default()
        };
        assert_eq!(check_api(&version("1.41")).unwrap(), Api(1, 41));
        let words = check_api(&version("1.27")).unwrap_err().to_string();
        assert!(words.contains("Docker Engine 17.03 speaks API 1.27"), "{words}");
        assert!(check_api(&version("")).is_err());
    }
}
