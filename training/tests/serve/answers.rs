//! Nano behind the endpoint: what it is asked, what it answers, what it can't.

use geometry::Intrinsics;
use image::ImageFormat;
use model::answer::budget::Budget;
use model::answer::chain;
use model::answer::chat::{Message, Part};
use model::answer::fill::Fill;
use model::answer::prompt::Wording;
use model::{AnswerOptions, Mode};
use serde_json::{Value, json};
use training_data::endpoint::{self, Endpoint};
use training_data::{WindowSample, parse_source};
use training_evaluation::measured;
use training_evaluation::serve::{ChatModel, Options, Server};

use super::{agent, asks, get, load, nano, picture, post, read, shows, start};

#[test]
fn words_are_answered_and_their_tokens_counted() {
    let (server, model) = (nano(), load());
    let models = get(&format!("{}/models", server.url())).json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("nano")));
    let health = get(&server.url().replace("/v1", "/health"));
    assert_eq!((health.status, health.json()), (200, json!({"status": "ok"})));

    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Where "}, {"type": "text", "text": "are we?"}]},
    ]);
    let body = json!({"model": "nano", "messages": messages, "temperature": 0, "max_tokens": 6, "user": "a"});
    let reply = post(&server.url(), &body);
    let (text, reason) = reply.answer(0);
    let answer = reply.json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("nano")));
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-") && answer["created"].as_u64().unwrap() > 0);
    let prompt = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere are we?<|im_end|>\n\
                  <|im_start|>assistant\n";
    let (prompt, written) = (model.tokenizer().encode(prompt).unwrap().len(), &answer["usage"]["completion_tokens"]);
    assert_eq!(answer["usage"]["prompt_tokens"], prompt);
    assert_eq!(answer["usage"]["total_tokens"], prompt as u64 + written.as_u64().unwrap());
    // At the limit there are as many tokens as were asked for, before it fewer.
    assert_eq!(reason == "length", *written == json!(6), "{reason} {written}");
    // The same question has the same answer.
    assert_eq!(post(&server.url(), &body).answer(0), (text, reason));
    server.stop().unwrap();
}

#[test]
fn images_of_several_sizes_are_read_in_their_order() {
    let (server, model) = (nano(), load());
    let (png, jpeg) = (shows(&picture(64, 64, ImageFormat::Png)), shows(&picture(300, 100, ImageFormat::Jpeg)));
    let content = json!([{"type": "text", "text": "One "}, png, {"type": "text", "text": " two "}, jpeg]);
    let body = json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 3});
    let reply = post(&server.url(), &body);
    reply.answer(0);
    let text = |words: &str| Part::Text(words.to_owned());
    let turn = Message::user(vec![text("One "), Part::Image, text(" two "), Part::Image]);
    let prompt = model.prompt(&[turn], &[(64, 64), (300, 100)]).unwrap();
    assert_eq!(reply.json()["usage"]["prompt_tokens"], prompt.ids.len());
    server.stop().unwrap();
}

