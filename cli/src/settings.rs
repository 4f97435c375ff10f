//! Settings: flag, else environment, else cloudai.toml, else default. Each knows its origin.
//!
//! One table names every setting; a key of the file that is not in it is an error, never ignored.
//! Read next: `settings/roles.rs` for what a master and a worker get from it.

mod roles;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use roles::{MasterSettings, Prompt, UpSettings, WorkerSettings};

use crate::failure::Failure;

/// Where settings are looked for when nobody names a file.
const FILES: [&str; 2] = ["cloudai.toml", "/etc/cloudai/cloudai.toml"];

/// Largest settings file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A setting: its key in the file and its name in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    key: &'static str,
    env: &'static str,
}

macro_rules! settings {
    ($($name:ident = $key:literal, $env:literal;)*) => {
        $(const $name: Setting = Setting { key: $key, env: $env };)*
        const ALL: &[Setting] = &[$($name,)*];
    };
}

settings! {
    URL = "url", "CLOUDAI_URL";
    USER = "user", "CLOUDAI_USER";
    DATA_DIR = "data_dir", "CLOUDAI_DATA";
    LOG_LEVEL = "log_level", "CLOUDAI_LOG_LEVEL";
    BIND = "bind", "CLOUDAI_BIND";
    INSECURE = "insecure", "CLOUDAI_INSECURE";
    GRPC_PORT = "master.grpc_port", "CLOUDAI_GRPC_PORT";
    HTTP_PORT = "master.http_port", "CLOUDAI_HTTP_PORT";
    POLICY = "master.policy", "CLOUDAI_POLICY";
    WORKER_ID = "worker.id", "CLOUDAI_WORKER_ID";
    WORKER_IP = "worker.ip", "CLOUDAI_WORKER_IP";
    WORKER_PORT = "worker.port", "CLOUDAI_WORKER_PORT";
    WORKER_MASTER = "worker.master", "CLOUDAI_MASTER";
    WORKER_EXECUTOR = "worker.executor", "CLOUDAI_EXECUTOR";
    WORKER_CPUS = "worker.cpus", "CLOUDAI_WORKER_CPUS";
    WORKER_MEMORY = "worker.memory", "CLOUDAI_WORKER_MEMORY";
    WORKER_STORAGE = "worker.storage", "CLOUDAI_WORKER_STORAGE";
    WORKER_VOLUMES = "worker.volumes", "CLOUDAI_WORKER_VOLUMES";
    WORKER_LOG_BYTES_MAX = "worker.log_bytes_max", "CLOUDAI_LOG_BYTES_MAX";
    WORKER_DISK_PERCENT_MAX = "worker.disk_percent_max", "CLOUDAI_DISK_PERCENT_MAX";
    WORKER_PULL_STALL = "worker.pull_stall", "CLOUDAI_PULL_STALL";
    WORKER_ON_STOP = "worker.on_stop", "CLOUDAI_ON_STOP";
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Env(&'static str),
    /// The settings file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its key in the file.
    pub key: &'static str,
    /// Its value as text.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// A reader of the environment, so that tests bring their own.
type Env = Box<dyn Fn(&str) -> Option<String>>;

/// Every source of settings below the flags, and what was looked up in them.
pub struct Settings {
    env: Env,
    file: Option<(PathBuf, toml::Table)>,
    shown: Vec<Shown>,
    /// Nobody is going to act on the values: what a role would refuse is shown all the same.
    only_shows: bool,
}

impl Settings {
    /// Reads the settings file: the one that is named, else the first that exists.
    pub fn load(file: Option<&Path>, env: Env) -> Result<Self, Failure> {
        let named = file.map(Path::to_path_buf).or_else(|| env("CLOUDAI_CONFIG").map(Into::into));
        let path = match named {
            Some(path) => Some(path),
            None => FILES.iter().map(PathBuf::from).find(|path| path.is_file()),
        };
        let file = match path {
            None => None,
            Some(path) => Some((path.clone(), read(&path)?)),
        };
        Ok(Self { env, file, shown: Vec::new(), only_shows: false })
    }

    /// From now on values are looked up to be shown, not to be used.
    pub(crate) fn only_show(&mut self) {
        self.only_shows = true;
    }

    /// Reads the settings file, and the environment of this process.
    pub fn of_process(file: Option<&Path>) -> Result<Self, Failure> {
        Self::load(file, Box::new(|name| std::env::var(name).ok().filter(|text| !text.is_empty())))
    }

    /// What was looked up until now, in that order.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    /// The URL of the master.
    pub fn url(&mut self, flag: Option<&str>) -> Result<String, Failure> {
        self.pick(URL, flag.map(str::to_owned), || "http://127.0.0.1:8080".to_owned())
    }

    /// Whether anybody said where the master is.
    pub fn is_url_named(&self) -> bool {
        self.shown.iter().any(|shown| shown.key == URL.key && shown.origin != Origin::Default)
    }

    /// Who submits: the setting, else the user of the shell.
    pub fn user(&mut self) -> Result<Option<String>, Failure> {
        if let Some(user) = self.find(USER, None::<String>)? {
            return Ok(Some(user));
        }
        Ok((self.env)("USER").or_else(|| (self.env)("LOGNAME")))
    }

    /// The value of a setting, or the default.
    fn pick<T: FromStr<Err: Display> + Display>(
        &mut self,
        setting: Setting,
        flag: Option<T>,
        default: impl FnOnce() -> T,
    ) -> Result<T, Failure> {
        if let Some(value) = self.find(setting, flag)? {
            return Ok(value);
        }
        let value = default();
        self.show(setting, &value, Origin::Default);
        Ok(value)
    }

    /// The value of a setting, when anybody gave one.
    fn find<T: FromStr<Err: Display> + Display>(
        &mut self,
        setting: Setting,
        flag: Option<T>,
    ) -> Result<Option<T>, Failure> {
        if let Some(value) = flag {
            self.show(setting, &value, Origin::Flag);
            return Ok(Some(value));
        }
        let Some((text, origin)) = self.find_text(setting) else {
            return Ok(None);
        };
        let value = text.parse::<T>().map_err(|why| {
            Failure::usage(format!("{} ({origin}) cannot be '{text}': {why}", setting.key))
        })?;
        self.show(setting, &value, origin);
        Ok(Some(value))
    }

    fn find_text(&self, setting: Setting) -> Option<(String, Origin)> {
        if let Some(text) = (self.env)(setting.env) {
            return Some((text, Origin::Env(setting.env)));
        }
        let (path, table) = self.file.as_ref()?;
        let mut parts = setting.key.split('.');
        let mut value = table.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        Some((plain(value), Origin::File(path.clone())))
    }

    fn show(&mut self, setting: Setting, value: &impl Display, origin: Origin) {
        if !self.shown.iter().any(|shown| shown.key == setting.key) {
            self.shown.push(Shown { key: setting.key, value: value.to_string(), origin });
        }
    }
}

/// A value of the file as the environment would have it: lists with commas between.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn read(path: &Path) -> Result<toml::Table, Failure> {
    let error = |why: String| {
        Failure::usage(format!("cannot use the settings file {}: {why}", path.display()))
    };
    let size = std::fs::metadata(path).map_err(|why| error(why.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(error(format!("it has {size} bytes, and at most {FILE_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|why| error(why.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|why: toml::de::Error| error(why.to_string().trim_end().to_owned()))?;
    for (key, value) in &table {
        let keys: Vec<String> = match value {
            toml::Value::Table(inner) => inner.keys().map(|part| format!("{key}.{part}")).collect(),
            _ => vec![key.clone()],
        };
        for key in keys {
            if !ALL.iter().any(|setting| setting.key == key) {
                let known = ALL.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ");
                return Err(error(format!("'{key}' is no setting"))
                    .hint(format!("the settings are {known}")));
            }
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{MasterArgs, OnStop, WorkerArgs};

    fn settings(text: &str, env: &'static [(&'static str, &'static str)]) -> Settings {
        let find = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let mut settings = Settings::load(None, Box::new(find)).unwrap();
        settings.file = Some(("cloudai.toml".into(), text.parse().unwrap()));
        settings
    }

    #[test]
    fn a_flag_stands_above_the_environment_above_the_file_above_the_default() {
        let file = "[master]\nhttp_port = 1\ngrpc_port = 2\npolicy = 'spread'";
        let mut settings =
            settings(file, &[("CLOUDAI_HTTP_PORT", "3"), ("CLOUDAI_GRPC_PORT", "4")]);
        let args = MasterArgs {
            grpc_port: Some(5),
            data_dir: Some("/data".into()),
            ..MasterArgs::default()
        };
        let master = settings.master(&args).unwrap();
        assert_eq!((master.grpc_port, master.http_port), (5, 3));
        assert_eq!(master.policy, "spread");
        let shown: Vec<String> = settings
            .shown()
            .iter()
            .map(|shown| format!("{} = {} ({})", shown.key, shown.value, shown.origin))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        data_dir = /data (flag)
        bind = 127.0.0.1 (default)
        insecure = false (default)
        log_level = info (default)
        master.grpc_port = 5 (flag)
        master.http_port = 3 (environment CLOUDAI_HTTP_PORT)
        master.policy = spread (file cloudai.toml)
        ");
    }

    #[test]
    fn a_value_that_makes_no_sense_names_its_origin() {
        let mut settings = settings("", &[("CLOUDAI_WORKER_MEMORY", "2"), ("CLOUDAI_DATA", "/d")]);
        let failure = settings.worker(&WorkerArgs::default()).unwrap_err();
        let want = "worker.memory (environment CLOUDAI_WORKER_MEMORY) cannot be '2': 2 of what? \
                    Give a unit, for example 2GiB or 512MiB";
        assert_eq!(failure.message, want);
    }

    #[test]
    fn a_worker_keeps_its_tasks_only_when_it_is_told_to_and_can() {
        let on_stop = |file, executor: Option<&str>| {
            let mut args = WorkerArgs { data_dir: Some("/data".into()), ..WorkerArgs::default() };
            args.offer.executor = executor.map(str::to_owned);
            settings(file, &[]).worker(&args).map(|worker| worker.on_stop)
        };
        assert_eq!(on_stop("", None), Ok(OnStop::Stop));
        assert_eq!(on_stop("[worker]\non_stop = 'keep'", None), Ok(OnStop::Keep));
        let failure = on_stop("[worker]\non_stop = 'wait'", None).unwrap_err();
        assert!(failure.message.ends_with("cannot be 'wait': it is 'stop' or 'keep'"));
        let failure = on_stop("[worker]\non_stop = 'keep'", Some("mock")).unwrap_err();
        assert_eq!(failure.message, "tasks without containers end with their worker");
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloudai.toml");
        std::fs::write(&path, "[master]\nhttpport = 1\n").unwrap();
        let failure = Settings::load(Some(&path), Box::new(|_| None)).err().unwrap();
        assert!(failure.message.ends_with("'master.httpport' is no setting"), "{failure:?}");
        assert!(failure.hint.unwrap().contains("master.http_port"));
    }

    #[test]
    fn listening_for_others_needs_a_word() {
        let mut settings = settings("bind = '0.0.0.0'", &[("CLOUDAI_DATA", "/d")]);
        let failure = settings.master(&MasterArgs::default()).unwrap_err();
        assert!(failure.message.contains("0.0.0.0"), "{failure:?}");
        let args = MasterArgs { insecure: true, ..MasterArgs::default() };
        assert!(settings.master(&args).is_ok());
    }
}
