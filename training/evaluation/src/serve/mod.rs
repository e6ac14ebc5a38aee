//! A model behind OpenAI's chat completions, so that the usual harnesses for questions about images (lmms-eval,
//! VLMEvalKit) can ask it as they ask a service. One thread speaks HTTP, a few read requests, one owns the model, a bounded
//! queue lies before it; requests are answered one after the other. Nothing is ever fetched: images come inside requests.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use model::answer::budget::Budget;
use model::answer::fill::Fill;
use model::{EgoModel, Mode, process};
use tokio::sync::oneshot;

pub use chat::{Picture, Reason, Request, Tokens};
pub use queue::{Engine, Event, Reader, Sink};
pub use refusal::Refusal;
pub use stream::ChatModel;

mod chat;
mod fields;
mod http;
mod keys;
mod queue;
mod refusal;
mod stream;

/// How often signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// `training serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint folder.
    #[arg(long)]
    weights: PathBuf,
    /// LoRA adapter folder.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Address to listen on; any but this machine's own needs a key.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// 0 for any that is free.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// What clients call the model; the name of its folder without it.
    #[arg(long)]
    name: Option<String>,
    /// Largest request.
    #[arg(long, default_value_t = 64)]
    max_body_mib: usize,
    /// Most images of a request.
    #[arg(long, default_value_t = 64)]
    max_images: usize,
    /// Requests that may wait beside the one that is answered.
    #[arg(long, default_value_t = 16)]
    queue: usize,
    /// Most tokens of an answer, whatever a request asks for: "auto" is what the longest full chain takes with the tokenizer of
    /// the weights
    #[arg(long, default_value_t)]
    max_tokens: Budget,
    /// What the program writes of answers to the question of eval and the node, word for word: none; arithmetic, which is all that
    /// the grammar determines and steps 3 and 4; or measured, which is also the points of step 1 and the exact poses of the
    /// tracks in the unit of the model's depths
    #[arg(long, default_value = "none")]
    fill: Fill,
    /// Most tokens of a prompt, images included: attention takes memory with their square.
    #[arg(long, default_value_t = 16_384)]
    max_prompt_tokens: usize,
    /// Environment variable that holds the key which clients must show.
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
}

/// What a server allows.
#[derive(Clone)]
pub struct Options {
    /// What clients call the model.
    pub name: String,
    /// Bytes of the largest body.
    pub max_body: usize,
    /// Most images of a request.
    pub max_images: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// What clients must show.
    pub key: Option<String>,
    /// Longest time for the head of a request, and for its body.
    pub read_timeout: Duration,
    /// Time that running answers get to end when the server stops.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "model".to_owned(),
            max_body: 64 << 20,
            max_images: 64,
            queue: 16,
            max_tokens: 1024,
            key: None,
            read_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        }
    }
}

/// Serves until SIGINT, SIGTERM or SIGHUP; `announce` gets the URL once requests are answered.
///
/// # Errors
/// A host that others can reach without a key, an address that is taken, a checkpoint that does not load.
pub fn main(args: &Args, announce: impl FnOnce(&str)) -> Result<()> {
    let stop = process::stop_on_signals().context("cannot listen to signals")?;
    let key = args.api_key_env.as_deref().map(key).transpose()?;
    let address = (args.host.as_str(), args.port)
        .to_socket_addrs()
        .with_context(|| format!("--host {}", args.host))?
        .next()
        .with_context(|| format!("--host {}: no address", args.host))?;
    ensure!(
        address.ip().is_loopback() || key.is_some(),
        "--host {}: others can reach it, so it needs a key: expected --api-key-env VAR",
        args.host
    );
    ensure!(args.max_body_mib > 0, "--max-body-mib: expected at least 1");
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let folder = args.weights.canonicalize().with_context(|| args.weights.display().to_string())?;
            folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
        }
    };
    let device = model::device(&args.device).context("--device")?;
    let model = EgoModel::load_adapted(&args.weights, args.adapter.as_deref(), &device)?;
    let max_tokens = match args.max_tokens {
        Budget::Auto => model.needed(Mode::FullChain)?,
        // Who asks for poses alone must get them.
        given => model.budget(given, Mode::AnswerOnly)?,
    };
    let options = Options {
        name,
        max_body: args.max_body_mib.saturating_mul(1 << 20),
        max_images: args.max_images,
        queue: args.queue,
        max_tokens,
        key,
        ..Options::default()
    };
    let engine = ChatModel::new(model, args.max_prompt_tokens).filling(args.fill)?;
    let server = Server::start(listener, engine, options)?;
    announce(&server.url());
    while !stop.load(Ordering::Relaxed) && !server.is_finished() {
        std::thread::sleep(LOOK);
    }
    tracing::info!("stopping");
    server.stop()
}

/// The key in a variable of the environment.
fn key(variable: &str) -> Result<String> {
    let key = std::env::var(variable).map_err(|e| anyhow!("--api-key-env {variable}: {e}"))?;
    let key = key.trim();
    ensure!(!key.is_empty(), "--api-key-env {variable}: expected a key, got nothing");
    Ok(key.to_owned())
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    http: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Answers requests that come to `listener` with `engine`. Stops when dropped.
    ///
    /// # Errors
    /// A socket or a thread that can't be had.
    pub fn start(listener: TcpListener, engine: impl Engine, options: Options) -> Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let queue = Arc::new(queue::Queue::new(options.queue));
        let (jobs, reader) = (Arc::clone(&queue), engine.reader());
        // Ends once the queue is closed: behind the answer that it is at, or with the process.
        std::thread::Builder::new().name("model".to_owned()).spawn(move || queue::work(&jobs, &engine))?;
        let (stop, stopped) = oneshot::channel();
        let state = Arc::new(http::State::new(options, queue, reader));
        let http = std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            let ended = runtime.block_on(http::serve(listener, state, stopped));
            runtime.shutdown_background();
            ended
        })?;
        Ok(Self { address, stop, http })
    }

    /// Base URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Whether it has ended by itself.
    fn is_finished(&self) -> bool {
        self.http.is_finished()
    }

    /// Takes no more requests, refuses those that wait, and ends the running one: within the time of grace, or cut.
    ///
    /// # Errors
    /// A server that had failed already.
    pub fn stop(self) -> Result<()> {
        let _ = self.stop.send(());
        let ended = self.http.join().map_err(|_| anyhow!("the thread of HTTP panicked"))?;
        ended.context("the server failed")
    }
}
