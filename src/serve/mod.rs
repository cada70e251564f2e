//! An OpenAI-compatible server and a chat page, for a model and its adapters.

mod app;
mod args;
mod chat;
mod chat_answer;
mod completions;
mod embeddings;
mod error;
mod http;
mod metrics;
mod routes;
mod sampling;
mod stream;
mod worker;

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dataset::say;
use eval::engine::Engine;
use model::batch::BatchLimits;

pub use args::ServeArgs;

use self::app::{App, ModelFace, unix_secs};
use self::error::ApiError;
use self::http::{Client, Closed};
use self::metrics::Metrics;
use crate::chat::model_folder;
use crate::device::pick_device;
use crate::engine::load_engine;
use crate::interrupt::INTERRUPTED;

/// Prompt pieces read between two tokens: a long prompt must not make the others wait for long.
const PIECES_PER_STEP: usize = 4;
/// Connections at once; a thread's worth of memory each.
const MAX_CONNECTIONS: usize = 512;
/// How long nothing is taken where no connection can be, for want of files that may be open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// A model that is not there or broken, or an address that cannot be listened on.
pub fn run(args: &ServeArgs) -> Result<()> {
    ensure!(
        args.max_batch > 0,
        "--max-batch: found 0, expected at least 1"
    );
    ensure!(
        args.max_queue > 0,
        "--max-queue: found 0, expected at least 1"
    );
    let key = key_of("--api-key", args.api_key.as_deref())?;
    let owner_key = key_of("--owner-key", args.owner_key.as_deref())?;
    let models = load_models(args)?;
    let metrics = Arc::new(Metrics::default());
    let (jobs, queue) = sync_channel(args.max_queue);
    let alive = Arc::new(());
    let app = Arc::new(App {
        models: models
            .iter()
            .map(|(name, engine)| ModelFace::new(name.clone(), engine))
            .collect(),
        jobs,
        max_queue: args.max_queue,
        model_thread: Arc::downgrade(&alive),
        metrics: Arc::clone(&metrics),
        key,
        owner_key,
        timeout: Duration::from_secs(args.timeout_secs),
        started: unix_secs(),
        next_id: AtomicU64::new(0),
        is_stopping: AtomicBool::new(false),
    });
    let limits = BatchLimits {
        max_rows: args.max_batch,
        pieces_per_step: PIECES_PER_STEP,
        max_cached_tokens: args.prefix_cache,
    };
    let worker = thread::Builder::new()
        .name("model".to_owned())
        .spawn(move || {
            let engines: Vec<Engine> = models.into_iter().map(|(_, engine)| engine).collect();
            worker::work(&engines, &queue, limits, &metrics);
            // Dropped with the thread, however that ends.
            drop(alive);
        })
        .context("the model thread could not be started")?;

    listen(args, &app)?;
    // Connections that are open still hold the queue, and end with the process.
    drop(app);
    ensure!(
        !worker.is_finished() || worker.join().is_ok(),
        "the model thread panicked"
    );
    say!("stopped");
    Ok(())
}

/// The key that a flag's environment variable holds.
fn key_of(flag: &str, variable: Option<&str>) -> Result<Option<String>> {
    let Some(name) = variable else {
        return Ok(None);
    };
    let key = env::var(name).with_context(|| format!("{flag}: variable {name}"))?;
    ensure!(!key.is_empty(), "{flag}: variable {name} is empty");
    Ok(Some(key))
}

/// The base model and every adapter on it, with their names.
fn load_models(args: &ServeArgs) -> Result<Vec<(String, Engine)>> {
    let device = pick_device(&args.device)?;
    let dir = match &args.model {
        Some(dir) => dir.clone(),
        None => model_folder::newest(Path::new("out"))?,
    };
    let load = |adapters: &[_]| {
        let template = args.chat_template.as_deref();
        load_engine(&dir, template, adapters, args.weights, &device)
    };
    let mut models = vec![(args::name_of(&dir), load(&[])?)];
    for adapter in &args.adapters {
        let (name, adapter) = args::named_adapter(adapter);
        let is_taken = models.iter().any(|(other, _)| *other == name);
        ensure!(
            !is_taken,
            "--adapter: two models are called {name}, expected NAME=DIR"
        );
        models.push((name, load(&[adapter])?));
    }
    for (name, engine) in &models {
        let num_params = engine.model.config().num_params();
        say!("{name}: {} ({num_params} parameters)", dir.display());
    }
    Ok(models)
}

