//! Instructions with images, in the layout of LLaVA-Video-178K: a list of
//! `{"id": .., "conversations": [{"from": "human", "value": "<image>\n.."}, {"from": "gpt", "value": ".."}, ..],
//! "image" | "images" | "video": path or paths}`. A video is a folder of frames, or a list of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use model::answer::chat::Part;
use serde::Deserialize;
use serde_json::{Value, json};

/// Where images stand in a question.
const PLACEHOLDERS: [&str; 2] = ["<image>", "<video>"];
/// What frames of a video may be.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Of what is left out, how many are named in the log; the others are counted.
const NAMED: usize = 5;

#[derive(Deserialize)]
struct RawItem {
    #[serde(default)]
    id: Value,
    conversations: Vec<RawTurn>,
    image: Option<RawPaths>,
    images: Option<RawPaths>,
    video: Option<RawPaths>,
}

#[derive(Deserialize)]
struct RawTurn {
    from: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPaths {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug)]
struct Item {
    id: String,
    media: Media,
    /// Questions and answers.
    turns: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
enum Media {
    Images(Vec<PathBuf>),
    /// Of which as many are taken as there is room for.
    Frames(Vec<PathBuf>),
}

/// A list of instructions. Each question with its answer is an example of its own, asked of the images alone: what was
/// said before it is left out.
#[derive(Debug)]
pub struct Instruct {
    path: PathBuf,
    items: Vec<Item>,
    /// Item and turn of each example.
    rounds: Vec<(usize, usize)>,
    /// What was left out, and why.
    left_out: Vec<String>,
}

/// One question with its answer.
#[derive(Debug)]
pub struct Round<'a> {
    /// Of the item.
    pub id: &'a str,
    /// What is asked, placeholders of images included.
    question: &'a str,
    /// What is to be said.
    pub answer: &'a str,
    media: &'a Media,
}

impl Instruct {
    /// Reads the list at `path`, whose images lie in `root`, or beside it. Items without their images are left out, and
    /// counted and named in the log.
    ///
    /// # Errors
    /// A file that can't be read; an item that is none, by its number; not one item with its images.
    pub fn open(path: &Path, root: Option<&Path>) -> Result<Self> {
        let read = || -> Result<Self> {
            let file = std::io::BufReader::new(std::fs::File::open(path)?);
            let raw: Vec<Value> = serde_json::from_reader(file)?;
            let root = root.or(path.parent()).unwrap_or(Path::new("."));
            let (mut items, mut left_out) = (Vec::new(), Vec::new());
            for (number, value) in raw.into_iter().enumerate() {
                let named = match &value["id"] {
                    Value::Null => format!("item {number}"),
                    Value::String(id) => format!("item {number} ({id})"),
                    id => format!("item {number} ({id})"),
                };
                let raw: RawItem = serde_json::from_value(value).with_context(|| named.clone())?;
                let turns = turns(&raw.conversations).with_context(|| named.clone())?;
                match media(&raw, root) {
                    Ok(media) => items.push(Item { id: id(&raw.id, number), media, turns }),
                    Err(error) => left_out.push(format!("{named}: {error:#}")),
                }
            }
            let rounds = items.iter().enumerate().flat_map(|(i, item)| (0..item.turns.len()).map(move |t| (i, t)));
            Ok(Self { path: path.to_owned(), rounds: rounds.collect(), items, left_out })
        };
        let instruct = read().with_context(|| path.display().to_string())?;
        for what in instruct.left_out.iter().take(NAMED) {
            tracing::warn!("{}: left out: {what}", path.display());
        }
        if instruct.left_out.len() > NAMED {
            tracing::warn!("{}: and {} more are left out", path.display(), instruct.left_out.len() - NAMED);
        }
        ensure!(
            !instruct.rounds.is_empty(),
            "{}: expected an item with its images, got none; left out: {}",
            path.display(),
            instruct.left_out.first().map_or("nothing", String::as_str)
        );
        Ok(instruct)
    }

    /// Examples.
    pub fn len(&self) -> usize {
        self.rounds.len()
    }

    /// What a manifest says of it.
    pub fn describe(&self) -> Value {
        json!({"file": self.path, "examples": self.len(), "items": self.items.len(), "left_out": self.left_out.len()})
    }

    /// Its pictures and films, by their paths.
    pub fn sources(&self) -> Vec<String> {
        let paths = self.items.iter().flat_map(|item| match &item.media {
            Media::Images(paths) | Media::Frames(paths) => paths,
        });
        paths.map(|path| path.display().to_string()).collect()
    }

