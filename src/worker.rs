//! `kindling worker`: this machine's devices for runs on other machines, through Burn's remote backend.
//!
//! A worker computes what it is sent, operation by operation, and knows nothing of models. The operations
//! that are fused elsewhere are composed of Burn's own here. Traffic is not encrypted.

use anyhow::Result;
use clap::Args;

/// Environment variable with the secret that a worker and its clients share.
pub const TOKEN: &str = "KINDLING_WORKER_TOKEN";

/// Which devices to lend, and where.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Devices to lend, e.g. cuda:0,cuda:1; all of them of one kind
    #[arg(
        long,
        value_name = "DEVICE,DEVICE",
        value_delimiter = ',',
        default_value = "auto"
    )]
    pub devices: Vec<String>,
    /// Address or name to listen on; others than loopback let the network in
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 3000)]
    pub port: u16,
}

/// The secret that clients and workers share; `None` where the variable is not set.
///
/// # Errors
///
/// A variable that is empty or no text.
#[cfg(feature = "remote")]
pub(crate) fn token() -> Result<Option<String>> {
    use std::env;

    use anyhow::{Context, ensure};

    match env::var(TOKEN) {
        Ok(token) => {
            ensure!(!token.is_empty(), "{TOKEN} is empty, expected a secret");
            Ok(Some(token))
        }
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context(TOKEN),
    }
}

/// Lends devices until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// A device that is not there, or an address that cannot be listened on.
#[cfg(feature = "remote")]
pub fn run(args: &WorkerArgs) -> Result<()> {
    use std::net::TcpListener;

    use anyhow::Context;
    use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};
    use dataset::say;

    let devices = crate::device::pick_devices(&args.devices)?;
    let (host, port) = (args.host.as_str(), args.port);
    let listener = TcpListener::bind((host, port))
        .with_context(|| format!("cannot listen on {host}, port {port}"))?;
    let address = listener.local_addr().context("the socket has no address")?;
    let num_devices = devices.len();
    let mut server = RemoteServer::new(devices);
    if let Some(token) = token()? {
        server = server.with_authorizer(TokenAuthorizer::new(token.as_str())?);
    } else if !address.ip().is_loopback() {
        say!("whoever reaches {address} may use these devices: set {TOKEN} to a secret");
    }
    say!("lending {num_devices} device(s) as remote:{address}");
    server.serve(WebSocketTransport::from_listener(listener))?;
    say!("stopped");
    Ok(())
}

/// Says how to get a binary that can.
///
/// # Errors
///
/// Always: this binary cannot.
#[cfg(not(feature = "remote"))]
pub fn run(_: &WorkerArgs) -> Result<()> {
    anyhow::bail!(
        "this binary is built without remote devices (cargo build --release --features remote)"
    )
}
