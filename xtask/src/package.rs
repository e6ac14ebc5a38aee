//! What the files of the ROS 2 package must hold to, since no compiler reads them: they are well formed, colcon and
//! `cargo xtask install` install the same ones, and names in them are those of the config.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Reads each file as what it is, and says which cannot be.
const READ: &str = r#"
import ast, json, sys, xml.dom.minidom
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        if path.endswith(".py"):
            ast.parse(text)
        elif path.endswith(".json"):
            json.loads(text)
        else:
            xml.dom.minidom.parseString(text.encode())
    except Exception as error:
        sys.exit(f"{path}: {error}")
"#;

/// Makes sure of a Python.
///
/// # Errors
///
/// Where there is none.
pub fn require_python() -> Result<()> {
    workspace::output(Command::new("python3").arg("--version")).context("launch files and XML are read by python3")?;
    Ok(())
}

/// Reads all that is Python, JSON or XML.
///
/// # Errors
///
/// The first file that is not what its name says.
pub fn check() -> Result<()> {
    let files = files()?;
    let is_read = |path: &&PathBuf| path.extension().is_some_and(|e| e == "py" || e == "json" || e == "xml");
    workspace::output(Command::new("python3").args(["-c", READ]).args(files.iter().filter(is_read)))?;
    Ok(())
}