/// The window of the node and of the evaluation, asked as a harness asks: tokens, places, images and decoding are right
/// if the answer is the one that the model gives when it is asked directly.
#[test]
fn the_models_own_question_has_the_models_own_answer_at_once_in_pieces_and_up_to_a_stop_string() {
    let model = load();
    // On the model's grid as it is, so that nothing is resized either way.
    let sample = parse_source("synth:seed=3,windows=1,size=160x96").unwrap().sample(0).unwrap();
    let frames: Vec<_> = sample
        .images
        .iter()
        .map(|image| model.encode(&model.preprocess(image, &sample.intrinsics).unwrap()).unwrap())
        .collect();
    let options = AnswerOptions { max_tokens: Budget::Tokens(300), ..AnswerOptions::default() };
    let expected = model.answer(&frames.iter().collect::<Vec<_>>(), &options).unwrap().text;
    assert!(expected.starts_with("<poses>"), "{expected}");

    let k = &sample.intrinsics;
    let camera = format!("fx {:.1} fy {:.1} cx {:.1} cy {:.1} size {} {}\n", k.fx, k.fy, k.cx, k.cy, k.width, k.height);
    let mut parts = vec![endpoint::Part::Text(camera)];
    for (i, image) in sample.images.iter().enumerate() {
        parts.extend([endpoint::Part::Text(format!("Frame {i}: ")), endpoint::Part::image(image).unwrap()]);
    }
    parts.push(endpoint::Part::Text("\nGive the poses of the five frames.".to_owned()));
    let messages = endpoint::turn(&parts);
    let server = nano();
    let url = server.url();

    // Our own client finds the model by itself.
    let client = Endpoint::with_key(&url, None, None).unwrap();
    let sampling = endpoint::Sampling { temperature: 0.0, seed: 0, max_tokens: 300 };
    assert_eq!(client.chat(&messages, &sampling).unwrap().text, expected);

    let mut body = json!({"messages": messages, "temperature": 0, "max_tokens": 300, "stream": true});
    body["stream_options"] = json!({"include_usage": true});
    let reply = post(&url, &body);
    assert_eq!(reply.streamed(0).0, expected);
    let events = reply.events();
    assert!(events.len() > 20, "in pieces");
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 20, "{last}");
    assert!(before.iter().all(|event| event["usage"].is_null() && event.as_object().unwrap().contains_key("usage")));

    // Whatever stands in the middle of the answer, over the borders of tokens.
    let stop: String = expected.chars().skip(30).take(5).collect();
    let cut = &expected[..expected.find(&stop).unwrap()];
    body["stop"] = json!(["never to be seen", stop]);
    assert_eq!(post(&url, &body).streamed(0), (cut.to_owned(), "stop".to_owned()));
    body["stream"] = json!(false);
    let reply = post(&url, &body);
    assert_eq!(reply.answer(0), (cut.to_owned(), "stop".to_owned()));
    let whole = model.tokenizer().encode(&expected).unwrap().len() as u64;
    assert!(reply.json()["usage"]["completion_tokens"].as_u64().unwrap() < whole, "the rest is not written");

    // Drawn with a seed, twice.
    let mut body = json!({"messages": messages, "temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 40});
    body["n"] = json!(2);
    let reply = post(&url, &body);
    body["stream"] = json!(true);
    let streamed = post(&url, &body);
    for index in 0..2 {
        assert_eq!(reply.answer(index), streamed.streamed(index));
    }
    assert!(streamed.events().iter().all(|event| !event.as_object().unwrap().contains_key("usage")));
    server.stop().unwrap();
}

#[test]
fn what_can_not_be_met_is_refused_by_name() {
    let model = ChatModel::new(load(), 40);
    let options = Options { name: "nano".to_owned(), max_images: 1, max_body: 20_000, ..Options::default() };
    let server = start(model, options);
    let url = server.url();
    let png = picture(64, 64, ImageFormat::Png);
    let shown = |parts: Value| json!({"messages": [{"role": "user", "content": parts}]});
    let with = |key: &str, value: Value| {
        let mut body = json!({"messages": asks("a"), "max_tokens": 1});
        body[key] = value;
        body
    };
    let rows = [
        (400, json!([]), "body: expected a JSON object"),
        (400, json!({}), "messages: expected, but missing"),
        (400, json!({"messages": []}), "messages: expected at least one"),
        (400, json!({"messages": "hello"}), "messages: invalid type"),
        (400, json!({"messages": [{"role": "tool", "content": "a"}]}), "messages[0].role: expected system, user"),
        (400, json!({"messages": [{"role": "user"}]}), "messages[0].content: expected a string"),
        (400, json!({"messages": [{"role": "user", "content": "<|im_end|>"}]}), "tokens of the chat format"),
        (400, json!({"messages": [{"role": "system", "content": [shows(&png)]}]}), "user alone"),
        (400, shown(json!([{"text": "a"}])), "messages[0].content[0]: expected a type"),
        (400, shown(json!([{"type": "video_url", "video_url": {"url": "x"}}])), "video_url is not supported"),
        (400, shown(json!([{"type": "input_audio"}])), "got input_audio"),
        (400, shown(json!([{"type": "image_url"}])), "messages[0].content[0].image_url: expected an object"),
        (400, shown(json!([shows("https://example.org/a.png")])), "nothing is fetched, got https://example.org/a.png"),
        (400, shown(json!([shows("file:///etc/passwd")])), "nothing is fetched, got file:///etc/passwd"),
        (400, shown(json!([shows("data:image/png,abc")])), "base64"),
        (400, shown(json!([shows("data:image/webp;base64,UklGRg==")])), "got data:image/webp"),
        (400, shown(json!([shows("data:image/png;base64,???")])), "expected base64"),
        (400, shown(json!([shows("data:image/png;base64,R0lGODlhAQABAAAAACw=")])), "expected JPEG or PNG, got Gif"),
        (400, shown(json!([shows(&png), shows(&png)])), "at most 1 images"),
        (400, shown(json!([shows(&picture(601, 3, ImageFormat::Png))])), "image size"),
        (400, shown(json!("long ".repeat(50))), "at most 40 tokens"),
        (400, with("response_format", json!({"type": "json_object"})), "response_format: not supported"),
        (400, with("tool_choice", json!("required")), "tool_choice: not supported: expected none, auto or nothing"),
        (400, with("logprobs", json!(true)), "logprobs: not supported"),
        (400, with("top_logprobs", json!(3)), "logprobs: not supported"),
        (400, with("temperature", json!("hot")), "temperature: invalid type"),
        (400, with("temperature", json!(-1)), "temperature at least 0"),
        (400, with("top_p", json!(0)), "top_p: "),
        (400, with("n", json!(0)), "n: expected 1 to 16, got 0"),
        (400, with("n", json!(17)), "n: expected 1 to 16, got 17"),
        (400, with("seed", json!(0.5)), "seed: invalid type"),
        (400, with("stop", json!("")), "stop: expected"),
        (400, with("stop", json!([1])), "stop: invalid type"),
        (400, with("stream", json!("yes")), "stream: invalid type"),
        (400, with("max_tokens", json!(0)), "max_tokens: expected at least 1"),
        (404, with("model", json!("gpt-4o")), "model: expected nano, got gpt-4o"),
        (413, json!({"messages": asks(&"x".repeat(30_000))}), "at most 20000 bytes"),
    ];
    for (status, body, says) in rows {
        let reply = post(&url, &body);
        let error = reply.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        let fits = reply.status == status && message.contains(says);
        assert!(fits, "{}: {message}; expected {status}: {says}", reply.status);
        assert_eq!(error["type"], "invalid_request_error", "{message}");
    }
    let long = post(&url, &shown(json!("long ".repeat(50)))).json();
    assert_eq!(long["error"]["code"], "context_length_exceeded");

    let request = agent().post(format!("{url}/chat/completions")).header("Content-Type", "application/json");
    assert_eq!(read(request.send("{\"messages\": [")).status, 400);
    let request = agent().post(format!("{url}/chat/completions")).header("Content-Type", "text/plain");
    assert_eq!(read(request.send(with("n", json!(1)).to_string())).status, 415);
    let wrong = get(&format!("{url}/chat/completions"));
    assert_eq!((wrong.status, wrong.headers["allow"].to_str().unwrap()), (405, "POST"));
    let wrong = read(agent().post(format!("{url}/models")).send("{}"));
    assert_eq!((wrong.status, wrong.headers["allow"].to_str().unwrap()), (405, "GET"));
    assert_eq!(get(&format!("{url}/embeddings")).status, 404);
    // After all that it still answers.
    post(&url, &with("temperature", json!(0))).answer(0);
    server.stop().unwrap();
}

/// Images and a camera whose numbers the question says in full.
fn window(data: &str, index: u64) -> (WindowSample, Intrinsics) {
    let sample = parse_source(data).unwrap().sample(index).unwrap();
    let k = &sample.intrinsics;
    let tenths = |v: f64| (v * 10.0).round() / 10.0;
    let camera = Intrinsics::new(tenths(k.fx), tenths(k.fy), tenths(k.cx), tenths(k.cy), k.width, k.height).unwrap();
    (sample, camera)
}

/// The question of eval and the node, with more behind it.
fn question(sample: &WindowSample, camera: &Intrinsics, mode: Mode, more: &str) -> Value {
    let Wording { camera, labels, task } = Wording::new(mode, camera);
    let mut parts = vec![endpoint::Part::Text(camera)];
    for (label, image) in labels.into_iter().zip(&sample.images) {
        parts.extend([endpoint::Part::Text(label), endpoint::Part::image(image).unwrap()]);
    }
    parts.push(endpoint::Part::Text(task + more));
    endpoint::turn(&parts)
}

fn filling(fill: Fill) -> Server {
    let engine = ChatModel::new(load(), 16_384).filling(fill).unwrap();
    start(engine, Options { name: "nano".to_owned(), max_tokens: 4000, ..Options::default() })
}

#[test]
fn the_program_writes_its_part_of_a_windows_answer_and_of_no_other() {
    let (model, server) = (load(), filling(Fill::Arithmetic));
    // On the model's grid as it is, so that both sides compute with one camera.
    let (sample, camera) = window("synth:seed=3,windows=1,size=160x96", 0);
    let frames: Vec<_> =
        sample.images.iter().map(|image| model.encode(&model.preprocess(image, &camera).unwrap()).unwrap()).collect();
    let options = AnswerOptions { mode: Mode::FullChain, fill: Fill::Arithmetic, ..AnswerOptions::default() };
    let expected = model.answer(&frames.iter().collect::<Vec<_>>(), &options).unwrap();
    assert_eq!(chain::parse(&expected.text).steps(), [true; 5], "{}", expected.text);

    let body = |mode, more: &str| json!({"messages": question(&sample, &camera, mode, more), "temperature": 0});
    let mut chain = body(Mode::FullChain, "");
    let reply = post(&server.url(), &chain);
    assert_eq!(reply.answer(0), (expected.text.clone(), "stop".to_owned()));
    let usage = reply.json()["usage"].clone();
    assert_eq!(usage["completion_tokens"], expected.ids.len());
    assert_eq!(usage["completion_tokens_details"], json!({"filled_tokens": expected.filled}));
    assert!(10 * expected.filled > 3 * expected.ids.len(), "{} of {}", expected.filled, expected.ids.len());
    chain["stream"] = json!(true);
    chain["stream_options"] = json!({"include_usage": true});
    let reply = post(&server.url(), &chain);
    assert_eq!(reply.streamed(0), (expected.text, "stop".to_owned()));
    assert_eq!(reply.events().last().unwrap()["usage"], usage);

    // Drawn ones are no text of a free model either, each by its number.
    let mut drawn = body(Mode::AnswerOnly, "");
    (drawn["temperature"], drawn["seed"], drawn["n"]) = (json!(1.2), json!(7), json!(2));
    let reply = post(&server.url(), &drawn);
    drawn["stream"] = json!(true);
    let streamed = post(&server.url(), &drawn);
    for index in 0..2 {
        let (text, reason) = reply.answer(index);
        assert!(chain::parse_poses(&text).is_ok(), "{text}");
        assert_eq!(streamed.streamed(index), (text, reason));
    }
    assert!(reply.answer(0) != reply.answer(1));
    // Within what the program writes at once.
    let mut cut = body(Mode::AnswerOnly, "");
    cut["stop"] = json!("0 R");
    let reply = post(&server.url(), &cut);
    assert_eq!(reply.answer(0), ("<poses>\n".to_owned(), "stop".to_owned()));
    assert!(reply.json()["usage"]["completion_tokens"].as_u64().unwrap() < 20, "{}", reply.text);

    // Whoever asks anything else, or a server that fills nothing in, gets what the model says.
    let plain = nano();
    for (mut asked, ours) in [(body(Mode::AnswerOnly, " Why?"), &server), (body(Mode::AnswerOnly, ""), &plain)] {
        asked["max_tokens"] = json!(200);
        let reply = post(&ours.url(), &asked);
        assert_eq!(reply.answer(0), post(&plain.url(), &asked).answer(0));
        let usage = reply.json()["usage"].clone();
        assert!(usage["completion_tokens"].as_u64().unwrap() > 0 && usage.get("completion_tokens_details").is_none());
    }
    server.stop().unwrap();
    plain.stop().unwrap();
}

#[test]
fn the_points_of_a_window_are_those_of_its_tracks_where_they_are_measured() {
    let seen = |index| {
        let (sample, camera) = window("synth:seed=4,windows=3,size=320x240,stratum=texture", index);
        let measured = measured::of_images(&sample.images, &camera, &sample.stamps).unwrap()?;
        Some((sample, camera, measured))
    };
    let (sample, camera, expected) = (0..3).find_map(seen).expect("a window whose points have depths");
    let server = filling(Fill::Measured);
    let reply =
        post(&server.url(), &json!({"messages": question(&sample, &camera, Mode::FullChain, ""), "temperature": 0}));
    let (text, _) = reply.answer(0);
    let pixels = chain::parse(&text).pixels.unwrap_or_else(|e| panic!("{e:?}: {text}"));
    for (got, expected) in pixels.iter().flatten().zip(expected.pixels(&camera).iter().flatten()) {
        assert!((got - expected).abs().max() < 0.051, "{got} {expected}");
    }
    server.stop().unwrap();
}
