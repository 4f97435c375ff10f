//! What a master is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use cloudai_scheduler::PolicyKind;

/// Settings of a master. The binary fills them from flags, environment and file.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Where workers and agents connect. Port 0 takes a free one.
    pub grpc_addr: SocketAddr,
    /// Where the HTTP API listens. Port 0 takes a free one.
    pub http_addr: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Which built-in policy plans.
    pub policy: PolicyKind,
    /// How long an external agent that calls may keep a waiting task from the built-in policy, in
    /// milliseconds; then the policy plans. `None`: the policy always plans at once, and an agent's
    /// proposals are taken beside it.
    pub agent_deadline_ms: Option<u64>,
    /// Names besides `localhost` and addresses under which clients may call the HTTP API; `None`
    /// when every name will do, because the API is not bound to loopback.
    pub host_names: Option<Vec<String>>,
}
