//! The one list of settings: name, default, whether it may repeat, whether it is a secret.

/// Names that are more alike than this may be meant for each other: so are those of flags.
const ALIKE: f64 = 0.7;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyName {
    /// Addresses for clients.
    Listen,
    /// Address of the admin port.
    Admin,
    /// Memory budget.
    MaxMemory,
    /// Worker threads.
    Threads,
    /// Namespaces as `NAME:MODE[:DURABILITY]`.
    Namespace,
    /// File with the password.
    PasswordFile,
    /// The password itself, from the environment only.
    Password,
    /// A public address without a password is meant.
    InsecureNoAuth,
    /// Seconds between SIGTERM and the end of accepting.
    DrainDelay,
    /// Text or JSON.
    LogFormat,
    /// The least level that is logged.
    LogLevel,
    /// Most connections.
    MaxClients,
    /// Most connections of one address.
    MaxClientsPerAddress,
    /// Directory that entries overflow to when memory is short.
    Data,
    /// Most bytes to use there.
    MaxDisk,
    /// Bytes of the log from which on a checkpoint lets it go.
    LogBytes,
    /// Folder or URL for snapshots.
    SnapshotDest,
    /// Seconds from one snapshot to the next.
    SnapshotEvery,
    /// How many snapshots stay.
    SnapshotKeep,
}

/// One row of the list.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Which setting.
    pub name: KeyName,
    /// Its name in the TOML file; the flag has `-` for `_`, the environment `KV_` and capitals.
    pub toml: &'static str,
    /// The default, several values with commas; `None` = unset.
    pub default: Option<&'static str>,
    /// Whether several values may be given.
    pub repeats: bool,
    /// Whether it may stand in the file, or is for the environment only.
    pub in_file: bool,
}

const fn key(name: KeyName, toml: &'static str, default: Option<&'static str>) -> Key {
    Key { name, toml, default, repeats: false, in_file: true }
}

/// Every setting.
pub const KEYS: [Key; 19] = [
    Key { repeats: true, ..key(KeyName::Listen, "listen", Some("127.0.0.1:7379,[::1]:7379")) },
    key(KeyName::Admin, "admin", Some("127.0.0.1:9121")),
    key(KeyName::MaxMemory, "max_memory", Some("auto")),
    key(KeyName::Threads, "threads", Some("auto")),
    Key { repeats: true, ..key(KeyName::Namespace, "namespace", None) },
    key(KeyName::PasswordFile, "password_file", None),
    Key { in_file: false, ..key(KeyName::Password, "password", None) },
    key(KeyName::InsecureNoAuth, "insecure_no_auth", Some("false")),
    key(KeyName::DrainDelay, "drain_delay", Some("5")),
    key(KeyName::LogFormat, "log_format", Some("text")),
    key(KeyName::LogLevel, "log_level", Some("info")),
    key(KeyName::MaxClients, "max_clients", Some("10000")),
    key(KeyName::MaxClientsPerAddress, "max_clients_per_address", Some("1000")),
    key(KeyName::Data, "data", None),
    key(KeyName::MaxDisk, "max_disk", Some("auto")),
    key(KeyName::LogBytes, "log_bytes", Some("256MB")),
    key(KeyName::SnapshotDest, "snapshot_dest", None),
    key(KeyName::SnapshotEvery, "snapshot_every", Some("0")),
    key(KeyName::SnapshotKeep, "snapshot_keep", Some("7")),
];

impl KeyName {
    /// The row of this setting.
    pub fn row(self) -> &'static Key {
        KEYS.iter().find(|key| key.name == self).unwrap_or(&KEYS[0])
    }

    /// Its name in the TOML file.
    pub fn toml_name(self) -> &'static str {
        self.row().toml
    }

    /// Whether its value must not be shown.
    pub fn is_secret(self) -> bool {
        self == KeyName::Password
    }
}

impl Key {
    /// Name of the environment variable.
    pub fn variable(&self) -> String {
        variable_of(self.toml)
    }

    /// Name of the flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.toml.replace('_', "-"))
    }
}

/// The variable of a setting by its name in the file.
pub fn variable_of(toml: &str) -> String {
    format!("KV_{}", toml.to_ascii_uppercase())
}

/// What to add to the word on an unknown name: the known one that it may be meant for, as it is `shown`.
pub fn hint<'a>(
    unknown: &str,
    known: impl Iterator<Item = &'a str>,
    shown: impl Fn(&str) -> String,
) -> String {
    let folded = unknown.replace('-', "_").to_ascii_lowercase();
    let likeness = known.map(|name| (strsim::jaro(&folded, name), name));
    let most = likeness
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    most.map(|(_, name)| format!("; did you mean '{}'?", shown(name))).unwrap_or_default()
}
