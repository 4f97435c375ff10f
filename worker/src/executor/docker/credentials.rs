//! Who the engine says it is to a registry: what `docker login` stored for the user of this
//! process, in `config.json` or behind a credential helper. Read at every pull, so that a new login
//! counts at once. It must never write a secret to a log, an error or a file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

/// Docker Hub, as an image reference has it.
const HUB: &str = "docker.io";
/// Docker Hub, as `docker login` stores it.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// How long a credential helper may take.
const HELPER_DEADLINE: Duration = Duration::from_secs(10);
/// Largest config file that is read.
const CONFIG_LEN_MAX: u64 = 1 << 20;

/// The part of `config.json` that is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: HashMap<String, Login>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    /// `user:password` in base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Where the Docker config of this user is: `configured`, else `$DOCKER_CONFIG`, else `~/.docker`.
pub(super) fn config_dir(configured: Option<PathBuf>) -> Option<PathBuf> {
    configured
        .or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from))
        .or_else(|| std::env::home_dir().map(|home| home.join(".docker")))
}

/// The registry that an image reference names.
pub(super) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

/// The credentials for the registry of `image`; `None` when there are none. The error is a sentence
/// for people: a pull goes on without credentials, because many images need none.
pub(super) async fn find(
    dir: Option<&PathBuf>,
    image: &str,
) -> Result<Option<DockerCredentials>, String> {
    let Some(path) = dir.map(|dir| dir.join("config.json")) else { return Ok(None) };
    let length = match tokio::fs::metadata(&path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    if length > CONFIG_LEN_MAX {
        return Err(format!("{} is larger than a Docker config can be", path.display()));
    }
    let text = tokio::fs::read(&path)
        .await
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    // The parser's own words could quote a secret; the position is enough to mend the file.
    let config = serde_json::from_slice::<Config>(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("{} is not a Docker config: line {line}, column {column}", path.display())
    })?;
    let registry = registry_of(image);
    if let Some(helper) = find_helper(&config, registry) {
        let key = find_key(&config, registry).unwrap_or(server_of(registry));
        return ask_helper(helper, key).await;
    }
    let login = find_key(&config, registry).and_then(|key| config.auths.get(key));
    Ok(login.and_then(|login| find_stored(login, registry)))
}

fn server_of(registry: &str) -> &str {
    if registry == HUB { HUB_KEY } else { registry }
}

/// The key under which a login to `registry` is stored: older clients wrote it as a URL.
fn find_key<'a>(config: &'a Config, registry: &str) -> Option<&'a str> {
    let is_registry = |key: &str| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        host == registry || (registry == HUB && host == "index.docker.io")
    };
    config.auths.keys().map(String::as_str).find(|key| is_registry(key))
}

fn find_helper<'a>(config: &'a Config, registry: &str) -> Option<&'a str> {
    let named = config
        .cred_helpers
        .get(registry)
        .or_else(|| config.cred_helpers.get(server_of(registry)))
        .or(config.creds_store.as_ref());
    named.map(String::as_str).filter(|name| !name.is_empty())
}

fn find_stored(login: &Login, registry: &str) -> Option<DockerCredentials> {
    let decoded = login.auth.as_deref().and_then(|text| STANDARD.decode(text.trim()).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let pair =
        pair.map(|(user, secret)| (user.to_owned(), secret.trim_end_matches('\0').to_owned()));
    let (username, password) = match pair {
        Some((user, secret)) => (Some(user), Some(secret)),
        None => (login.username.clone(), login.password.clone()),
    };
    let identitytoken = login.identitytoken.clone().filter(|token| !token.is_empty());
    let registrytoken = login.registrytoken.clone().filter(|token| !token.is_empty());
    if username.is_none() && identitytoken.is_none() && registrytoken.is_none() {
        return None;
    }
    Some(DockerCredentials {
        username,
        password,
        identitytoken,
        registrytoken,
        serveraddress: Some(server_of(registry).to_owned()),
        ..DockerCredentials::default()
    })
}

/// Runs `docker-credential-<name> get`, which reads the server's name and answers in JSON.
async fn ask_helper(name: &str, server: &str) -> Result<Option<DockerCredentials>, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.chars().all(is_plain) {
        return Err(format!("'{}' is not the name of a credential helper", name.escape_debug()));
    }
    let program = format!("docker-credential-{name}");
    let fail = |why: String| format!("{program} has no credentials for {server}: {why}");
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    let mut stdin = child.stdin.take();
    let answered = async {
        if let Some(stdin) = stdin.as_mut() {
            stdin.write_all(server.as_bytes()).await?;
        }
        drop(stdin.take());
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(HELPER_DEADLINE, answered)
        .await
        .map_err(|_| fail(format!("no answer within {} s", HELPER_DEADLINE.as_secs())))?
        .map_err(|error| fail(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stdout);
        // The protocol's own words for a registry without a login.
        if words.contains("credentials not found") {
            return Ok(None);
        }
        return Err(fail(output.status.to_string()));
    }
    let answer = serde_json::from_slice::<HelperAnswer>(&output.stdout)
        .map_err(|_| fail("its answer is not what the protocol says".to_owned()))?;
    let mut credentials = DockerCredentials {
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    };
    if answer.username == "<token>" {
        credentials.identitytoken = Some(answer.secret);
    } else {
        credentials.username = Some(answer.username);
        credentials.password = Some(answer.secret);
    }
    Ok(Some(credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_from_a_folder_of_docker_hub() {
        for (image, registry) in [
            ("busybox", HUB),
            ("library/busybox:1", HUB),
            ("registry.example/a/b@sha256:00", "registry.example"),
            ("localhost/a", "localhost"),
            ("127.0.0.1:5000/a:b", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }

    async fn check(config: &str, image: &str, want: &str) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let found = find(Some(&dir.path().to_owned()), image).await;
        let got = match found {
            Ok(None) => "none".to_owned(),
            Ok(Some(credentials)) => format!(
                "{}:{} at {}",
                credentials.username.unwrap_or_default(),
                credentials.password.or(credentials.identitytoken).unwrap_or_default(),
                credentials.serveraddress.unwrap_or_default()
            ),
            Err(words) => words,
        };
        assert!(got.contains(want), "{got}");
    }

    #[tokio::test]
    async fn a_login_is_found_under_every_key_that_clients_wrote() {
        // "user:pa:ss" in base64.
        let auth = r#"{"auth": "dXNlcjpwYTpzcw=="}"#;
        let hub = format!(r#"{{"auths": {{"https://index.docker.io/v1/": {auth}}}}}"#);
        check(&hub, "busybox", "user:pa:ss at https://index.docker.io/v1/").await;
        check(&hub, "registry.example/a/b", "none").await;
        let url = format!(r#"{{"auths": {{"https://registry.example/v2/": {auth}}}}}"#);
        check(&url, "registry.example/a/b", "user:pa:ss at registry.example").await;
        let token = r#"{"auths": {"registry.example": {"identitytoken": "t"}}}"#;
        check(token, "registry.example/a", ":t at registry.example").await;
        check("{}", "busybox", "none").await;
    }

    #[tokio::test]
    async fn a_broken_config_is_told_without_its_secrets() {
        check(r#"{"auths": {"x": {"auth": 7, "password": "secret"}}}"#, "x.y/a", "line 1").await;
        check(r#"{"credsStore": "../../bin/sh"}"#, "a", "is not the name of a credential").await;
        check(r#"{"credsStore": "cloudai-no-such"}"#, "a", "docker-credential-cloudai-no-such")
            .await;
    }
}