    /// One of the examples.
    ///
    /// # Panics
    /// A number beyond them.
    pub fn round(&self, number: usize) -> Round<'_> {
        let (item, turn) = self.rounds[number];
        let Item { id, media, turns } = &self.items[item];
        Round { id, question: &turns[turn].0, answer: &turns[turn].1, media }
    }
}

impl Round<'_> {
    /// Files of the images; of a video at most `most` frames, evenly spread.
    ///
    /// # Errors
    /// A folder that can't be read any more.
    pub fn images(&self, most: usize) -> Result<Vec<PathBuf>> {
        let frames = match self.media {
            Media::Images(paths) => return Ok(paths.clone()),
            Media::Frames(paths) => match &paths[..] {
                [folder] if folder.is_dir() => frames(folder)?,
                paths => paths.to_vec(),
            },
        };
        let count = most.min(frames.len());
        Ok((0..count).map(|k| frames[(2 * k + 1) * frames.len() / (2 * count)].clone()).collect())
    }

    /// The question, with `images` images: one where each placeholder stands if there are as many, else all of them
    /// first.
    pub fn parts(&self, images: usize) -> Vec<Part> {
        let mut texts = vec![self.question];
        for placeholder in PLACEHOLDERS {
            texts = texts.into_iter().flat_map(|text| text.split(placeholder)).collect();
        }
        let fits = texts.len() == images + 1;
        let mut parts = Vec::new();
        if !fits {
            parts.extend(std::iter::repeat_n(Part::Image, images));
        }
        for (i, text) in texts.into_iter().enumerate() {
            if fits && i > 0 {
                parts.push(Part::Image);
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
        }
        parts
    }
}

fn id(id: &Value, number: usize) -> String {
    match id {
        Value::Null => number.to_string(),
        Value::String(id) => id.clone(),
        other => other.to_string(),
    }
}

/// Questions and answers, which must take turns.
fn turns(conversations: &[RawTurn]) -> Result<Vec<(String, String)>> {
    let pairs = conversations.chunks(2).map(|pair| match pair {
        [question, answer] if question.from == "human" && answer.from == "gpt" => {
            Ok((question.value.clone(), answer.value.clone()))
        }
        _ => {
            let from: Vec<&str> = conversations.iter().map(|turn| turn.from.as_str()).collect();
            anyhow::bail!("conversations: expected human and gpt by turns, got {}", from.join(", "))
        }
    });
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    ensure!(!pairs.is_empty(), "conversations: expected a question and an answer, got none");
    Ok(pairs)
}

/// The images of an item, all of which must be there.
fn media(raw: &RawItem, root: &Path) -> Result<Media> {
    let paths = |raw: &Option<RawPaths>| match raw {
        None => Vec::new(),
        Some(RawPaths::One(path)) => vec![root.join(path)],
        Some(RawPaths::Many(paths)) => paths.iter().map(|path| root.join(path)).collect(),
    };
    let images: Vec<PathBuf> = [paths(&raw.image), paths(&raw.images)].concat();
    let missing = |path: &&PathBuf| !path.is_file();
    if let Some(path) = images.iter().find(missing) {
        anyhow::bail!("{}: no such file", path.display());
    }
    let video = paths(&raw.video);
    if video.is_empty() {
        return Ok(Media::Images(images));
    }
    ensure!(images.is_empty(), "expected images or a video, got both");
    if let [path] = &video[..] {
        // The data set names the film; its frames lie in a folder of that name, with the ending or without.
        let folders = [path.clone(), path.with_extension("")];
        let folder = folders.into_iter().find(|folder| folder.is_dir());
        let folder = folder.with_context(|| format!("{}: expected a folder of frames there", path.display()))?;
        ensure!(!frames(&folder)?.is_empty(), "{}: expected frames, got none", folder.display());
        return Ok(Media::Frames(vec![folder]));
    }
    if let Some(path) = video.iter().find(missing) {
        anyhow::bail!("{}: no such file", path.display());
    }
    Ok(Media::Frames(video))
}

