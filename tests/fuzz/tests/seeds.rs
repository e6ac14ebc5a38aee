//! Every seed through its target: a seed that no longer does what it is there for would leave the fuzzer at the door.

use std::path::Path;

/// What a target does with an input.
type Target = fn(&[u8]) -> bool;

#[test]
fn seeds_come_through_unless_they_are_bad() {
    let targets: [(&str, Target); 8] = [
        ("raw_image", fuzz::raw_image),
        ("compressed_image", fuzz::compressed_image),
        ("damaged_image", fuzz::damaged_image),
        ("cdr", fuzz::cdr),
        ("camera_info", fuzz::camera_info),
        ("mcap", fuzz::mcap),
        ("chain_text", fuzz::chain_text),
        ("chain_write", fuzz::chain_write),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut size = 0;
    for (target, run) in targets {
        assert!(root.join("targets").join(format!("{target}.rs")).is_file(), "{target}");
        let mut through = 0;
        for entry in std::fs::read_dir(root.join("seeds").join(target)).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            let is_bad = path.file_name().unwrap().to_string_lossy().starts_with("bad-");
            assert_eq!(run(&data), !is_bad, "{}", path.display());
            size += data.len();
            through += usize::from(!is_bad);
        }
        assert!(through > 0, "{target} has no good seed");
    }
    assert!(size < 100_000, "{size} bytes");
    assert_eq!(std::fs::read_dir(root.join("targets")).unwrap().count(), targets.len());
}
