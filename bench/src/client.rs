//! A client of the HTTP API, as thin as can be: one connection, JSON in and out.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long one call waits for a job to end, in milliseconds.
const WAIT_MS: u32 = 30_000;

/// One keep-alive connection.
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    pub(crate) fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self { agent: config.new_agent(), base: format!("{base}/api/v1") }
    }

    /// Submits no-op tasks and gives the job's number.
    pub(crate) fn submit(&self, spec: &Value) -> Result<String> {
        let mut response = self.agent.post(format!("{}/jobs", self.base)).send_json(spec)?;
        let status = response.status();
        let body: Value = response.body_mut().read_json()?;
        if !status.is_success() {
            bail!("the submit was refused: {body}");
        }
        let job = body["job"].as_str().context("the answer names no job")?;
        Ok(job.to_owned())
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let mut response = self.agent.get(format!("{}{path}", self.base)).call()?;
        if !response.status().is_success() {
            bail!("{path}: {}", response.body_mut().read_to_string()?);
        }
        Ok(response.body_mut().read_json()?)
    }

    /// Waits until every task of the job has ended, all with success.
    pub(crate) fn wait_job(&self, job: &str) -> Result<()> {
        loop {
            let view = self.get(&format!("/jobs/{job}?wait_ms={WAIT_MS}"))?;
            if view["ended"] == json!(true) {
                let counts = &view["counts"];
                if counts["failed"] != json!(0) || counts["cancelled"] != json!(0) {
                    bail!("not every task succeeded: {counts}");
                }
                return Ok(());
            }
        }
    }

    /// Waits until the only task of the job has ended, and gives the moment at which it started, in
    /// Unix milliseconds.
    pub(crate) fn wait_started(&self, job: &str) -> Result<u64> {
        loop {
            let view = self.get(&format!("/tasks/{job}?wait_ms={WAIT_MS}"))?;
            if view["status"] == json!("succeeded") {
                return view["started_at_ms"].as_u64().context("the task never started");
            }
        }
    }

    /// How many tasks have ended well in the whole cluster.
    pub(crate) fn succeeded(&self) -> Result<u64> {
        let status = self.get("/status")?;
        status["tasks"]["succeeded"].as_u64().context("the status counts no tasks")
    }
}

/// A no-op task that takes one slot of a worker whose slots are cores.
pub(crate) fn no_op() -> Value {
    json!({ "image": "mock", "cpus": 1.0, "memory_bytes": 6 << 20, "storage_bytes": 0 })
}

/// The same as an array of `tasks`.
pub(crate) fn no_op_array(tasks: u32) -> Value {
    let mut spec = no_op();
    spec["array"] = json!({ "first": 1, "last": tasks });
    spec
}

/// Now, in Unix milliseconds: the clock that the API's times are in.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
