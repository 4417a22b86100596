//! What is read from where, and what is refused.

use super::*;
use data_bridge_kv::{Durability, Eviction, Mode};

fn layers(flags: &[(KeyName, &str)], environment: &[(&str, &str)], file: Option<&str>) -> Layers {
    let own = |text: &&str| (*text).to_owned();
    Layers {
        flags: flags.iter().map(|(key, value)| (*key, own(value))).collect(),
        environment: environment.iter().map(|(name, value)| (own(name), own(value))).collect(),
        file: file.map(|text| ("kv.toml".to_owned(), text.to_owned())),
    }
}

fn refused(layers: &Layers) -> String {
    Config::read(layers).err().unwrap().0
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file =
        "threads = 3\nmax_memory = \"1GiB\"\nlisten = [\"127.0.0.1:1\", \"[::1]:1\"]\ndrain_delay = 0.5";
    let all =
        layers(&[(KeyName::Threads, "5")], &[("KV_THREADS", "4"), ("KV_MAX_MEMORY", "2GiB")], Some(file));
    let (config, merged) = Config::read(&all).unwrap();
    assert_eq!(config.threads, Some(5));
    assert_eq!(config.max_memory, Size::Bytes(2 << 30));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.drain_delay, Duration::from_millis(500));
    let report = merged.report();
    for line in ["flag --threads", "environment KV_MAX_MEMORY", "file kv.toml", "# default"] {
        assert!(report.contains(line), "{line} in {report}");
    }
    let (config, _) = Config::read(&Layers::default()).unwrap();
    let loopbacks = ["127.0.0.1:7379", "[::1]:7379"].map(|text| Endpoint::parse(text).unwrap());
    assert_eq!((config.listen, config.listen_is_default), (loopbacks.to_vec(), true));
    let (config, _) = Config::read(&layers(&[(KeyName::Listen, "[::1]:1")], &[], None)).unwrap();
    assert_eq!((config.listen.len(), config.listen_is_default), (1, false));
}

#[test]
fn unknown_keys_are_errors() {
    assert!(refused(&layers(&[], &[("KV_TREADS", "4")], None)).contains("KV_TREADS"));
    assert!(refused(&layers(&[], &[], Some("treads = 4"))).contains("treads"));
    assert!(refused(&layers(&[], &[], Some("password = 'x'"))).contains("password"));
    assert!(refused(&layers(&[], &[], Some("[namespaces.a]\nmod = 'task'"))).contains("unknown key 'mod'"));
    assert!(refused(&layers(&[], &[], Some("threads = 1\n= 1"))).contains("not valid TOML in line 2: "));
    let kubernetes = [("KV_PORT", "tcp://1.2.3.4:5"), ("KV_SERVICE_HOST", "x"), ("KV_PORT_7379_TCP", "y")];
    Config::read(&layers(&[], &kubernetes, None)).unwrap();
    Config::read(&layers(&[], &[("KV_URL", "kv://127.0.0.1:7379")], None)).unwrap();
}

