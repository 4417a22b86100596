//! Where settings come from, merged as text: flags, then environment, then file, then defaults.

use std::collections::BTreeMap;
use std::fmt;

use super::keys::{KEYS, Key, KeyName, hint, variable_of};
use super::namespaces::SHORT_NAMESPACE;
use super::{ConfigError, not_understood};

/// The variable that names the TOML file.
pub const FILE_VARIABLE: &str = "KV_CONFIG";
/// The variable that tells clients where the server is: whoever starts both may have it set.
const URL_VARIABLE: &str = "KV_URL";

/// The sources of settings, as found.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Values of flags.
    pub flags: Vec<(KeyName, String)>,
    /// All environment variables; those that start with `KV_` are ours.
    pub environment: Vec<(String, String)>,
    /// Path and text of the TOML file.
    pub file: Option<(String, String)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// The file.
    File(String),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) => write!(f, "flag {name}"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::File(path) => write!(f, "file {path}"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// All settings as text with their sources, and the file's namespace tables.
#[derive(Clone, Debug)]
pub struct Merged {
    values: BTreeMap<KeyName, (Vec<String>, Source)>,
    /// `[namespaces.NAME]` tables of the file.
    pub namespaces: toml::Table,
    /// Namespace texts of lower layers, applied before those of [`KeyName::Namespace`].
    pub lower_namespaces: Vec<String>,
}

impl Merged {
    /// The value of a setting, if it has one.
    pub fn text(&self, key: KeyName) -> Option<&str> {
        self.values(key).first().map(String::as_str)
    }

    /// All values of a setting.
    pub fn values(&self, key: KeyName) -> &[String] {
        self.values.get(&key).map_or(&[], |(values, _)| values)
    }

    /// Where a setting's value came from.
    pub fn source(&self, key: KeyName) -> &Source {
        self.values.get(&key).map_or(&Source::Default, |(_, source)| source)
    }

    /// One line for each setting: name, value and source, secrets masked.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for key in &KEYS {
            let values = self.values(key.name).join(", ");
            let shown = match values.as_str() {
                "" => "(not set)",
                _ if key.name.is_secret() => "********",
                values => values,
            };
            text.push_str(&format!("{:<24} {shown:<28} # {}\n", key.toml, self.source(key.name)));
        }
        for (name, table) in &self.namespaces {
            text.push_str(&format!("namespaces.{name:<13} {}\n", table.to_string().replace('\n', " ")));
        }
        text
    }
}

impl Layers {
    /// Takes the highest layer's value of each setting; refuses keys that do not exist.
    pub fn merge(&self) -> Result<Merged, ConfigError> {
        let mut merged =
            Merged { values: BTreeMap::new(), namespaces: toml::Table::new(), lower_namespaces: Vec::new() };
        for key in &KEYS {
            if let Some(default) = key.default {
                merged.put(key, split(key, default), Source::Default)?;
            }
        }
        if let Some((path, text)) = &self.file {
            merged.take_file(path, text)?;
        }
        for (variable, value) in &self.environment {
            if let Some(key) = key_of_variable(variable)? {
                let source = Source::Environment(variable.clone());
                merged.put(key, split(key, value), source)?;
            }
        }
        for key in &KEYS {
            let given = self.flags.iter().filter(|(name, _)| *name == key.name);
            let values: Vec<Vec<String>> = given.map(|(_, value)| split(key, value)).collect();
            if !values.is_empty() {
                merged.put(key, values.concat(), Source::Flag(key.flag()))?;
            }
        }
        Ok(merged)
    }
}

impl Merged {
    /// An empty list is refused also where a higher layer has another: whoever gives one believes that it does
    /// something.
    fn put(&mut self, key: &Key, values: Vec<String>, source: Source) -> Result<(), ConfigError> {
        if values.is_empty() {
            let expected =
                if key.name == KeyName::Namespace { SHORT_NAMESPACE } else { "at least one address" };
            return Err(not_understood(key.name, "", &source, expected));
        }
        if let Some((lower, _)) = self.values.insert(key.name, (values, source))
            && key.name == KeyName::Namespace
        {
            self.lower_namespaces.extend(lower);
        }
        Ok(())
    }

    fn take_file(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let (line, why) = (before.matches('\n').count() + 1, error.message().replace('\n', " "));
            ConfigError(format!("{path} is not valid TOML in line {line}: {why}"))
        })?;
        for (name, value) in table {
            if name == NAMESPACES {
                let toml::Value::Table(namespaces) = value else {
                    return Err(ConfigError(format!(
                        "{path}: namespaces must be tables, as [namespaces.jobs]"
                    )));
                };
                self.namespaces = namespaces;
                continue;
            }
            match value {
                toml::Value::Table(table) if name == SNAPSHOT => {
                    for (inner, value) in table {
                        self.take_value(path, &format!("{name}_{inner}"), &value)?;
                    }
                }
                value => self.take_value(path, &name, &value)?,
            }
        }
        Ok(())
    }

    fn take_value(&mut self, path: &str, name: &str, value: &toml::Value) -> Result<(), ConfigError> {
        let known = || KEYS.iter().filter(|key| key.in_file && !value.is_table());
        let key = known().find(|key| key.toml == name).ok_or_else(|| {
            let (what, tables) = if value.is_table() { ("table", &TABLES[..]) } else { ("key", &[][..]) };
            let names = known().map(|key| key.toml).chain(tables.iter().copied());
            ConfigError(format!("{path}: unknown {what} '{name}'{}", hint(name, names, str::to_owned)))
        })?;
        let values = match value {
            toml::Value::Array(values) if key.repeats => values.iter().map(plain).collect(),
            value => vec![plain(value)],
        };
        self.put(key, values, Source::File(path.to_owned()))
    }
}

/// The table `[snapshot]` with `dest`, `every` and `keep` stands for `snapshot_dest` and so on.
const SNAPSHOT: &str = "snapshot";
/// The table that has one for each namespace.
const NAMESPACES: &str = "namespaces";
const TABLES: [&str; 2] = [SNAPSHOT, NAMESPACES];

/// The text of a TOML scalar.
pub fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn split(key: &Key, value: &str) -> Vec<String> {
    if key.repeats {
        return value.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    }
    vec![value.to_owned()]
}

/// The setting that a variable stands for. Kubernetes sets variables for a Service called `kv` (KV_PORT,
/// KV_SERVICE_HOST …): those are no settings, anything else that starts with `KV_` is one or a mistake.
fn key_of_variable(variable: &str) -> Result<Option<&'static Key>, ConfigError> {
    let Some(name) = variable.strip_prefix("KV_") else { return Ok(None) };
    let of_service = name == "PORT" || name.starts_with("PORT_") || name.contains("SERVICE_");
    if [FILE_VARIABLE, URL_VARIABLE].contains(&variable) || of_service {
        return Ok(None);
    }
    let known = KEYS.iter().find(|key| key.variable() == variable);
    known.map(Some).ok_or_else(|| {
        let hint = hint(name, KEYS.iter().map(|key| key.toml), variable_of);
        ConfigError(format!("unknown environment variable {variable}{hint}"))
    })
}
