//! The one line that says what was decided at the start and why, and the log it goes to.

use data_bridge_kv::{Durability, Engine, Mode};
use data_bridge_kv_model::limits::NAMESPACES;

use crate::config::cgroup::Budget;
use crate::config::{Config, LogFormat, PasswordSource, size};
use crate::files::Files;
use crate::server::{Server, Shared};

/// Sets up the log on standard error.
pub fn open_log(config: &Config) {
    let level = config.log_level.parse().unwrap_or(tracing::Level::INFO);
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // A caller of the library may have set up its own.
    let _ = match config.log_format {
        LogFormat::Text => tracing::subscriber::set_global_default(log.with_ansi(false).finish()),
        LogFormat::Json => {
            // Whoever reads lines of JSON can't read what a panic says otherwise.
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            tracing::subscriber::set_global_default(log.json().flatten_event(true).finish())
        }
    };
}

/// Logs what was decided.
pub fn announce(server: &Server, budget: &Budget, files: &Files) {
    let shared = server.shared();
    let config = &shared.config;
    let mut listen: Vec<String> = shared.endpoints().iter().map(ToString::to_string).collect();
    listen.extend(server.left_out().map(str::to_owned));
    let admin = server.admin_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
    let memory = match budget.bytes {
        u64::MAX => "unlimited".to_owned(),
        bytes => size::show(bytes),
    };
    let auth = match &config.password {
        PasswordSource::None => "off",
        PasswordSource::File(_) => "password file",
        PasswordSource::Environment(_) => "password from the environment",
    };
    let threads = if config.threads.is_some() { "as configured" } else { "the cores of this process" };
    tracing::info!(
        "data-bridge-kv {} serves RESP and native on {}, admin on {admin}; threads {} ({threads}); memory budget {memory} ({}); \
         authentication {auth}; namespaces {}; {}",
        crate::VERSION,
        listen.join(", "),
        shared.threads,
        budget.origin,
        namespaces(&shared.engine, config.data.is_some()),
        directory(shared),
    );
    if matches!(config.password, PasswordSource::Environment(_)) {
        tracing::warn!(
            "the password comes from the environment, which other processes may read: a file is safer"
        );
    }
    if let Some(warning) = files.warning() {
        tracing::warn!("{warning}");
    }
}

/// What outlives the server, and where entries go that the budget has no room for.
fn directory(shared: &Shared) -> String {
    let stats = shared.engine.stats();
    match (&shared.config.data, stats.tier) {
        (Some(path), Some(tier)) => {
            let limit = size::show(tier.max_bytes);
            let tasks = match stats.log {
                Some(log) => format!(
                    "task namespaces outlive the server: {} records read, log cut at {}",
                    log.replayed,
                    size::show(log.limit),
                ),
                None => "nothing outlives the server".to_owned(),
            };
            format!("data in {} (at most {limit}); {tasks}", path.display())
        }
        _ => "everything is in memory only: nothing outlives the server".to_owned(),
    }
}

/// The named namespaces with their policies, and the numbers that they have in the directory.
fn namespaces(engine: &Engine, has_directory: bool) -> String {
    let all = (0..NAMESPACES)
        .filter_map(|number| Some((number, engine.settings(engine.namespace(&number.to_string()).ok()?))));
    let named = all.filter(|(number, one)| one.name != number.to_string());
    let shown = named.map(|(number, one)| {
        let mode = if one.mode == Mode::Task { "task" } else { "cache" };
        let durability = match one.durability_with(has_directory) {
            Durability::None => String::new(),
            durability => format!(", {}", durability.word()),
        };
        format!("{number} {} ({mode}, {}{durability})", one.name, one.eviction.redis_word())
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KeyName;
    use crate::config::layers::Layers;

    const INSIDE: &str = "KV_TEST_INSIDE";

    #[test]
    fn a_panic_is_a_line_of_a_json_log() {
        if std::env::var_os(INSIDE).is_some() {
            let flags = vec![(KeyName::LogFormat, "json".to_owned())];
            open_log(&Config::read(&Layers { flags, ..Layers::default() }).unwrap().0);
            panic!("two\nlines");
        }
        // The log and the hook are the process's own.
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "startline::tests::a_panic_is_a_line_of_a_json_log", "--nocapture"]);
        let output = again.env(INSIDE, "1").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let line = text.lines().find(|line| line.contains("panicked")).unwrap_or_else(|| panic!("{text}"));
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(line["level"], "ERROR");
        assert!(line["message"].as_str().unwrap().ends_with("two\nlines"), "{text}");
    }
}
