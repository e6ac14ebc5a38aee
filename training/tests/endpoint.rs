//! What is asked of an endpoint, what becomes of its answers, and what of its failures.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use geometry::WINDOW;
use model::Mode;
use model::answer::{budget, chain};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use training_data::chains::{DepthMap, shards};
use training_data::endpoint::{Endpoint, Part, Sampling, turn};
use training_data::{WindowSample, parse_source};
use training_evaluation::eval::{self, Estimator, Question};

const DATA: &str = "synth:seed=3,windows=4,size=160x96";
const SECRET: &str = "sk-never-to-be-seen";

/// A request as it arrived.
#[derive(Debug, Clone)]
struct Received {
    /// Method and path.
    line: String,
    /// Names in small letters.
    headers: BTreeMap<String, String>,
    body: Value,
}

/// Status, header lines, body.
type Answer = (u16, Vec<&'static str>, String);

/// Enough HTTP/1.1 on loopback: one request a connection.
struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` gets the number of the request, from 0, and the request.
    fn new(answer: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (all, stopped, answer) = (Arc::clone(&received), Arc::clone(&stop), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream.unwrap(), &all, &*answer));
            }
        });
        Self { address, received, stop, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::with_key(&self.url(), Some("m".to_owned()), Some(SECRET.to_owned())).unwrap();
        endpoint.first_delay(Duration::from_millis(1))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: &TcpStream, all: &Mutex<Vec<Received>>, answer: &dyn Fn(usize, &Received) -> Answer) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let first: Vec<&str> = line.split_whitespace().take(2).collect();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let request = Received { line: first.join(" "), headers, body };
    let number = {
        let mut all = all.lock().unwrap();
        all.push(request.clone());
        all.len() - 1
    };
    let (status, more, body) = answer(number, &request);
    let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        body.len()
    );
    let mut writer = stream;
    let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes()));
}

/// A chat completion.
fn says(text: &str) -> Answer {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    (200, Vec::new(), json!({"object": "chat.completion", "choices": [choice]}).to_string())
}

fn sampling() -> Sampling {
    Sampling { temperature: 0.5, seed: 7, max_tokens: 9 }
}

fn hello() -> Value {
    turn(&[Part::Text("hello".to_owned())])
}

fn sample(data: &str, index: u64) -> WindowSample {
    parse_source(data).unwrap().sample(index).unwrap()
}

/// Runs the program without anybody's key.
fn program(arguments: &[&str], key: Option<&str>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
    command.args(arguments).env_remove("OPENAI_API_KEY").env_remove("RUST_LOG");
    if let Some(key) = key {
        command.env("OPENAI_API_KEY", key).env("RUST_LOG", "debug");
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The stage `chains` with one worker.
fn chains(out: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let out = out.to_str().unwrap();
    let mut arguments = vec!["chains", "--data", DATA, "--per-shard", "2", "--workers", "1", "--out", out];
    arguments.extend(more);
    program(&arguments, None)
}

fn tars(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let tars = files.filter(|p| p.extension().is_some_and(|e| e == "tar"));
    tars.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap())).collect()
}

/// The answers of all samples.
fn texts(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for name in tars(dir).keys() {
        shards::read(&dir.join(name), |sample| {
            all.push(String::from_utf8(sample.files["txt"].clone()).unwrap());
            Ok(())
        })
        .unwrap();
    }
    all
}

fn manifest(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap()
}

fn prose(last: &str) -> String {
    let steps = json!({"step1": "Some corners are chosen.", "step2": "Their depths follow.",
        "step3": "They are put into space.", "step4": "They are aligned.", "step5": last});
    format!("```json\n{steps}\n```")
}

fn value(report: &eval::Report) -> Value {
    serde_json::to_value(report).unwrap()
}

#[test]
fn a_window_is_asked_with_five_images_and_their_intrinsics_and_a_good_answer_has_no_error() {
    let data = "synth:seed=3,windows=1,size=160x96";
    let sample = sample(data, 0);
    let answer = chain::write_poses(&sample.ground_truth);
    let server = Server::new(move |_, _| says(&answer));
    let out = tempfile::tempdir().unwrap();
    let (name, folder) = (format!("openai:{}#qwen", server.url()), out.path().to_str().unwrap());
    let (code, stdout, stderr) = program(&["eval", "--estimator", &name, "--data", data, "--out", folder], None);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(&name), "{stdout}");
    let report: Value = serde_json::from_slice(&std::fs::read(out.path().join("report.json")).unwrap()).unwrap();
    assert!(report["summary"]["rre_deg"]["median"]["value"].as_f64().unwrap() < 1e-3, "{report:#}");
    assert!((report["final_parse"].as_f64().unwrap() - 1.0).abs() < 1e-12);
    assert!(report["latency_ms_median"].as_f64().unwrap() > 0.0);
    assert_eq!((&report["estimator"], &report["errors"]["count"]), (&json!(name), &json!(0)));
    assert_eq!(report["endpoint"]["model"], "qwen");

    let received = server.received();
    assert_eq!(received.len(), 1);
    let Received { line, headers, body } = &received[0];
    assert_eq!(line, "POST /v1/chat/completions");
    assert!(headers["content-type"].starts_with("application/json") && !headers.contains_key("authorization"));
    assert_eq!(
        (&body["model"], &body["seed"], &body["max_tokens"]),
        (&json!("qwen"), &json!(0), &json!(budget::longest(Mode::AnswerOnly).len()))
    );
    let parts = body["messages"][0]["content"].as_array().unwrap();
    let urls: Vec<&str> = parts.iter().filter_map(|part| part["image_url"]["url"].as_str()).collect();
    assert_eq!(urls.len(), WINDOW);
    assert!(urls.iter().all(|url| url.starts_with("data:image/png;base64,iVBORw0KGgo")));
    let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
    let k = &sample.intrinsics;
    let camera = format!("fx {:.1} fy {:.1} cx {:.1} cy {:.1} size 160 96\n", k.fx, k.fy, k.cx, k.cy);
    assert!(text.starts_with(&camera) && text.ends_with("\nGive the poses of the five frames."), "{text}");
}

#[test]
fn a_model_that_does_not_know_the_form_can_be_told() {
    let data = "synth:seed=3,windows=1,size=160x96";
    let server = Server::new(|_, _| says("I cannot know."));
    let question = Question { explain: true, ..Question::default() };
    let estimator = Estimator::Endpoint(Box::new(server.endpoint()), question);
    let out = tempfile::tempdir().unwrap();
    let report = value(&eval::run(&estimator, "told", data, out.path()).unwrap());
    assert!(report["final_parse"].as_f64().unwrap().abs() < 1e-12);
    assert_eq!(report["errors"]["count"], 0, "an answer that does not parse is one");
    let told = server.received()[0].body.to_string();
    assert!(told.contains("<poses>") && told.contains("row by row"), "{}", &told[told.len().saturating_sub(900)..]);
}

/// The texts of a question.
fn texts_of(request: &Received) -> String {
    let parts = request.body["messages"][0]["content"].as_array().unwrap();
    parts.iter().filter_map(|part| part["text"].as_str()).collect()
}

/// `step_parse` where each step parses in this share of the windows.
fn all_steps(share: f64) -> Value {
    json!([share, share, share, share, share])
}

fn asked_for_chains(server: &Server, explain: bool) -> Estimator {
    let question = Question { mode: Mode::FullChain, explain, ..Question::default() };
    Estimator::Endpoint(Box::new(server.endpoint()), question)
}

#[test]
fn an_endpoint_that_knows_the_grammar_parses_in_every_step() {
    let chain_of = |seed: u64| {
        let data = format!("synth:seed={seed},windows=1,size=160x96");
        let sample = sample(&data, 0);
        let maps = DepthMap::window(sample.depth.as_ref().unwrap(), 160, sample.metric);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let made = training_data::chains::chain(&sample.ground_truth, &sample.intrinsics, &maps, &mut rng).ok()?;
        Some((data, chain::write(&made)))
    };
    let (data, answer) = (11..31).find_map(chain_of).unwrap();
    let server = Server::new(move |_, _| says(&answer));
    let out = tempfile::tempdir().unwrap();
    let report = value(&eval::run(&asked_for_chains(&server, true), "knows", &data, out.path()).unwrap());
    assert_eq!(report["step_parse"], all_steps(1.0), "{report:#}");
    assert_eq!(report["final_parse"], json!(1.0));
    let median = |name: &str| report["step_errors"][name]["median"]["value"].as_f64().unwrap();
    assert!(median("epipolar_px") < 0.2 && median("depth_abs_rel") < 0.05, "{:#}", report["step_errors"]);
    assert!(report["summary"]["rre_deg"]["median"]["value"].as_f64().unwrap() < 1e-3, "{report:#}");
    assert_eq!(report["endpoint"]["explained"], true);
}

#[test]
fn an_endpoint_that_repeats_the_example_of_the_explanation_parses_in_every_step() {
    let data = "synth:seed=3,windows=2,size=160x96";
    let server = Server::new(|_, request| {
        let told = texts_of(request);
        says(told.rfind("<step1>").map_or("I cannot know.", |at| &told[at..]))
    });
    let out = tempfile::tempdir().unwrap();
    let report = |explain| value(&eval::run(&asked_for_chains(&server, explain), "repeats", data, out.path()).unwrap());
    let told = report(true);
    assert_eq!((&told["step_parse"], &told["final_parse"]), (&all_steps(1.0), &json!(1.0)), "{told:#}");
    let [own, still] = ["summary", "identity"].map(|of| told[of]["rre_deg"]["median"]["value"].as_f64().unwrap());
    assert!((own - still).abs() < 1e-6, "the example is of a camera that never moves: {own}, {still}");
    let words = texts_of(&server.received()[0]);
    for hint in ["Reason in five steps", "epipolar line", "K^-1", "Procrustes", "Lengths are metres."] {
        assert!(words.contains(hint), "{hint}: {words}");
    }
    let untold = report(false);
    assert_eq!((&untold["step_parse"], &untold["final_parse"]), (&all_steps(0.0), &json!(0.0)));
}

#[test]
fn windows_of_realestate10k_are_asked_for_in_their_own_unit_and_not_in_metres() {
    let dir = tempfile::tempdir().unwrap();
    let (poses, frames) = (dir.path().join("poses"), dir.path().join("frames"));
    std::fs::create_dir_all(&poses).unwrap();
    std::fs::create_dir_all(frames.join("clip")).unwrap();
    let mut clip = "https://www.youtube.com/watch?v=QShWPZxTDoE\n".to_owned();
    for frame in 0..WINDOW {
        let (micros, x) = (1_000_000 + 100_000 * frame, -0.01 * frame as f64);
        clip += &format!("{micros} 0.8 1.2 0.5 0.5 0 0 1 0 0 {x} 0 1 0 0 0 0 1 0\n");
        let image = image::RgbImage::from_pixel(48, 32, image::Rgb([90; 3]));
        image.save(frames.join(format!("clip/{micros}.png"))).unwrap();
    }
    std::fs::write(poses.join("clip.txt"), clip).unwrap();
    let data = format!("re10k:{},frames={}", poses.display(), frames.display());
    for mode in [Mode::AnswerOnly, Mode::FullChain] {
        let server = Server::new(|_, _| says("I cannot know."));
        let question = Question { mode, explain: true, ..Question::default() };
        let estimator = Estimator::Endpoint(Box::new(server.endpoint()), question);
        eval::run(&estimator, "re10k", &data, &dir.path().join("out")).unwrap();
        let words = texts_of(&server.received()[0]);
        assert!(words.contains("Lengths are scene units") && !words.contains("metre"), "{words}");
    }
}

#[test]
fn a_request_that_fails_is_counted_and_the_others_go_on() {
    let server = Server::new(|number, _| match number {
        0 => (400, Vec::new(), "too many images".to_owned()),
        _ => says("<poses>"),
    });
    let estimator = Estimator::Endpoint(Box::new(server.endpoint()), Question::default());
    let out = tempfile::tempdir().unwrap();
    let report = value(&eval::run(&estimator, "half", DATA, out.path()).unwrap());
    assert_eq!(report["errors"]["count"], 1, "{}", report["errors"]);
    let (text, count) = report["errors"]["texts"].as_object().unwrap().iter().next().unwrap();
    assert!(text.contains("status 400: too many images") && *count == json!(1), "{text}");
    assert_eq!(server.received().len(), 4, "400 is not asked again");

    let server = Server::new(|_, _| (400, Vec::new(), "no".to_owned()));
    let estimator = Estimator::Endpoint(Box::new(server.endpoint()), Question::default());
    let error = eval::run(&estimator, "none", DATA, out.path()).unwrap_err().to_string();
    assert!(error.contains("not one of 4 windows") && error.contains("status 400: no"), "{error}");
}

#[test]
fn an_endpoint_that_is_busy_is_asked_again_when_it_says() {
    let server = Server::new(|number, _| match number {
        0 => (429, vec!["Retry-After: 1"], "busy".to_owned()),
        1 => (503, Vec::new(), "starting".to_owned()),
        _ => says("here"),
    });
    let begun = Instant::now();
    let reply = server.endpoint().chat(&hello(), &sampling()).unwrap();
    assert_eq!((reply.text.as_str(), reply.finish_reason.as_str()), ("here", "stop"));
    assert!(begun.elapsed() >= Duration::from_secs(1) && reply.seconds < 0.9, "{reply:?}");
    let received = server.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|request| request.body == received[0].body));
    assert_eq!(received[0].body["max_tokens"], 9);
}

#[test]
fn an_endpoint_that_stays_broken_is_named_with_its_status_and_the_beginning_of_what_it_says() {
    let server = Server::new(|_, _| (500, Vec::new(), format!("{}END", "x".repeat(300))));
    let error = server.endpoint().chat(&hello(), &sampling()).unwrap_err().to_string();
    assert!(error.contains(&format!("{}/chat/completions", server.url())), "{error}");
    assert!(error.contains("status 500: xxx") && !error.contains("END"), "{error}");
    assert_eq!(server.received().len(), 6);

    let url = server.url();
    drop(server);
    let endpoint = Endpoint::with_key(&url, Some("m".to_owned()), None).unwrap().first_delay(Duration::ZERO);
    let error = endpoint.chat(&hello(), &sampling()).unwrap_err().to_string();
    assert!(error.contains(&url), "{error}");
}

#[test]
fn what_is_no_chat_completion_is_an_error_that_shows_it() {
    for body in
        ["{\"choices\": [", "{\"choices\": []}", "<html>", "{\"choices\": [{\"message\": {\"content\": null}}]}"]
    {
        let server = Server::new(move |_, _| (200, Vec::new(), body.to_owned()));
        let error = server.endpoint().chat(&hello(), &sampling()).unwrap_err().to_string();
        assert!(error.contains(&server.url()) && error.contains("200") && error.contains(body), "{error}");
        assert_eq!(server.received().len(), 1);
    }
}

#[test]
fn without_a_name_the_only_model_is_taken() {
    let models = |ids: &[&str]| {
        let data: Vec<Value> = ids.iter().map(|id| json!({"id": id, "object": "model"})).collect();
        json!({"object": "list", "data": data}).to_string()
    };
    let (one, two) = (models(&["only"]), models(&["a", "b"]));
    let server = Server::new(move |_, _| (200, Vec::new(), one.clone()));
    // The whole address is as good as its base.
    let endpoint = Endpoint::with_key(&format!("{}/chat/completions/", server.url()), None, None).unwrap();
    assert_eq!(endpoint.model(), "only");
    assert_eq!(server.received()[0].line, "GET /v1/models");
    let server = Server::new(move |_, _| (200, Vec::new(), two.clone()));
    let error = Endpoint::with_key(&server.url(), None, None).unwrap_err().to_string();
    assert!(error.contains("expected one model") && error.contains("\"a\", \"b\""), "{error}");
    for (url, key) in [("ftp://host/v1", "http://HOST"), ("http://me:secret@host/v1", "OPENAI_API_KEY")] {
        let error = Endpoint::with_key(url, Some("m".to_owned()), None).unwrap_err().to_string();
        assert!(error.contains(key) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn the_key_goes_to_the_endpoint_and_nowhere_else() {
    // As some services do, this one repeats the key.
    let server = Server::new(|_, _| (401, Vec::new(), format!("wrong key: {SECRET}")));
    let out = tempfile::tempdir().unwrap();
    let (name, folder) = (format!("openai:{}#m", server.url()), out.path().to_str().unwrap());
    let arguments = ["eval", "--estimator", &name, "--data", "synth:seed=3,windows=1,size=160x96", "--out", folder];
    let (code, stdout, stderr) = program(&arguments, Some(SECRET));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("status 401: wrong key: ***"), "{stderr}");
    assert!(!stderr.contains(SECRET) && !stdout.contains(SECRET), "not even in a talkative log");
    let received = server.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].headers["authorization"], format!("Bearer {SECRET}"));
    assert!(!format!("{:?}", server.endpoint()).contains(SECRET));
}

#[test]
fn the_log_has_nothing_below_the_level_that_is_asked_for_and_no_key_at_any() {
    let data = "synth:seed=3,windows=1,size=160x96";
    let server = Server::new(|_, _| says("<poses>"));
    let out = tempfile::tempdir().unwrap();
    let name = format!("openai:{}#m", server.url());
    let log = |level: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
        command.args(["eval", "--estimator", &name, "--data", data, "--out"]).arg(out.path());
        command.env("OPENAI_API_KEY", SECRET).env_remove("RUST_LOG").envs(level.map(|level| ("RUST_LOG", level)));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let has = |log: &str, level: &str, from: &str| log.lines().any(|line| line.contains(level) && line.contains(from));
    let usual = log(None);
    assert!(!usual.contains("DEBUG") && !usual.contains("TRACE") && !usual.contains("ureq"), "{usual}");
    for level in ["trace", "info,ureq_proto=trace", "info,ureq_proto::util=trace"] {
        let all = log(Some(level));
        // Bytes are shown in rows of sixteen.
        assert!(!has(&all, "TRACE", "ureq_proto") && !all.contains(SECRET), "{level}: {all}");
        assert_eq!(has(&all, "DEBUG", "ureq_proto"), !level.contains("util"), "{level}: {all}");
    }
}

#[test]
fn a_wrong_name_address_or_key_is_told_with_what_is_right() {
    let server = Server::new(|_, request| match request.line.as_str() {
        "GET /v1/models" => (200, Vec::new(), json!({"data": [{"id": "qwen"}, {"id": "llava"}]}).to_string()),
        "POST /v1/chat/completions" if request.body["model"] == "secret" => (401, Vec::new(), "who?".to_owned()),
        "POST /v1/chat/completions" if request.body["model"] == "moved" => {
            (308, vec!["Location: https://other.example/v1/chat/completions"], String::new())
        }
        _ => (404, Vec::new(), "Not Found".to_owned()),
    });
    let says = |base: &str, model: &str| {
        let endpoint = Endpoint::with_key(base, Some(model.to_owned()), None).unwrap();
        endpoint.chat(&hello(), &sampling()).unwrap_err().to_string()
    };
    let url = server.url();
    let root = url.strip_suffix("/v1").unwrap();
    for (base, model, wanted) in [
        (url.as_str(), "qwn", "status 404: Not Found (it has no qwn, but qwen, llava)".to_owned()),
        (
            root,
            "qwen",
            format!("{root}/chat/completions: status 404: Not Found (is {root} the base URL? Most end in /v1)"),
        ),
        (url.as_str(), "secret", "status 401: who? (no key was sent: it is read from OPENAI_API_KEY)".to_owned()),
        (
            url.as_str(),
            "moved",
            "status 308: redirected to https://other.example/v1/chat/completions, which is not".to_owned(),
        ),
    ] {
        let error = says(base, model);
        assert!(error.contains(&wanted), "{error}: lacks {wanted}");
    }
}

#[test]
fn an_endpoint_that_answers_nothing_is_not_asked_for_every_window() {
    let server = Server::new(|_, _| (400, Vec::new(), "no images here".to_owned()));
    let out = tempfile::tempdir().unwrap();
    let (name, folder) = (format!("openai:{}#m", server.url()), out.path().to_str().unwrap());
    let data = "synth:seed=3,windows=20,size=64x48";
    let arguments = ["eval", "--concurrency", "1", "--estimator", &name, "--data", data, "--out", folder];
    let (code, _, stderr) = program(&arguments, None);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("not one of 20 windows has an answer") && stderr.contains("no images here"), "{stderr}");
    assert_eq!(server.received().len(), 8);

    // Some that fail are told of, and by the exit status.
    let server = Server::new(|number, _| match number {
        1 => (400, Vec::new(), "too long".to_owned()),
        _ => says("<poses>"),
    });
    let name = format!("openai:{}#m", server.url());
    let (code, stdout, _) = program(&["eval", "--estimator", &name, "--data", DATA, "--out", folder], None);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("1 windows have no answer since their requests failed: ") && stdout.contains("too long"));
}

#[test]
fn good_prose_is_in_the_shards_and_is_asked_for_once() {
    let last = "The camera glides past the wall, and the poses follow.";
    let server = Server::new(move |_, _| says(&prose(last)));
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("{}#m", server.url());
    let (code, _, stderr) = chains(first.path(), &["--prose-url", &url]);
    assert_eq!(code, Some(0), "{stderr}");
    let made = manifest(first.path());
    assert_eq!((&made["counts"]["prose_fallback"], &made["settings"]["prose"]["model"]), (&json!(0), &json!("m")));
    let all = texts(first.path());
    assert!(!all.is_empty());
    for text in &all {
        let parsed = chain::parse(text);
        assert_eq!(parsed.steps(), [true; 5], "{text}");
        assert_eq!(parsed.summary.as_deref(), Ok(last));
        assert!(text.starts_with("<step1>\nSome corners are chosen.\np0 "), "{text}");
    }
    let received = server.received();
    assert_eq!(received.len(), all.len());
    let seeds: Vec<u64> = received.iter().map(|request| request.body["seed"].as_u64().unwrap()).collect();
    assert!(seeds.iter().all(|seed| *seed < 1 << 31) && seeds.windows(2).all(|pair| pair[0] != pair[1]), "{seeds:?}");
    assert!((received[0].body["temperature"].as_f64().unwrap() - 0.7).abs() < 1e-12);
    let parts = received[0].body["messages"][0]["content"].as_array().unwrap();
    assert_eq!(parts.iter().filter(|part| part["type"] == "image_url").count(), WINDOW);

    // The answers are kept: nobody is there to be asked.
    drop(server);
    let cache = first.path().join("prose-cache");
    let files = std::fs::read_dir(&cache).unwrap().count();
    assert_eq!(files, all.len(), "a file a request, no parts left");
    let (code, _, stderr) = chains(second.path(), &["--prose-url", &url, "--prose-cache", cache.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(tars(first.path()), tars(second.path()));
    assert_eq!(manifest(first.path()), manifest(second.path()));

    // Templates would be other shards.
    let (code, _, stderr) = chains(first.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("settings.json: prose"), "{stderr}");
}

#[test]
fn prose_with_numbers_is_asked_for_once_more_and_then_left_to_the_templates() {
    let server = Server::new(|_, _| says(&prose("The camera moves by 3 metres.")));
    let (templates, refused) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(chains(templates.path(), &[]).0, Some(0));
    assert_eq!(manifest(templates.path())["settings"]["prose"], "templates");
    let (code, _, stderr) = chains(refused.path(), &["--prose-url", &format!("{}#m", server.url())]);
    assert_eq!(code, Some(0), "{stderr}");
    let written = manifest(refused.path())["counts"]["written"].as_u64().unwrap();
    assert_eq!(manifest(refused.path())["counts"]["prose_fallback"], written);
    assert_eq!(server.received().len() as u64, 2 * written);
    assert_eq!(tars(templates.path()), tars(refused.path()));

    // The second of two answers is as good as the first.
    let server = Server::new(|number, _| match number % 2 {
        0 => says("I would rather not."),
        _ => says(&prose("The camera moves on.")),
    });
    let late = tempfile::tempdir().unwrap();
    let (code, _, stderr) = chains(late.path(), &["--prose-url", &format!("{}#m", server.url())]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(manifest(late.path())["counts"]["prose_fallback"], 0);
    assert!(texts(late.path()).iter().all(|text| text.contains("<step5>\nThe camera moves on.\n</step5>")));
}

#[test]
fn an_endpoint_that_refuses_ends_the_chains_and_says_which_window() {
    let server = Server::new(|_, _| (404, Vec::new(), "no such model".to_owned()));
    let out = tempfile::tempdir().unwrap();
    let (code, _, stderr) = chains(out.path(), &["--prose-url", &format!("{}#m", server.url())]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("prose of synth-3-") && stderr.contains("status 404: no such model"), "{stderr}");
    assert!(!out.path().join("manifest.json").exists());
}
