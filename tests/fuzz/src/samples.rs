//! Samples as the node reads them: its transport's message types and their decoder, which are its own affair, by way of
//! a recording, which is not.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use node::config::{Config, UseFixed};
use node::message::Input;
use node::recording::{Error, Kind, Recording};
use node::transport::Topics;

static TOPICS: LazyLock<Topics> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/node.toml");
    Config::load(&path, &[]).expect("the repository's config is valid").topics
});

thread_local! {
    /// In memory, and without a name, so that nothing is left of it however the process ends.
    static FILE: File = tempfile::tempfile_in("/dev/shm").expect("files can be made in memory");
}

/// What the node makes of a sample as an image of `kind`, and as CameraInfo.
pub fn inputs(kind: Kind, sample: &[u8]) -> Vec<Input> {
    FILE.with(|file| {
        write(file, kind, sample).expect("the file can be written");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let mut inputs = Vec::new();
        let played = Recording::open(&path).and_then(|recording| {
            assert_eq!(recording.damage(), None, "the recording itself is whole");
            recording.camera(&TOPICS, UseFixed::Never)?.play(|_, input| {
                inputs.extend(input);
                Ok::<(), Error>(())
            })
        });
        played.expect("the recording itself is read");
        inputs
    })
}

/// An MCAP file (<https://mcap.dev/spec>) with the sample on two channels, and no more than the node looks at.
fn write(mut file: &File, kind: Kind, sample: &[u8]) -> std::io::Result<()> {
    const MAGIC: &[u8] = b"\x89MCAP0\r\n";
    let [schema, channel, message, data_end] = [3, 4, 5, 15];
    let text = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let record = |opcode: u8, parts: &[&[u8]]| {
        let body = parts.concat();
        [&[opcode][..], &(body.len() as u64).to_le_bytes(), &body].concat()
    };
    let mut bytes = MAGIC.to_vec();
    for (id, kind, topic) in [(1_u16, kind, &TOPICS.image), (2, Kind::CameraInfo, &TOPICS.camera_info)] {
        let id = id.to_le_bytes();
        bytes.extend(record(schema, &[&id, &text(kind.type_name()), &text("ros2msg"), &[0; 4]]));
        bytes.extend(record(channel, &[&id, &id, &text(topic), &text("cdr"), &[0; 4]]));
        bytes.extend(record(message, &[&id, &[0; 4], &[0; 16], sample]));
    }
    bytes.extend(record(data_end, &[&[0; 4]]));
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&bytes)
}
