//! The description of a server, `conformance/services/NAME.sh`: a head of comments, and functions for bash.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Result;

/// The functions that a description must have. `install` and `prepare` are for those that need them.
const FUNCTIONS: [&str; 3] = ["version", "start", "ready"];

/// A server: what its file says.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// The name of the file.
    pub(crate) name: String,
    /// What the product calls itself: the first line.
    pub(crate) title: String,
    pub(crate) head: Head,
    /// The whole file, behind those that it comes after.
    pub(crate) text: String,
}

/// The fields of the head, `# name: value`; a line that is indented further continues the one before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) label: Label,
    /// Whether a backend of this workspace is tested on it, so that it is meant when no server is named.
    #[serde(default)]
    pub(crate) needed: bool,
    /// Files beside the description whose functions it uses, or replaces.
    #[serde(default)]
    after: String,
    /// Debian packages.
    #[serde(default)]
    pub(crate) apt: String,
    /// Who runs it instead of root, when root asks for it.
    pub(crate) user: Option<String>,
    /// The environment variable by which tests find it.
    pub(crate) variable: String,
    /// What stands in the variable, with `{port}` in it.
    address: String,
    /// The port it gets if that one is free.
    pub(crate) port: u16,
    /// How many ports in a row it takes.
    #[serde(default = "one")]
    pub(crate) ports: u16,
    /// What asks it to end.
    #[serde(default)]
    pub(crate) signal: Stop,
    /// In which ways it is not what users run.
    #[serde(rename = "limits")]
    _limits: String,
}

/// How much a server's answers say about the real thing.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum Label {
    #[serde(rename = "server")]
    Server,
    #[serde(rename = "vendor emulator")]
    VendorEmulator,
    #[serde(rename = "third-party emulator")]
    ThirdPartyEmulator,
}

/// The signal that asks a server to end.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Stop {
    #[default]
    Term,
    Int,
}

fn one() -> u16 {
    1
}

impl Description {
    /// All descriptions in a directory, by name.
    pub(crate) fn all(dir: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for file in fs::read_dir(dir).map_err(|e| format!("cannot list {}: {e}", dir.display()))? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "sh") {
                let name = file.file_stem().unwrap_or_default().to_string_lossy();
                let text = fs::read_to_string(&file)?;
                let parsed = Self::parse(&name, text, |other| Ok(fs::read_to_string(dir.join(other))?));
                all.push(parsed.map_err(|e| format!("{}: {e}", file.display()))?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn parse(name: &str, text: String, read: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let (title, fields) = head(&text)?;
        let head = Head::deserialize(Value::Object(fields))?;
        if !head.variable.starts_with("STORAGE_TEST_") {
            return Err(format!("the variable `{}` must begin with STORAGE_TEST_", head.variable).into());
        }
        if !head.address.contains("{port}") {
            return Err("the address must contain {port}".into());
        }
        let mut all = String::new();
        for file in head.after.split_whitespace() {
            all += &read(file).map_err(|e| format!("the file `{file}`, which it comes after, cannot be read: {e}"))?;
            all += "\n";
        }
        let text = all + &text;
        for function in FUNCTIONS {
            if !text.lines().any(|line| line == format!("{function}() {{")) {
                return Err(format!("the function `{function}() {{` is missing").into());
            }
        }
        Ok(Self { name: name.to_owned(), title, head, text })
    }

    /// What stands in the variable when the server has this port.
    pub(crate) fn address(&self, port: u16) -> String {
        self.head.address.replace("{port}", &port.to_string())
    }
}

/// The title and the fields of a head. `yes` becomes true, and what consists of digits a number.
fn head(text: &str) -> Result<(String, Map<String, Value>)> {
    let mut lines = text.lines().map_while(|line| line.strip_prefix('#'));
    let title = lines.next().unwrap_or_default().trim().to_owned();
    if title.is_empty() {
        return Err("the first line must be `# `, and the server's name".into());
    }
    let mut texts: Vec<(&str, String)> = Vec::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        match (line.strip_prefix("  "), texts.last_mut()) {
            (Some(more), Some((_, value))) => *value += &format!(" {}", more.trim()),
            _ => {
                let (name, value) = line.split_once(':').ok_or_else(|| format!("`#{line}` is no `# name: value`"))?;
                texts.push((name.trim(), value.trim().to_owned()));
            }
        }
    }
    let mut fields = Map::new();
    for (name, text) in texts {
        let value = match text.parse::<u16>() {
            Ok(number) => number.into(),
            Err(_) if text == "yes" => true.into(),
            Err(_) => text.into(),
        };
        if fields.insert(name.to_owned(), value).is_some() {
            return Err(format!("the field `{name}` is there twice").into());
        }
    }
    Ok((title, fields))
}

impl Label {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::VendorEmulator => "vendor emulator",
            Self::ThirdPartyEmulator => "third-party emulator",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::shell::root;

