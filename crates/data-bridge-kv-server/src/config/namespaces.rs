//! The policies of the 16 namespaces from the file's tables and from `NAME:MODE[:DURABILITY]` texts.

use data_bridge_kv::{Durability, Eviction, Mode, NamespaceSettings, TransitionGraph};
use data_bridge_kv_model::limits::NAMESPACES;

use super::keys::{KeyName, hint};
use super::layers::{Merged, plain};
use super::{ConfigError, size};

/// What a short text looks like.
pub const SHORT_NAMESPACE: &str = "NAME:MODE[:DURABILITY], as jobs:task";
/// What a namespace's table may have: its mode, and what [`set`] reads.
const KEYS: [&str; 9] = [
    "mode",
    "durability",
    "eviction",
    "default_ttl_ms",
    "history",
    "floor",
    "allow_flush",
    "transitions",
    "state_field",
];

/// Reads the namespaces: presets, then the file's tables, then the short texts by rising precedence.
pub fn read(merged: &Merged) -> Result<Vec<NamespaceSettings>, ConfigError> {
    let mut all: Vec<NamespaceSettings> = (0..NAMESPACES).map(NamespaceSettings::preset).collect();
    let texts: Vec<&String> =
        merged.lower_namespaces.iter().chain(merged.values(KeyName::Namespace)).collect();
    let named = texts.iter().map(|text| text.split(':').next().unwrap_or_default());
    let named = named.chain(merged.namespaces.keys().map(String::as_str));
    only_once(merged)?;
    let kept: Vec<usize> = named.filter_map(NamespaceSettings::number).collect();
    for (name, table) in &merged.namespaces {
        let wrong = |text: String| ConfigError(format!("namespaces.{name}: {text}"));
        let toml::Value::Table(table) = table else { return Err(wrong("must be a table".to_owned())) };
        let namespace = NamespaceSettings::named(&mut all, name, &kept)
            .map_err(|error| wrong(error.message().to_owned()))?;
        // The mode first: it resets what depends on it.
        if let Some(mode) = table.get("mode") {
            set_mode(namespace, &plain(mode)).map_err(wrong)?;
        }
        for (key, value) in table.iter().filter(|(key, _)| *key != "mode") {
            set(namespace, key, value, table).map_err(wrong)?;
        }
    }
    for text in texts {
        short(&mut all, text, &kept)
            .map_err(|reason| ConfigError(format!("namespace '{text}': {reason}")))?;
    }
    Ok(all)
}

/// Two texts of one source for one namespace contradict each other; those of different sources go over each other.
fn only_once(merged: &Merged) -> Result<(), ConfigError> {
    let mut seen = Vec::new();
    for text in merged.values(KeyName::Namespace) {
        let name = text.split(':').next().unwrap_or_default();
        let preset = (0..NAMESPACES).find(|number| NamespaceSettings::preset(*number).name == name);
        let one = preset.or(NamespaceSettings::number(name)).ok_or(name);
        if seen.contains(&one) {
            return Err(ConfigError(format!("namespace '{text}': given twice")));
        }
        seen.push(one);
    }
    Ok(())
}

fn short(all: &mut [NamespaceSettings], text: &str, kept: &[usize]) -> Result<(), String> {
    let mut parts = text.split(':');
    let (name, mode) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let durability = parts.next();
    if name.is_empty() || mode.is_empty() || parts.next().is_some() {
        return Err(format!("expected {SHORT_NAMESPACE}"));
    }
    if NamespaceSettings::number(name).is_none() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        let last = NAMESPACES - 1;
        return Err(format!(
            "the namespaces have the numbers 0 to {last}; one that is to be called '{name}' takes a table \
             [namespaces.{name}] in the file"
        ));
    }
    let namespace = NamespaceSettings::named(all, name, kept).map_err(|error| error.message().to_owned())?;
    set_mode(namespace, mode)?;
    if let Some(word) = durability {
        namespace.durability = Some(Durability::parse(word).map_err(|error| error.message().to_owned())?);
    }
    Ok(())
}

fn set_mode(namespace: &mut NamespaceSettings, word: &str) -> Result<(), String> {
    let mode = match word {
        "cache" => Mode::Cache,
        "task" => Mode::Task,
        _ => return Err(format!("mode '{word}' is not understood: cache or task")),
    };
    namespace.set_mode(mode);
    Ok(())
}

fn set(
    namespace: &mut NamespaceSettings,
    key: &str,
    value: &toml::Value,
    table: &toml::Table,
) -> Result<(), String> {
    let text = plain(value);
    match key {
        "durability" => {
            let durability = Durability::parse(&text).map_err(|error| error.message().to_owned())?;
            namespace.durability = Some(durability);
        }
        "eviction" => {
            namespace.eviction = Eviction::parse(&text).map_err(|error| error.message().to_owned())?;
        }
        "default_ttl_ms" => {
            let ms: u64 = text.parse().map_err(|_| "default_ttl_ms must be a whole number".to_owned())?;
            namespace.default_ttl_ms = (ms > 0).then_some(ms);
        }
        "history" => {
            namespace.history = text.parse().map_err(|_| "history must be a whole number".to_owned())?;
        }
        "floor" => namespace.floor_bytes = size::bytes(&text)?,
        "allow_flush" => {
            namespace.allow_flush = value.as_bool().ok_or("allow_flush must be true or false")?;
        }
        "transitions" => {
            let field = table.get("state_field").map_or_else(|| "status".to_owned(), plain);
            let graph = TransitionGraph::parse(&field, &text).map_err(|error| error.message().to_owned())?;
            namespace.graph = Some(graph);
        }
        "state_field" => {}
        unknown => {
            let hint = hint(unknown, KEYS.into_iter(), str::to_owned);
            return Err(format!("unknown key '{unknown}'{hint}"));
        }
    }
    Ok(())
}
