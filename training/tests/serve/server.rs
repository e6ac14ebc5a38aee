//! The server around the model: keys, queue, clients that hang up or dawdle, panics, its end, the program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::answer::prompt::Prompt;
use serde_json::json;
use training_data::endpoint::{self, Endpoint};
use training_evaluation::serve::{ChatModel, Engine, Event, Options, Refusal, Request, Sink};

use super::{
    Fake, LONG, Reads, Reply, agent, asks, get, load, nano, post, raw, raw_post, read, says, start, waits, weights,
};

#[test]
fn a_key_is_asked_for_wherever_there_is_something_to_know() {
    let options = Options { key: Some("sk-right".to_owned()), ..Options::default() };
    let server = start(Fake(|_: &Request, sink: &Sink| says(sink, "yes")), options);
    let url = server.url();
    assert_eq!(get(&url.replace("/v1", "/health")).status, 200);
    let ask = |path: &str, key: Option<&str>| {
        let mut request = agent().get(format!("{url}{path}"));
        if let Some(key) = key {
            request = request.header("Authorization", key);
        }
        read(request.call())
    };
    for path in ["/models", "/chat/completions", "/nowhere"] {
        for key in [None, Some("Bearer sk-wrong"), Some("sk-right"), Some("Bearer ")] {
            let reply = ask(path, key);
            let error = reply.json()["error"].clone();
            assert_eq!((reply.status, &error["code"]), (401, &json!("invalid_api_key")), "{path} {key:?}");
            assert!(!reply.text.contains("sk-"));
        }
    }
    assert_eq!(ask("/models", Some("Bearer sk-right")).status, 200);
    let client = Endpoint::with_key(&url, None, Some("sk-right".to_owned())).unwrap();
    let sampling = endpoint::Sampling { temperature: 0.0, seed: 0, max_tokens: 3 };
    assert_eq!(client.chat(&asks("a"), &sampling).unwrap().text, "yes");
    server.stop().unwrap();
}

/// A request in a thread of its own.
fn ask_aside(url: &str, replies: &Sender<Reply>) -> JoinHandle<()> {
    let (url, replies) = (url.to_owned(), replies.clone());
    std::thread::spawn(move || replies.send(post(&url, &json!({"messages": asks("a")}))).unwrap())
}