/// Pictures of a folder in the order of their names.
fn frames(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut frames = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if EXTENSIONS.contains(&extension.as_str()) {
            frames.push(path);
        }
    }
    frames.sort();
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(from: &str, value: &str) -> Value {
        json!({"from": from, "value": value})
    }

    fn written(dir: &Path, items: &Value) -> PathBuf {
        let path = dir.join("list.json");
        std::fs::write(&path, items.to_string()).unwrap();
        path
    }

    #[test]
    fn items_with_images_videos_and_words_alone_are_read_and_the_others_named() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.png", "b.jpg", "film/003.jpg", "film/001.jpg", "film/002.PNG", "film/notes.txt", "film/004.jpg"]
        {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::create_dir_all(dir.path().join("empty")).unwrap();
        let talk = || json!([turn("human", "<image>\nWhat?"), turn("gpt", "That.")]);
        let path = written(
            dir.path(),
            &json!([
                {"id": "one", "image": "a.png", "conversations": talk()},
                {"id": 2, "images": ["a.png", "b.jpg"], "conversations": [
                    turn("human", "Left <image>, right <image>: same?"), turn("gpt", "No."),
                    turn("human", "Why?"), turn("gpt", "So."),
                ]},
                {"id": "three", "video": "film.mp4", "conversations": talk()},
                {"id": "four", "video": ["a.png", "b.jpg"], "conversations": talk()},
                {"conversations": [turn("human", "Hello"), turn("gpt", "Hello.")]},
                {"id": "six", "image": "gone.png", "conversations": talk()},
                {"id": "seven", "video": "gone.mp4", "conversations": talk()},
                {"id": "eight", "video": "empty", "conversations": talk()},
            ]),
        );
        let list = Instruct::open(&path, None).unwrap();
        assert_eq!(list.len(), 6);
        let left_out = list.left_out.join("\n");
        for (name, what) in [("six", "gone.png"), ("seven", "gone.mp4"), ("eight", "empty")] {
            assert!(left_out.lines().any(|line| line.contains(name) && line.contains(what)), "{left_out}");
        }
        assert_eq!((list.left_out.len(), list.describe()["left_out"].as_u64()), (3, Some(3)));
        let names = |round: &Round<'_>, most: usize| -> Vec<String> {
            let of = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
            round.images(most).unwrap().iter().map(of).collect()
        };
        assert_eq!(names(&list.round(0), 1), ["a.png"]);
        let two = list.round(1);
        assert_eq!((two.id, two.answer, names(&two, 1).len()), ("2", "No.", 2), "images are never left out");
        let text = |text: &str| Part::Text(text.to_owned());
        let expected = [text("Left "), Part::Image, text(", right "), Part::Image, text(": same?")];
        assert_eq!(two.parts(2), expected);
        assert_eq!(list.round(2).parts(2), [Part::Image, Part::Image, text("Why?")]);
        let film = list.round(3);
        assert_eq!(names(&film, 9), ["001.jpg", "002.PNG", "003.jpg", "004.jpg"]);
        assert_eq!(names(&film, 2), ["002.PNG", "004.jpg"]);
        assert_eq!(film.parts(2), [Part::Image, Part::Image, text("\nWhat?")], "one placeholder, two frames");
        assert_eq!(names(&list.round(4), 9), ["a.png", "b.jpg"]);
        let words = list.round(5);
        assert_eq!((words.id, names(&words, 9).len(), words.parts(0)), ("4", 0, vec![text("Hello")]));
        // From somewhere else, everything with images is missing.
        let elsewhere = Instruct::open(&path, Some(Path::new("/nowhere"))).unwrap();
        assert_eq!((elsewhere.len(), elsewhere.left_out.len()), (1, 7));
    }

    #[test]
    fn what_is_no_list_of_conversations_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = |items: &Value| {
            let path = written(dir.path(), items);
            format!("{:#}", Instruct::open(&path, None).unwrap_err())
        };
        for (items, parts) in [
            (json!([{"id": "x"}]), ["item 0 (x)", "conversations"]),
            (json!([{"id": "x", "conversations": []}]), ["item 0 (x)", "got none"]),
            (json!([{"id": 5, "conversations": [turn("human", "?")]}]), ["item 0 (5)", "got human"]),
            (json!([{"conversations": [turn("gpt", "!"), turn("human", "?")]}]), ["item 0", "got gpt, human"]),
            (json!([{"id": "x", "conversations": [turn("system", "!"), turn("gpt", "?")]}]), ["item 0 (x)", "system"]),
            (json!({"id": "x"}), ["list.json", "sequence"]),
            (json!([]), ["list.json", "got none"]),
            (
                json!([{"id": "x", "image": "gone.png", "conversations": [turn("human", "?"), turn("gpt", "!")]}]),
                ["list.json", "gone.png"],
            ),
        ] {
            let text = error(&items);
            assert!(parts.iter().all(|part| text.contains(part)) && text.contains("list.json"), "{text}");
        }
        let missing = format!("{:#}", Instruct::open(&dir.path().join("none.json"), None).unwrap_err());
        assert!(missing.contains("none.json"), "{missing}");
    }
}
