//! Prometheus text: our `kv_*` families, and the main `redis_*` names of redis_exporter so that dashboards work.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_bridge_kv::Stats;
use data_bridge_kv::engine::{FETCH_TIMES, LogStats, NamespaceStats, TierStats};

use crate::process;
use crate::server::{Phase, Shared};

/// Takes one figure of a namespace.
type Pick = fn(&NamespaceStats) -> u64;

/// One family of one sample or of one for each namespace.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn each<T: std::fmt::Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        samples: &[(String, T)],
    ) {
        self.head(name, kind, help);
        for (of, value) in samples {
            let _ = writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}");
        }
    }
}

/// The page.
pub fn text(shared: &Shared) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    process_families(shared, &mut page);
    connection_families(shared, &mut page);
    let stats = shared.engine.stats();
    store_families(shared, &stats, &mut page);
    if let Some(tier) = &stats.tier {
        tier_families(tier, stats.namespaces.iter().map(|one| one.hits).sum(), &mut page);
    }
    if let Some(log) = &stats.log {
        log_families(log, &mut page);
    }
    if shared.config.snapshot_dest.is_some() {
        snapshot_families(shared, &mut page);
    }
    page.0
}

fn process_families(shared: &Shared, page: &mut Page) {
    let (user, system) = process::cpu_seconds();
    page.head("kv_build_info", "gauge", "Version of the server.");
    let _ = writeln!(page.0, "kv_build_info{{version=\"{}\"}} 1", crate::VERSION);
    page.one(
        "kv_uptime_seconds",
        "gauge",
        "Seconds since the server started.",
        shared.started.elapsed().as_secs(),
    );
    page.one("kv_ready", "gauge", "1 while ready to serve.", u8::from(shared.phase() == Phase::Ready));
    page.one("kv_process_cpu_seconds_total", "counter", "CPU time, user and system.", user + system);
    page.one("kv_process_resident_bytes", "gauge", "Resident memory.", process::resident_bytes());
    page.one("kv_worker_threads", "gauge", "Worker threads.", shared.threads);
    page.one("redis_up", "gauge", "1 while the server answers.", 1);
    page.one(
        "redis_uptime_in_seconds",
        "gauge",
        "Seconds since the server started.",
        shared.started.elapsed().as_secs(),
    );
    page.one("redis_cpu_user_seconds_total", "counter", "CPU time in user mode.", user);
    page.one("redis_cpu_sys_seconds_total", "counter", "CPU time in system mode.", system);
}

fn connection_families(shared: &Shared, page: &mut Page) {
    let totals = shared.clients.totals();
    let connected = shared.clients.len();
    page.one("kv_connections", "gauge", "Open connections.", connected);
    page.one("kv_connections_accepted_total", "counter", "Connections accepted.", totals.accepted);
    page.one("kv_connections_refused_total", "counter", "Connections refused by a limit.", totals.refused);
    page.one(
        "kv_connections_ended_total",
        "counter",
        "Connections ended by a limit or a malformed request.",
        totals.ended + totals.malformed,
    );
    page.one("kv_commands_total", "counter", "Commands carried out.", totals.commands);
    page.one("kv_received_bytes_total", "counter", "Bytes received from clients.", totals.received);
    page.one("kv_sent_bytes_total", "counter", "Bytes sent to clients.", totals.sent);
    page.one("redis_connected_clients", "gauge", "Open connections.", connected);
    page.one("redis_config_maxclients", "gauge", "Most connections.", shared.config.max_clients);
    page.one("redis_connections_received_total", "counter", "Connections accepted.", totals.accepted);
    page.one(
        "redis_rejected_connections_total",
        "counter",
        "Connections refused by a limit.",
        totals.refused,
    );
    page.one("redis_commands_processed_total", "counter", "Commands carried out.", totals.commands);
    page.one("redis_net_input_bytes_total", "counter", "Bytes received from clients.", totals.received);
    page.one("redis_net_output_bytes_total", "counter", "Bytes sent to clients.", totals.sent);
}