/// An engine that tells when it begins with a request, and answers it when it is let.
fn gate() -> (impl Engine, Receiver<()>, Sender<()>) {
    let ((began, begun), (go, may_go)) = (channel(), channel());
    let engine = Fake(move |_: &Request, sink: &Sink| {
        began.send(()).unwrap();
        may_go.recv().unwrap();
        says(sink, "here")
    });
    (engine, begun, go)
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let (engine, begun, go) = gate();
    let server = start(engine, Options { queue: 1, ..Options::default() });
    let (replies, replied) = channel();
    let mut threads = vec![ask_aside(&server.url(), &replies)];
    begun.recv_timeout(LONG).unwrap();
    // One is answered; of two more one waits and one is sent away, whichever comes first.
    threads.extend([ask_aside(&server.url(), &replies), ask_aside(&server.url(), &replies)]);
    let busy = replied.recv_timeout(LONG).unwrap();
    assert_eq!((busy.status, &busy.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!((1..=60).contains(&busy.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap()));
    for _ in 0..2 {
        go.send(()).unwrap();
        assert_eq!(replied.recv_timeout(LONG).unwrap().answer(0).0, "here");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    server.stop().unwrap();
}

#[test]
fn who_hangs_up_frees_the_model_and_the_place_in_the_queue() {
    let ((began, begun), (ended, end)) = (channel(), channel());
    let engine = Fake(move |request: &Request, sink: &Sink| {
        if request.n == 1 {
            return says(sink, "next");
        }
        // The last way hangs up within an answer.
        if request.n == 3 {
            sink.send(Event::Started { prompt_tokens: 1 });
            sink.send(Event::Text { answer: 0, text: "beginning".to_owned() });
        }
        began.send(()).unwrap();
        let outcome = waits(sink);
        ended.send(()).unwrap();
        outcome
    });
    let server = start(engine, Options { queue: 1, ..Options::default() });
    let body = |n: usize, stream: bool| json!({"messages": asks("a"), "n": n, "stream": stream});
    for (n, stream) in [(2, false), (2, true), (3, true)] {
        let mut client = raw_post(&server.url(), &body(n, stream));
        begun.recv_timeout(LONG).unwrap();
        if n == 3 {
            // A piece arrives while the answer goes on.
            let mut got = String::new();
            let mut buffer = [0; 512];
            while !got.contains("beginning") {
                let count = client.read(&mut buffer).unwrap();
                assert!(count > 0, "{got}");
                got.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            assert!(got.starts_with("HTTP/1.1 200 OK"), "{got}");
        }
        drop(client);
        end.recv_timeout(LONG).unwrap();
        assert_eq!(post(&server.url(), &body(1, false)).answer(0).0, "next");
    }
    server.stop().unwrap();
}

/// No tokens, which is all that an engine without a model needs.
fn nothing() -> Prompt {
    Prompt { ids: Vec::new(), positions: Vec::new(), next: 0 }
}

#[test]
fn who_hangs_up_while_it_is_read_frees_the_reader_and_never_comes_to_the_model() {
    let ((began, begun), (ended, end)) = (channel(), channel());
    let reads = move |request: &Request, gone: &dyn Fn() -> bool| {
        if request.n == 1 {
            return Ok(nothing());
        }
        began.send(()).unwrap();
        while !gone() {
            std::thread::sleep(Duration::from_millis(2));
        }
        ended.send(()).unwrap();
        Err(Refusal::stopping())
    };
    let answers = |request: &Request, sink: &Sink| {
        assert_eq!(request.n, 1, "one whose client is gone");
        says(sink, "next")
    };
    let server = start(Reads(answers, reads), Options::default());
    // More than are read at once.
    for _ in 0..6 {
        let client = raw_post(&server.url(), &json!({"messages": asks("a"), "n": 2}));
        begun.recv_timeout(LONG).unwrap();
        drop(client);
        end.recv_timeout(LONG).unwrap();
    }
    assert_eq!(post(&server.url(), &json!({"messages": asks("a")})).answer(0).0, "next");
    server.stop().unwrap();
}

#[test]
fn a_text_that_can_not_fit_is_refused_while_the_model_is_busy() {
    let ((began, begun), (go, may_go)) = (channel(), channel());
    let model = load();
    let reads = ChatModel::new(load(), 40).reader().unwrap();
    let answers = move |request: &Request, sink: &Sink| {
        // What was read ahead is what the model itself would read.
        let prompt = model.prompt(&request.messages, &[]).unwrap();
        assert_eq!(request.prompt.as_ref(), Some(&prompt));
        began.send(()).unwrap();
        may_go.recv().unwrap();
        says(sink, "here")
    };
    let engine = Reads(answers, move |request: &Request, gone: &dyn Fn() -> bool| reads(request, gone));
    // No place to wait in: whatever comes to the queue is sent away with 429.
    let server = start(engine, Options { queue: 0, ..Options::default() });
    let (replies, replied) = channel();
    let running = ask_aside(&server.url(), &replies);
    begun.recv_timeout(LONG).unwrap();
    // 16 MiB, of which not one byte is tokenized: a token of nano stands for 16 bytes at most.
    for text in ["long ".repeat(100), "long text ".repeat(1 << 14), "x".repeat(16 << 20)] {
        let refused = post(&server.url(), &json!({"messages": asks(&text)}));
        let error = refused.json()["error"].clone();
        assert_eq!((refused.status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("at most 40 tokens"), "{error}");
    }
    go.send(()).unwrap();
    assert_eq!(replied.recv_timeout(LONG).unwrap().answer(0).0, "here");
    running.join().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_client_of_the_model_that_hangs_up_leaves_it_to_the_next() {
    let server = nano();
    let mut body = json!({"messages": asks("Tell me all."), "temperature": 1.5, "max_tokens": 1024, "n": 8});
    body["stream"] = json!(true);
    for _ in 0..3 {
        let mut client = raw_post(&server.url(), &body);
        let mut first = [0; 16];
        client.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK\r");
    }
    let reply = post(&server.url(), &json!({"messages": asks("And now?"), "max_tokens": 1}));
    reply.answer(0);
    server.stop().unwrap();
}

#[test]
fn a_panic_ends_its_request_alone() {
    let engine = Fake(|request: &Request, sink: &Sink| match request.n {
        1 => says(sink, "still here"),
        2 => panic!("at once"),
        _ => {
            sink.send(Event::Started { prompt_tokens: 1 });
            panic!("within an answer");
        }
    });
    let server = start(engine, Options::default());
    let ask = |n: usize, stream: bool| post(&server.url(), &json!({"messages": asks("a"), "n": n, "stream": stream}));
    for (n, stream) in [(2, false), (2, true), (3, false)] {
        let reply = ask(n, stream);
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("server_error")));
        assert!(!reply.text.contains("at once"));
    }
    // The status is out already: the stream says it.
    let late = ask(3, true);
    assert_eq!(late.status, 200);
    let last = late.text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":{") && !late.text.contains("[DONE]"), "{}", late.text);
    assert_eq!(ask(1, false).answer(0).0, "still here");
    server.stop().unwrap();
}

#[test]
fn a_slow_client_is_not_waited_for() {
    let engine = Fake(|_: &Request, sink: &Sink| says(sink, "hello"));
    let server = start(engine, Options { read_timeout: Duration::from_millis(300), ..Options::default() });
    let mut got = String::new();
    raw(&server.url(), "GET /health HTTP/1.1\r\nHost:").read_to_string(&mut got).unwrap();
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 408"), "{got}");
    let mut half = raw(
        &server.url(),
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    );
    half.read_to_string(&mut got).unwrap();
    assert!(got.contains("HTTP/1.1 408") && got.contains("the body took too long"), "{got}");
    server.stop().unwrap();
}

#[test]
fn a_server_that_stops_lets_the_running_answer_end_and_refuses_the_others() {
    let (engine, begun, go) = gate();
    let server = start(engine, Options { queue: 1, grace: LONG, ..Options::default() });
    let (url, (replies, replied)) = (server.url(), channel());
    let running = ask_aside(&url, &replies);
    begun.recv_timeout(LONG).unwrap();
    let waiting = ask_aside(&url, &replies);
    let refused = ask_aside(&url, &replies);
    // Both have come: one waits, one found the queue full.
    assert_eq!(replied.recv_timeout(LONG).unwrap().status, 429);
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(replied.recv_timeout(LONG).unwrap().status, 503);
    go.send(()).unwrap();
    assert_eq!(replied.recv_timeout(LONG).unwrap().answer(0).0, "here");
    stopping.join().unwrap().unwrap();
    [running, waiting, refused].into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_answer_that_goes_on_is_cut_when_the_time_is_over() {
    let (began, begun) = channel();
    for (stream, status) in [(false, 503), (true, 200)] {
        let began = began.clone();
        let engine = Fake(move |_: &Request, sink: &Sink| {
            sink.send(Event::Started { prompt_tokens: 1 });
            began.send(()).unwrap();
            waits(sink)
        });
        let server = start(engine, Options { grace: Duration::from_millis(50), ..Options::default() });
        let url = server.url();
        let asked = std::thread::spawn(move || post(&url, &json!({"messages": asks("a"), "stream": stream})));
        begun.recv_timeout(LONG).unwrap();
        server.stop().unwrap();
        let cut = asked.join().unwrap();
        let says = cut.text.contains("shutting down") && !cut.text.contains("[DONE]");
        assert!(cut.status == status && says, "{}: {}", cut.status, cut.text);
    }
}

/// Ends with the test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn the_program_says_where_it_listens_and_ends_in_order() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
    command.args(["serve", "--port", "0", "--weights"]).arg(weights()).stdout(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(program.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim_end();
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/v1") && !url.contains(":0/"), "{line:?}");
    assert_eq!(get(&format!("{url}/models")).json()["data"][0]["id"], "nano");
    let reply = post(url, &json!({"messages": asks("a"), "max_tokens": 4}));
    reply.answer(0);
    assert!(reply.json()["usage"]["completion_tokens"].as_u64().unwrap() <= 4);
    assert!(Command::new("kill").args(["-TERM", &program.0.id().to_string()]).status().unwrap().success());
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status.code();
        }
        assert!(begun.elapsed() < LONG, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(0));
}

#[test]
fn a_server_that_others_can_reach_needs_a_key() {
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
        command.args(["serve", "--port", "0", "--weights"]).arg(weights()).args(more).env("SERVE_TEST_EMPTY", " ");
        let output = command.env_remove("SERVE_TEST_NOTHING").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, says) in [
        (&["--host", "0.0.0.0"][..], "--host 0.0.0.0: others can reach it, so it needs a key"),
        (&["--host", "::"], "--host ::: others can reach it"),
        (&["--api-key-env", "SERVE_TEST_NOTHING"], "--api-key-env SERVE_TEST_NOTHING: environment variable not found"),
        (&["--api-key-env", "SERVE_TEST_EMPTY"], "--api-key-env SERVE_TEST_EMPTY: expected a key, got nothing"),
        (&["--device", "abacus"], "--device"),
        (&["--device", "abacus"], "expected cpu, cuda or cuda:N, got abacus"),
        (&["--max-tokens", "4"], "max_tokens: expected \"auto\", or at least "),
    ] {
        let (code, stderr) = run(arguments);
        assert!(code == Some(1) && stderr.contains(says), "{arguments:?}: {stderr}");
    }
}