    const TEXT: &str = "\
# A Server
#
# label: vendor emulator
# variable: STORAGE_TEST_A
# address: http://127.0.0.1:{port}
# port: 20000
# limits: it forgets,
#   and it is slow

version() {
start() {
ready() {
";

    fn none(_: &str) -> Result<String> {
        Err("there is no other file".into())
    }

    #[test]
    fn functions_can_stand_in_a_file_that_it_comes_after() {
        let text = TEXT.replace("start() {\n", "").replace("# port:", "# after: b.sh\n# port:");
        let a = Description::parse("a", text.clone(), |file| Ok(format!("# {file}\nstart() {{"))).unwrap();
        assert_eq!(a.text, format!("# b.sh\nstart() {{\n{text}"));
    }

    #[test]
    fn a_head_is_read() {
        let a = Description::parse("a", TEXT.into(), none).unwrap();
        assert_eq!((a.title.as_str(), a.head.label.name(), a.head.needed), ("A Server", "vendor emulator", false));
        assert_eq!((a.head.port, a.head.ports), (20000, 1));
        assert_eq!(a.address(5), "http://127.0.0.1:5");
        assert_eq!(a.head._limits, "it forgets, and it is slow");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, expected) in [
            ("# A Server", "#", "the first line"),
            ("# label: vendor emulator\n", "", "`label`"),
            ("vendor emulator", "mock", "mock"),
            ("# port: 20000", "# port: 200000", "u16"),
            ("# port:", "# prot:", "`prot`"),
            ("STORAGE_TEST_A", "TEST_A", "STORAGE_TEST_"),
            ("{port}", "80", "{port}"),
            ("# port: 20000", "# port: 20000\n# port: 20001", "twice"),
            ("ready() {", "raedy() {", "`ready() {`"),
            ("# port:", "# after: b.sh\n# port:", "`b.sh`"),
        ] {
            assert!(TEXT.contains(from), "{from}");
            let error = Description::parse("a", TEXT.replace(from, to), none).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn the_descriptions_of_this_workspace_are_sound_and_do_not_collide() {
        let all = Description::all(&root().join("conformance/services")).unwrap();
        let variables: BTreeSet<_> = all.iter().map(|server| &server.head.variable).collect();
        let ports: BTreeSet<_> =
            all.iter().flat_map(|server| (0..server.head.ports).map(|n| server.head.port + n)).collect();
        assert_eq!(variables.len(), all.len());
        assert_eq!(ports.len(), all.iter().map(|server| usize::from(server.head.ports)).sum::<usize>());
        let needed: Vec<_> = all.iter().filter(|server| server.head.needed).map(|s| s.name.as_str()).collect();
        assert_eq!(
            needed,
            [
                "azurite",
                "ceph",
                "fake-gcs",
                "ferretdb",
                "kubo",
                "mariadb",
                "mariadb-tls",
                "moto",
                "postgres",
                "postgres-tls",
                "secantus",
            ]
        );
    }

    #[test]
    fn docker_has_the_needed_servers_at_the_same_ports() {
        let compose = fs::read_to_string(root().join("compose.yaml")).unwrap();
        for server in Description::all(&root().join("conformance/services")).unwrap() {
            // Of Ceph there is no image that starts by itself.
            if server.name == "ceph" {
                continue;
            }
            let section = compose.split_once(&format!("\n  {}:\n", server.name)).map(|(_, after)| after);
            assert!(section.is_some() || !server.head.needed, "{} is missing", server.name);
            if let Some(section) = section.and_then(|after| after.split("\n\n").next()) {
                assert!(section.contains(&format!("\"127.0.0.1:{}:", server.head.port)), "{section}");
                assert_eq!(section.contains("profiles: [all]"), !server.head.needed, "{section}");
            }
            if server.head.needed {
                let address = crate::services::quoted(&server.address(server.head.port));
                let line = format!("export {}={address}\n", server.head.variable);
                assert!(compose.contains(&line), "{line}");
            }
        }
    }
}