/// Every file under launch/, and those of config/ that are not for training.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![workspace::root().join("launch"), workspace::root().join("config")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            match path.file_name().map(|name| name.to_string_lossy().into_owned()) {
                Some(name) if path.is_dir() && name != "training" && name != "__pycache__" => folders.push(path),
                Some(_) if path.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    if files.is_empty() {
        bail!("nothing in launch/ and config/");
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::install::{PACKAGE, SHARED};

    fn text(path: &str) -> String {
        std::fs::read_to_string(workspace::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The installed files, relative to share/egoreasoner, that the launch files and the guide name.
    fn named() -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for launch in ["egoreasoner", "replay"].map(|name| text(&format!("launch/launch/{name}.launch.py"))) {
            // SHARE / "config/node.toml"
            let paths = launch.split("SHARE / \"").skip(1).filter_map(|rest| rest.split('"').next());
            named.extend(paths.map(str::to_owned));
        }
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
        for rest in text("docs/jetson.md").split(&format!("share/{PACKAGE}/")).skip(1) {
            let path: String = rest.chars().take_while(|c| is_path(*c)).collect();
            named.insert(path.trim_end_matches('.').to_owned());
        }
        named
    }

    /// `key = "value"` of a table of config/node.toml.
    fn values(table: &str) -> Vec<(String, String)> {
        let config = text("config/node.toml");
        let section = config.split(&format!("[{table}]\n")).nth(1).and_then(|rest| rest.split("\n[").next());
        let lines = section.unwrap_or_else(|| panic!("no [{table}]")).lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
            .collect()
    }

    #[test]
    fn colcon_and_xtask_install_the_same_folders() {
        let cmake = text("launch/CMakeLists.txt");
        let mut installed = BTreeSet::new();
        for call in cmake.split("install(DIRECTORY").skip(1).filter_map(|rest| rest.split(')').next()) {
            let mut words = call.split_whitespace().map(|word| word.trim_matches('"'));
            let from: Vec<&str> = words.by_ref().take_while(|word| *word != "DESTINATION").collect();
            let place = words.next().and_then(|word| word.strip_prefix("share/${PROJECT_NAME}")).expect("a place");
            for folder in from {
                let from = folder.strip_prefix("${WORKSPACE_ROOT}/").map_or(format!("launch/{folder}"), str::to_owned);
                let name = folder.rsplit('/').next().expect("a name");
                installed.insert((from, format!("{place}/{name}").trim_start_matches('/').to_owned()));
            }
        }
        let ours: BTreeSet<_> = SHARED.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        assert_eq!(installed, ours);
        assert!(cmake.contains("DESTINATION \"lib/${PROJECT_NAME}\" RENAME egoreasoner_node"));
    }

    #[test]
    fn what_launch_files_and_the_guide_name_is_installed() {
        let named = named();
        assert!(named.len() >= 6, "{named:?}");
        for path in named {
            let source = SHARED
                .iter()
                .find_map(|(from, to)| Some(Path::new(from).join(Path::new(&path).strip_prefix(to).ok()?)));
            let source = source.unwrap_or_else(|| panic!("{path} is not in a folder that is installed"));
            assert!(workspace::root().join(&source).is_file(), "{path}: no {}", source.display());
        }
    }

    #[test]
    fn no_folder_of_the_package_is_forgotten() {
        let root = workspace::root();
        for entry in std::fs::read_dir(root.join("launch")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let is_shared = SHARED.iter().any(|(from, _)| root.join(from) == path);
            assert!(is_shared || path.is_file(), "{} is not installed", path.display());
        }
    }

    #[test]
    fn every_launch_argument_sets_a_key_that_the_config_has() {
        let launch = text("launch/launch/egoreasoner.launch.py");
        let keys = launch.split("KEYS = {\n").nth(1).and_then(|rest| rest.split("\n}").next()).expect("KEYS");
        // "argument": ("table.key", "what it is"),
        let keys: Vec<&str> = keys.lines().map(|line| line.split('"').nth(3).expect("a key")).collect();
        assert!(keys.len() >= 10, "{keys:?}");
        for key in keys {
            let (table, name) = key.split_once('.').expect("table.key");
            assert!(values(table).iter().any(|(known, _)| known == name), "{key}");
        }
    }

    #[test]
    fn policies_and_views_have_the_topics_of_the_config() {
        // As they are called at the root, where the policy's profile is.
        let at_root = |name: String| if name.starts_with(['/', '~']) { name } else { format!("/{name}") };
        let topics = values("topics").into_iter().filter(|(_, name)| name.contains('/'));
        let topics: Vec<(String, String)> = topics.map(|(key, name)| (key, at_root(name))).collect();
        assert!(topics.len() >= 9, "{topics:?}");
        let policy = text("launch/security/egoreasoner.policy.xml");
        let (rviz, foxglove) = (text("launch/rviz/egoreasoner.rviz"), text("launch/foxglove/egoreasoner.json"));
        for (key, topic) in topics {
            assert!(policy.contains(&format!("<topic>{topic}</topic>")), "{key} is not in the policy");
            if ["image", "trajectory", "odometry"].contains(&key.as_str()) {
                assert!(rviz.contains(&format!("Value: {topic}\n")), "{key} is not in RViz's config");
            }
            if ["image", "camera_info", "trajectory", "odometry", "diagnostics"].contains(&key.as_str()) {
                let quoted = [format!("\"{topic}\""), format!("\"{topic}.")];
                assert!(quoted.iter().any(|name| foxglove.contains(name)), "{key} is not in Foxglove's layout");
            }
        }
        let odom = values("frames").into_iter().find(|(key, _)| key == "odom").expect("frames.odom").1;
        assert!(rviz.contains(&format!("Fixed Frame: {odom}\n")) && foxglove.contains(&format!("\"{odom}\"")));
    }

    #[test]
    fn a_layout_shows_the_panels_that_it_configures() {
        let layout: serde_json::Value = serde_json::from_str(&text("launch/foxglove/egoreasoner.json")).expect("JSON");
        let mut shown = BTreeSet::new();
        let mut open = vec![&layout["layout"]];
        while let Some(node) = open.pop() {
            match node.as_str() {
                Some(panel) => drop(shown.insert(panel.to_owned())),
                None => open.extend([&node["first"], &node["second"]]),
            }
        }
        let configured: BTreeSet<String> = layout["configById"].as_object().expect("panels").keys().cloned().collect();
        assert_eq!(shown, configured);
    }
}