/// Takes connections until a signal comes, then waits for the requests that are being answered.
fn listen(args: &ServeArgs, app: &Arc<App>) -> Result<()> {
    let (host, port) = (args.host.as_str(), args.port);
    let listener = TcpListener::bind((host, port))
        .with_context(|| format!("cannot listen on {host}, port {port}"))?;
    let address = listener.local_addr().context("the socket has no address")?;
    stop_on_signal(Arc::clone(app), address)?;
    say!("listening on http://{address}");

    let num_busy = Arc::new(AtomicUsize::new(0));
    accept(&listener, app, &num_busy, MAX_CONNECTIONS);
    let deadline = Instant::now() + Duration::from_secs(args.drain_secs);
    while num_busy.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Gives every connection a thread, as long as fewer than `most` have one.
fn accept(listener: &TcpListener, app: &Arc<App>, num_busy: &Arc<AtomicUsize>, most: usize) {
    let num_open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if app.is_stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        // A connection that is gone before it is taken is none.
        let Ok(mut client) = Client::new(stream) else {
            continue;
        };
        let guard = Counted::new(&num_open);
        if num_open.load(Ordering::SeqCst) > most {
            client.turn_away();
            let _ = routes::answer(app, &mut client, Err(ApiError::busy()));
            continue;
        }
        let (app, num_busy) = (Arc::clone(app), Arc::clone(num_busy));
        let spawned = thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || {
                let _guard = guard;
                // The client is gone; there is nobody to tell.
                let _ = attend(&app, client, &num_busy);
            });
        if let Err(error) = spawned {
            say!("a connection was dropped: {error}");
        }
    }
}

/// Answers the requests of a connection, one after another.
fn attend(app: &App, mut client: Client, num_busy: &Arc<AtomicUsize>) -> Result<(), Closed> {
    loop {
        let request = client.read_request()?;
        let _busy = Counted::new(num_busy);
        routes::answer(app, &mut client, request)?;
        if !client.keeps_alive() || app.is_stopping.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
}

/// One more of something, as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn stop_on_signal(app: Arc<App>, address: SocketAddr) -> Result<()> {
    // An address that stands for all of the machine's is reached by loopback.
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(ip, address.port());
    ctrlc::set_handler(move || {
        if app.is_stopping.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED.into());
        }
        say!("stopping: answers are brought to their end (once more to stop at once)");
        // A connection wakes the listener, which then sees the flag.
        let _ = TcpStream::connect(address);
    })
    .context("the signal handler could not be installed")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Weak;

    use super::*;

    /// Silent connections hold their threads; one too many is told so before it says a word, and
    /// there is room again when they are gone.
    #[test]
    fn connections_beyond_the_most_get_no_thread() {
        let (jobs, _queue) = sync_channel(1);
        let app = Arc::new(App {
            models: Vec::new(),
            jobs,
            max_queue: 1,
            model_thread: Weak::new(),
            metrics: Arc::default(),
            key: None,
            owner_key: None,
            timeout: Duration::from_secs(1),
            started: 0,
            next_id: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn({
            let app = Arc::clone(&app);
            move || accept(&listener, &app, &Arc::default(), 2)
        });
        let connect = || {
            let stream = TcpStream::connect(address).unwrap();
            let wait = Some(Duration::from_secs(20));
            stream.set_read_timeout(wait).unwrap();
            stream
        };
        let silent = [connect(), connect()];
        let mut response = String::new();
        connect().read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 429 "), "{response}");

        drop(silent);
        let is_heard = |_| {
            let mut stream = connect();
            let mut response = String::new();
            // Who is turned away may find the connection closed.
            let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
            let _ = asked.and_then(|()| stream.read_to_string(&mut response));
            thread::sleep(Duration::from_millis(10));
            response.starts_with("HTTP/1.1 200 ")
        };
        assert!((0..1000).any(is_heard));
        app.is_stopping.store(true, Ordering::SeqCst);
        drop(connect());
        server.join().unwrap();
    }
}