#[test]
fn a_slip_in_a_name_is_told_what_it_may_be_meant_for() {
    for (file, says) in [
        ("max-memory = '1GB'", "kv.toml: unknown key 'max-memory'; did you mean 'max_memory'?"),
        ("treads = 4", "kv.toml: unknown key 'treads'; did you mean 'threads'?"),
        ("Listen = '[::1]:1'", "kv.toml: unknown key 'Listen'; did you mean 'listen'?"),
        ("password = 'x'", "kv.toml: unknown key 'password'; did you mean 'password_file'?"),
        ("[snapshot]\ndst = 'x'", "kv.toml: unknown key 'snapshot_dst'; did you mean 'snapshot_dest'?"),
        ("[namespace.jobs]\nmode = 'task'", "kv.toml: unknown table 'namespace'; did you mean 'namespaces'?"),
        ("[snapshots]\ndest = 'x'", "kv.toml: unknown table 'snapshots'; did you mean 'snapshot'?"),
        ("[namespaces.a]\nmod = 'task'", "namespaces.a: unknown key 'mod'; did you mean 'mode'?"),
        (
            "[namespaces.a]\nallow-flush = true",
            "namespaces.a: unknown key 'allow-flush'; did you mean 'allow_flush'?",
        ),
        ("xyz = 4", "kv.toml: unknown key 'xyz'"),
    ] {
        assert_eq!(refused(&layers(&[], &[], Some(file))), says);
    }
    for (variable, says) in [
        ("KV_TREADS", "unknown environment variable KV_TREADS; did you mean 'KV_THREADS'?"),
        ("KV_MAXMEMORY", "unknown environment variable KV_MAXMEMORY; did you mean 'KV_MAX_MEMORY'?"),
        ("KV_Q", "unknown environment variable KV_Q"),
    ] {
        assert_eq!(refused(&layers(&[], &[(variable, "4")], None)), says);
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_their_source() {
    let bad = refused(&layers(&[], &[("KV_THREADS", "0")], None));
    assert_eq!(
        bad,
        "threads = '0' (from environment KV_THREADS) is not understood: expected a whole number from 1 to 1024"
    );
    for (key, text) in [
        (KeyName::Listen, "7379"),
        (KeyName::Listen, "unix:kv.sock"),
        (KeyName::Admin, "unix:/kv.sock"),
        (KeyName::MaxMemory, "much"),
        (KeyName::LogFormat, "xml"),
        (KeyName::DrainDelay, "-1"),
        (KeyName::InsecureNoAuth, "perhaps"),
    ] {
        assert!(refused(&layers(&[(key, text)], &[], None)).contains(text), "{text}");
    }
}

#[test]
fn a_setting_that_is_left_empty_is_not_done_without() {
    assert!(refused(&layers(&[], &[("KV_LISTEN", "")], None)).contains("at least one address"));
    assert!(refused(&layers(&[], &[], Some("listen = []"))).contains("file kv.toml"));
    assert!(refused(&layers(&[(KeyName::Data, "")], &[], None)).contains("expected a directory"));
    // Also where another layer has more.
    let listen = (KeyName::Listen, "[::1]:1");
    assert!(refused(&layers(&[listen], &[("KV_LISTEN", " , ")], None)).contains("environment KV_LISTEN"));
    assert!(refused(&layers(&[listen], &[], Some("listen = []"))).contains("file kv.toml"));
    for empty in ["", ","] {
        let bad = refused(&layers(&[(KeyName::Namespace, empty)], &[("KV_NAMESPACE", "a:task")], None));
        let says = "namespace = '' (from flag --namespace) is not understood: \
                    expected NAME:MODE[:DURABILITY], as jobs:task";
        assert_eq!(bad, says);
        assert!(refused(&layers(&[(KeyName::Listen, empty)], &[], None)).contains("at least one address"));
    }
    for little in ["0", "1000KB"] {
        assert!(refused(&layers(&[(KeyName::MaxMemory, little)], &[], None)).contains("at least 1MB"));
    }
}

#[test]
fn a_directory_and_the_durability_of_namespaces_can_be_given() {
    let (config, _) =
        Config::read(&layers(&[(KeyName::Data, "d"), (KeyName::MaxDisk, "2GB")], &[], None)).unwrap();
    assert_eq!((config.data, config.max_disk), (Some("d".into()), super::size::Size::Bytes(2 << 30)));
    assert!(refused(&layers(&[(KeyName::MaxDisk, "much")], &[], None)).contains("max_disk"));
    assert_eq!(config.log_bytes, 256 << 20);
    let log_bytes = layers(&[(KeyName::LogBytes, "32MB"), (KeyName::Data, "d")], &[], None);
    let (config, _) = Config::read(&log_bytes).unwrap();
    assert_eq!(config.log_bytes, 32 << 20);
    for wrong in ["auto", "10%", "1KB", "much"] {
        assert!(refused(&layers(&[(KeyName::LogBytes, wrong)], &[], None)).contains("log_bytes"), "{wrong}");
    }
    let read =
        |flags: &[(KeyName, &str)], file| Config::read(&layers(flags, &[], file)).unwrap().0.namespaces;
    let jobs = read(&[(KeyName::Namespace, "jobs:task:everysec")], None);
    assert_eq!((jobs[3].name.as_str(), jobs[3].durability), ("jobs", Some(Durability::EverySecond)));
    let tasks = read(&[], Some("[namespaces.tasks]\ndurability = 'always'"));
    assert_eq!((tasks[1].durability, tasks[2].durability), (Some(Durability::Always), None));
    assert!(refused(&layers(&[(KeyName::Namespace, "jobs:task:often")], &[], None)).contains("often"));
}

#[test]
fn limits_of_a_disk_that_is_not_used_are_refused() {
    for (key, name) in [(KeyName::MaxDisk, "max_disk"), (KeyName::LogBytes, "log_bytes")] {
        let bad = refused(&layers(&[(key, "2GB")], &[], None));
        assert!(bad.starts_with(&format!("{name} (from flag ")) && bad.contains("--data DIR"), "{bad}");
    }
    assert!(refused(&layers(&[], &[("KV_MAX_DISK", "auto")], None)).contains("KV_MAX_DISK"));
}

#[test]
fn a_namespace_is_given_once() {
    for (first, second) in
        [("jobs:task", "jobs:cache"), ("jobs:task:everysec", "jobs:task"), ("tasks:task", "1:cache")]
    {
        let bad = refused(&layers(&[(KeyName::Namespace, first), (KeyName::Namespace, second)], &[], None));
        assert_eq!(bad, format!("namespace '{second}': given twice"));
    }
}

#[test]
fn a_public_address_needs_a_password() {
    let public = (KeyName::Listen, "0.0.0.0:7379");
    assert!(refused(&layers(&[public], &[], None)).contains("--insecure-no-auth"));
    Config::read(&layers(&[public, (KeyName::InsecureNoAuth, "true")], &[], None)).unwrap();
    Config::read(&layers(&[public, (KeyName::PasswordFile, "p")], &[], None)).unwrap();
    let (_, merged) = Config::read(&layers(&[public], &[("KV_PASSWORD", "hush")], None)).unwrap();
    assert!(!merged.report().contains("hush"));
}

#[test]
fn the_password_has_one_source() {
    let both = refused(&layers(&[(KeyName::PasswordFile, "p")], &[("KV_PASSWORD", "hush")], None));
    let says = "password_file (from flag --password-file) and KV_PASSWORD are two passwords: leave one out";
    assert_eq!(both, says);
    for other in [
        layers(&[], &[("KV_PASSWORD", "hush"), ("KV_PASSWORD_FILE", "p")], None),
        layers(&[], &[("KV_PASSWORD", "hush")], Some("password_file = 'p'")),
    ] {
        assert!(refused(&other).contains("two passwords"));
    }
    // A higher source of the same setting.
    let all = layers(&[(KeyName::PasswordFile, "p")], &[("KV_PASSWORD_FILE", "q")], None);
    assert_eq!(Config::read(&all).unwrap().0.password, PasswordSource::File("p".into()));
}

#[test]
fn a_number_that_no_namespace_has_is_no_name_by_mistake() {
    for text in ["16:task", "099:cache"] {
        let bad = refused(&layers(&[(KeyName::Namespace, text)], &[], None));
        let number = text.split(':').next().unwrap();
        let says = format!(
            "namespace '{text}': the namespaces have the numbers 0 to 15; one that is to be called '{number}' takes a \
             table [namespaces.{number}] in the file"
        );
        assert_eq!(bad, says);
    }
    let named = Config::read(&layers(&[], &[], Some("[namespaces.16]\nmode = 'task'"))).unwrap().0.namespaces;
    assert_eq!((named[3].name.as_str(), named[3].mode), ("16", Mode::Task));
    let last = Config::read(&layers(&[(KeyName::Namespace, "15:task")], &[], None)).unwrap().0.namespaces;
    assert_eq!((last[15].name.as_str(), last[15].mode), ("15", Mode::Task));
}

#[test]
fn a_name_takes_no_number_that_is_configured_itself() {
    let all = layers(&[(KeyName::Namespace, "3:task")], &[], Some("[namespaces.jobs]\nmode = 'cache'"));
    let namespaces = Config::read(&all).unwrap().0.namespaces;
    let [three, four] =
        [3, 4].map(|number: usize| (namespaces[number].name.as_str(), namespaces[number].mode));
    assert_eq!((three, four), (("3", Mode::Task), ("jobs", Mode::Cache)));
}

#[test]
fn namespaces_come_from_tables_and_short_texts() {
    let file =
        "[namespaces.jobs]\nmode = 'task'\ntransitions = '->A, A->B'\n[namespaces.default]\neviction = 'lfu'";
    let all =
        layers(&[(KeyName::Namespace, "hot:cache")], &[("KV_NAMESPACE", "5:task,tasks:task")], Some(file));
    let (config, _) = Config::read(&all).unwrap();
    let of = |name: &str| config.namespaces.iter().find(|namespace| namespace.name == name).unwrap();
    assert_eq!(of("jobs").mode, Mode::Task);
    assert!(of("jobs").graph.is_some() && !of("jobs").allow_flush);
    assert_eq!(of("default").eviction, Eviction::Lfu);
    assert_eq!((of("5").mode, of("5").eviction), (Mode::Task, Eviction::None));
    assert_eq!(of("hot").mode, Mode::Cache);
    for bad in ["x", "x:y", "x:task:daily", ":task", "a b:task", "x:task:none:z"] {
        assert!(refused(&layers(&[(KeyName::Namespace, bad)], &[], None)).contains(bad), "{bad}");
    }
}