/// The cold tier: there with a data directory only.
fn tier_families(tier: &TierStats, hits: u64, page: &mut Page) {
    let gauges = [
        ("kv_tier_disk_bytes", "Bytes of segments.", tier.bytes),
        ("kv_tier_disk_live_bytes", "Bytes of segments that are of use, about.", tier.live_bytes),
        ("kv_tier_disk_limit_bytes", "Most bytes of segments.", tier.max_bytes),
        ("kv_tier_segments", "Segments.", tier.segments as u64),
        ("kv_tier_shards_to_load", "Shards whose index is still on disk.", tier.shards_to_load as u64),
    ];
    for (name, help, value) in gauges {
        page.one(name, "gauge", help, value);
    }
    let counters = [
        ("kv_tier_names_total", "Names read from disk without their values.", tier.named),
        ("kv_tier_shared_reads_total", "Reads that another command had begun already.", tier.coalesced),
        ("kv_tier_damaged_total", "Reads that met a damaged record.", tier.damaged),
        ("kv_tier_read_errors_total", "Reads that the disk failed.", tier.read_errors),
        ("kv_tier_demoted_total", "Entries written to disk because memory was short.", tier.demoted),
        ("kv_tier_promoted_total", "Entries that came back into memory.", tier.promoted),
        ("kv_tier_reclaimed_bytes_total", "Bytes of segments removed.", tier.reclaimed_bytes),
        ("kv_tier_moved_total", "Entries written again so that a segment could go.", tier.moved),
        ("kv_tier_stalls_total", "Writes that waited for entries to leave memory.", tier.stalls),
        ("kv_tier_write_errors_total", "Batches that could not be written.", tier.write_errors),
    ];
    for (name, help, value) in counters {
        page.one(name, "counter", help, value);
    }
    let help = "Time that writes waited for entries to leave memory.";
    page.one("kv_tier_stall_seconds_total", "counter", help, tier.stall_us as f64 / 1e6);
    let reads = [("memory", hits.saturating_sub(tier.copied)), ("disk", tier.fetched)];
    let reads = reads.map(|(tier, reads)| (tier.to_owned(), reads));
    page.each("kv_tier_reads_total", "counter", "Values read, by where they were.", "tier", &reads);
    let name = "kv_tier_fetch_seconds";
    page.head(name, "histogram", "Time that a command waited for a record on disk.");
    let mut count = 0;
    for (range, reads) in tier.fetch_times.iter().enumerate() {
        count += reads;
        let end = if range + 1 == FETCH_TIMES {
            "+Inf".to_owned()
        } else {
            format!("{}", (1_u64 << range) as f64 / 1e6)
        };
        let _ = writeln!(page.0, "{name}_bucket{{le=\"{end}\"}} {count}");
    }
    let _ = writeln!(page.0, "{name}_sum {}\n{name}_count {count}", tier.fetch_us as f64 / 1e6);
}

/// Snapshots: there where they have a folder.
fn snapshot_families(shared: &Shared, page: &mut Page) {
    let last = Duration::from_millis(shared.snapshots.last_ms());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = if last.is_zero() { -1.0 } else { now.saturating_sub(last).as_secs_f64() };
    page.one("kv_snapshot_age_seconds", "gauge", "Since the last snapshot was made; -1 = never.", age);
    let failures = shared.snapshots.failures();
    page.one("kv_snapshot_failures_total", "counter", "Snapshots that could not be made.", failures);
}

/// The log: there where a namespace is logged.
fn log_families(log: &LogStats, page: &mut Page) {
    page.one("kv_log_bytes", "gauge", "Bytes of the log's segments.", log.bytes);
    page.one("kv_log_limit_bytes", "gauge", "Bytes of the log from which on it is cut.", log.limit);
    page.one("kv_log_last_lsn", "gauge", "The last record.", log.last);
    page.one("kv_log_durable_lsn", "gauge", "The last record that is on disk for good.", log.durable);
    page.one(
        "kv_log_failed",
        "gauge",
        "1 once the log failed: nothing is acknowledged.",
        u8::from(log.has_failed),
    );
    page.one("kv_log_replayed_records", "gauge", "Records read when the store was opened.", log.replayed);
    page.one("kv_log_syncs_total", "counter", "Syncs of the log; each serves all who wait.", log.syncs);
    let (all, longest) = (log.sync_us as f64 / 1e6, log.sync_us_max as f64 / 1e6);
    page.one("kv_log_sync_seconds_total", "counter", "How long all syncs took.", all);
    page.one("kv_log_sync_max_seconds", "gauge", "How long the longest sync took.", longest);
    let done = &log.checkpoints;
    page.one("kv_checkpoints_total", "counter", "Checkpoints written.", done.count);
    page.one("kv_checkpoint_failures_total", "counter", "Checkpoints that failed.", done.failures);
    page.one("kv_checkpoint_written_bytes_total", "counter", "Bytes that checkpoints wrote.", done.bytes);
    let last = done.last_us as f64 / 1e6;
    page.one("kv_checkpoint_last_seconds", "gauge", "How long the last checkpoint took; 0 = none yet.", last);
}

