//! What a request takes of the server's memory beside its body, however it is made.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Cursor, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};
use model::{Device, EgoModel};
use training_evaluation::serve::{ChatModel, Options, Server};

/// Counts what is held, and the most that was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator with two counters beside it.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of the long bodies.
const LONG: usize = 8 << 20;
/// A body may take as much again so many times.
const TIMES: usize = 4;
/// What any request may take: stacks, buffers of sockets, a short prompt's tokens and its answer.
const ANY: usize = 16 << 20;

/// Begin of a body, what is repeated in it up to [`LONG`] bytes, its end, and what the response says.
type Row = (&'static str, &'static str, &'static str, &'static str);

const ROWS: [Row; 9] = [
    (r#"{"max_tokens": 1, "messages": [{"role": "user", "content": "a"}], "metadata": ["#, "0,", "0]}", "200 OK"),
    (r#"{"messages": [{"role": "user", "content": "a"}], "nobody": ["#, "0,", "0]}", "nobody: not supported"),
    (r#"{"messages": [{"role": "user", "content": "a"}], "nobody": "#, "[", "", "expected a JSON object"),
    (r#"{"messages": ["#, "{},", "{}]}", "at most 1024 turns"),
    (r#"{"messages": [{"role": "user", "content": ["#, "{},", "{}]}]}", "at most 4096 parts"),
    (r#"{"messages": [{"role": "user", "content": "a"}], "stop": ["#, r#""","#, r#"""]}"#, "stop: expected at most"),
    (r#"{"messages": [{"role": "user", "content": ""#, "long text ", r#""}]}"#, "at most 2048 tokens"),
    ("{", r#""a": 0, "#, r#""b": 0}"#, "messages: expected, but missing"),
    ("{", r#""a": {}, "#, "", "expected a JSON object"),
];

/// Sends a body in pieces, so that this side holds little of it; the response, and the most bytes that were held meanwhile.
fn send(server: &Server, begin: &str, piece: &str, pieces: usize, end: &str) -> (String, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let address = server.url();
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let length = begin.len() + pieces * piece.len() + end.len();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{begin}").unwrap();
    for _ in 0..pieces {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    stream.write_all(end.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    (response, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// A picture of 8 x 8 pixels whose colour profile unpacks to 64 MiB.
fn packed() -> String {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = PngEncoder::new(&mut bytes);
    encoder.set_icc_profile(vec![0; 64 << 20]).unwrap();
    encoder.write_image(&[7; 192], 8, 8, ExtendedColorType::Rgb8).unwrap();
    BASE64_STANDARD.encode(bytes.into_inner())
}

// One test: the counters are the process's.
#[test]
fn a_request_takes_a_small_multiple_of_its_body() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/weights/nano");
    let engine = ChatModel::new(EgoModel::load(&weights, &Device::Cpu).unwrap(), 2048);
    let server = Server::start(TcpListener::bind("127.0.0.1:0").unwrap(), engine, Options::default()).unwrap();
    // What is held from the first answer on is held before it counts.
    let short = r#"{"max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}"#;
    assert!(send(&server, short, "", 0, "").0.contains("200 OK"));
    for (begin, repeated, end, says) in ROWS {
        let piece = repeated.repeat((64 << 10) / repeated.len());
        let (response, taken) = send(&server, begin, &piece, LONG / piece.len(), end);
        assert!(response.contains(says), "{begin}{repeated}: {response}: lacks {says}");
        assert!(taken < TIMES * LONG + ANY, "{begin}{repeated}: {taken} bytes: {response}");
    }
    let begin = r#"{"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": ""#;
    let picture = format!("{begin}data:image/png;base64,{}", packed());
    let (response, taken) = send(&server, &picture, "", 0, "\"}]}]}");
    assert!(response.contains("200 OK") && taken < 3 * ANY, "a packed profile: {taken} bytes: {response}");
    server.stop().unwrap();
}