fn store_families(shared: &Shared, stats: &Stats, page: &mut Page) {
    let limit = if stats.max_memory == u64::MAX { 0 } else { stats.max_memory };
    page.one("kv_memory_used_bytes", "gauge", "Bytes of data, as the budget counts them.", stats.used_memory);
    page.one("kv_memory_limit_bytes", "gauge", "Memory budget; 0 = none.", limit);
    let target = if limit == 0 { 0 } else { stats.memory_target };
    let help = "Up to where the data may grow so that the process stays within the budget; 0 = no budget.";
    page.one("kv_memory_target_bytes", "gauge", help, target);
    page.one("kv_waiting", "gauge", "Waits and watches that are open.", stats.waiting);
    page.one("redis_memory_used_bytes", "gauge", "Bytes of data.", stats.used_memory);
    page.one("redis_memory_max_bytes", "gauge", "Memory budget; 0 = none.", limit);
    page.one("redis_memory_used_rss_bytes", "gauge", "Resident memory.", process::resident_bytes());
    page.one("redis_blocked_clients", "gauge", "Waits and watches that are open.", stats.waiting);
    let names: Vec<String> = (0..stats.namespaces.len())
        .map(|number| {
            let found = shared.engine.namespace(&number.to_string());
            found.map_or_else(|_| number.to_string(), |id| shared.engine.settings(id).name.clone())
        })
        .collect();
    let by_name = |pick: Pick| -> Vec<(String, u64)> {
        names.iter().cloned().zip(stats.namespaces.iter().map(pick)).collect()
    };
    let namespaces: [(&str, &str, &str, Pick); 8] = [
        ("kv_keys", "gauge", "Keys, expired ones that are not removed yet included.", |one| one.keys as u64),
        ("kv_keys_on_disk", "gauge", "Keys whose values are on disk only.", |one| one.cold as u64),
        ("kv_keys_expiring", "gauge", "Keys with a deadline.", |one| one.expiring as u64),
        ("kv_namespace_bytes", "gauge", "Bytes of keys, values and tables.", |one| one.bytes as u64),
        ("kv_hits_total", "counter", "Reads that found their key.", |one| one.hits),
        ("kv_misses_total", "counter", "Reads that found no key.", |one| one.misses),
        ("kv_expired_total", "counter", "Keys removed because their deadline passed.", |one| one.expired),
        ("kv_evicted_total", "counter", "Keys removed because memory was needed.", |one| one.evicted),
    ];
    for (name, kind, help, pick) in namespaces {
        page.each(name, kind, help, "namespace", &by_name(pick));
    }
    let sum = |pick: Pick| stats.namespaces.iter().map(pick).sum::<u64>();
    page.one("redis_keyspace_hits_total", "counter", "Reads that found their key.", sum(|one| one.hits));
    page.one("redis_keyspace_misses_total", "counter", "Reads that found no key.", sum(|one| one.misses));
    page.one(
        "redis_expired_keys_total",
        "counter",
        "Keys removed because their deadline passed.",
        sum(|one| one.expired),
    );
    page.one(
        "redis_evicted_keys_total",
        "counter",
        "Keys removed because memory was needed.",
        sum(|one| one.evicted),
    );
    let by_number = |pick: fn(&NamespaceStats) -> usize| -> Vec<(String, usize)> {
        stats.namespaces.iter().enumerate().map(|(number, one)| (format!("db{number}"), pick(one))).collect()
    };
    page.each("redis_db_keys", "gauge", "Keys.", "db", &by_number(|one| one.keys));
    page.each(
        "redis_db_keys_expiring",
        "gauge",
        "Keys with a deadline.",
        "db",
        &by_number(|one| one.expiring),
    );
}
