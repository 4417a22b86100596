//! INFO: facts about the server in Redis's layout and names, so that existing tools read them.

use std::fmt::Write;

use data_bridge_kv::Stats;
use data_bridge_kv_model::error::Result;
use data_bridge_kv_model::limits::NAMESPACES;
use data_bridge_kv_model::{Arg, ReplyBuf, ValueRef};

use crate::config::size;
use crate::process;
use crate::server::Shared;
use crate::session::Session;

const SECTIONS: [&str; 10] = [
    "server",
    "clients",
    "memory",
    "tier",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "cluster",
    "keyspace",
];

pub fn info(session: &Session, sections: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let mut wanted = Vec::new();
    for section in sections {
        wanted.push(section.text()?.to_ascii_lowercase());
    }
    let policy = session.shared.engine.settings(session.caller.namespace).eviction.redis_word();
    out.value(ValueRef::text(&info_text(&session.shared, policy, &wanted)));
    Ok(())
}

/// The text of these sections; none, `default`, `all` and `everything` mean all of them.
pub fn info_text(shared: &Shared, policy: &str, wanted: &[String]) -> String {
    let all = wanted.is_empty()
        || wanted.iter().any(|section| ["default", "all", "everything"].contains(&section.as_str()));
    let stats = shared.engine.stats();
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| all || wanted.iter().any(|name| name == *section)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let mut title = (*section).to_owned();
        title[..1].make_ascii_uppercase();
        line(&mut text, format_args!("# {}", if *section == "cpu" { "CPU" } else { &title }));
        match *section {
            "server" => server(shared, &mut text),
            "clients" => clients(shared, &stats, &mut text),
            "memory" => memory(&stats, policy, &mut text),
            "tier" => tier(&stats, &mut text),
            "persistence" => persistence(shared, &stats, &mut text),
            "stats" => counters(shared, &stats, &mut text),
            "replication" => line(&mut text, format_args!("role:master\r\nconnected_slaves:0")),
            "cpu" => cpu(&mut text),
            "cluster" => line(&mut text, format_args!("cluster_enabled:0")),
            _ => keyspace(&stats, &mut text),
        }
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{content}\r\n");
}

fn server(shared: &Shared, text: &mut String) {
    let up = shared.started.elapsed().as_secs();
    line(text, format_args!("redis_version:{}", crate::REDIS_VERSION));
    line(text, format_args!("redis_mode:standalone"));
    line(text, format_args!("data_bridge_kv_version:{}", crate::VERSION));
    line(text, format_args!("os:{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(text, format_args!("arch_bits:{}", usize::BITS));
    line(text, format_args!("multiplexing_api:epoll"));
    line(text, format_args!("process_id:{}", std::process::id()));
    line(text, format_args!("run_id:{}", shared.run_id));
    let port = shared.addresses().first().map_or(0, std::net::SocketAddr::port);
    line(text, format_args!("tcp_port:{port}"));
    line(text, format_args!("uptime_in_seconds:{up}\r\nuptime_in_days:{}", up / 86_400));
    line(text, format_args!("io_threads_active:{}", shared.threads));
}

fn clients(shared: &Shared, stats: &Stats, text: &mut String) {
    line(text, format_args!("connected_clients:{}", shared.clients.len()));
    line(text, format_args!("maxclients:{}", shared.config.max_clients));
    line(text, format_args!("blocked_clients:{}", stats.waiting));
}

fn memory(stats: &Stats, policy: &str, text: &mut String) {
    let limit = if stats.max_memory == u64::MAX { 0 } else { stats.max_memory };
    let resident = process::resident_bytes();
    line(text, format_args!("used_memory:{}", stats.used_memory));
    line(text, format_args!("used_memory_human:{}", size::show(stats.used_memory)));
    line(text, format_args!("used_memory_rss:{resident}"));
    line(text, format_args!("used_memory_rss_human:{}", size::show(resident)));
    line(text, format_args!("used_memory_dataset:{}", stats.used_memory));
    line(text, format_args!("maxmemory:{limit}\r\nmaxmemory_human:{}", size::show(limit)));
    let target = if limit == 0 { 0 } else { stats.memory_target };
    line(text, format_args!("memory_target:{target}"));
    line(text, format_args!("maxmemory_policy:{policy}"));
    line(text, format_args!("mem_allocator:mimalloc"));
}

/// What overflowed to disk; nothing without a data directory.
fn tier(stats: &Stats, text: &mut String) {
    let cold: usize = stats.namespaces.iter().map(|one| one.cold).sum();
    let keys: usize = stats.namespaces.iter().map(|one| one.keys).sum();
    let Some(tier) = &stats.tier else { return line(text, format_args!("tier_enabled:0")) };
    let mean = tier.fetch_us.checked_div(tier.fetched.saturating_add(tier.named)).unwrap_or(0);
    let hits: u64 = stats.namespaces.iter().map(|one| one.hits).sum();
    for (name, value) in [
        ("tier_enabled", 1),
        ("tier_keys_in_memory", (keys - cold) as u64),
        ("tier_keys_on_disk", cold as u64),
        ("tier_disk_bytes", tier.bytes),
        ("tier_disk_live_bytes", tier.live_bytes),
        ("tier_disk_max_bytes", tier.max_bytes),
        ("tier_segments", tier.segments as u64),
        ("tier_shards_to_load", tier.shards_to_load as u64),
        ("tier_demoted", tier.demoted),
        ("tier_reads_memory", hits.saturating_sub(tier.copied)),
        ("tier_fetched", tier.fetched),
        ("tier_reads_names", tier.named),
        ("tier_reads_shared", tier.coalesced),
        ("tier_damaged", tier.damaged),
        ("tier_read_errors", tier.read_errors),
        ("tier_promoted", tier.promoted),
        ("tier_fetch_mean_us", mean),
        ("tier_reclaimed_bytes", tier.reclaimed_bytes),
        ("tier_moved", tier.moved),
        ("tier_stalls", tier.stalls),
        ("tier_stall_us", tier.stall_us),
        ("tier_write_errors", tier.write_errors),
    ] {
        line(text, format_args!("{name}:{value}"));
    }
}

/// Snapshots and the log in Redis's words for its dumps and its append-only file, then the log in ours.
fn persistence(shared: &Shared, stats: &Stats, text: &mut String) {
    let status = |has_failed: bool| if has_failed { "err" } else { "ok" };
    line(text, format_args!("loading:0\r\nrdb_changes_since_last_save:0"));
    line(text, format_args!("rdb_bgsave_in_progress:{}", u8::from(shared.snapshots.is_making())));
    line(text, format_args!("rdb_last_bgsave_status:{}", status(shared.snapshots.has_failed())));
    line(text, format_args!("aof_enabled:{}", u8::from(stats.log.is_some())));
    let Some(log) = &stats.log else { return };
    let written = status(log.has_failed);
    line(text, format_args!("aof_last_write_status:{written}\r\naof_current_size:{}", log.bytes));
    for (name, value) in [
        ("log_bytes", log.bytes),
        ("log_limit_bytes", log.limit),
        ("log_last_lsn", log.last),
        ("log_durable_lsn", log.durable),
        ("log_replayed_records", log.replayed),
        ("log_syncs", log.syncs),
        ("log_sync_mean_us", log.sync_us.checked_div(log.syncs).unwrap_or(0)),
        ("log_sync_max_us", log.sync_us_max),
        ("log_failed", u64::from(log.has_failed)),
        ("checkpoints", log.checkpoints.count),
        ("checkpoint_failures", log.checkpoints.failures),
        ("checkpoint_last_us", log.checkpoints.last_us),
        ("checkpoint_written_bytes", log.checkpoints.bytes),
    ] {
        line(text, format_args!("{name}:{value}"));
    }
}

fn counters(shared: &Shared, stats: &Stats, text: &mut String) {
    let totals = shared.clients.totals();
    let sum = |pick: fn(&data_bridge_kv::engine::NamespaceStats) -> u64| -> u64 {
        stats.namespaces.iter().map(pick).sum()
    };
    for (name, value) in [
        ("total_connections_received", totals.accepted),
        ("total_commands_processed", totals.commands),
        ("instantaneous_ops_per_sec", shared.rate()),
        ("total_net_input_bytes", totals.received),
        ("total_net_output_bytes", totals.sent),
        ("rejected_connections", totals.refused),
        ("client_connections_ended_by_limit", totals.ended),
        ("client_connections_ended_as_malformed", totals.malformed),
        ("expired_keys", sum(|one| one.expired)),
        ("evicted_keys", sum(|one| one.evicted)),
        ("keyspace_hits", sum(|one| one.hits)),
        ("keyspace_misses", sum(|one| one.misses)),
    ] {
        line(text, format_args!("{name}:{value}"));
    }
}

fn cpu(text: &mut String) {
    let (user, system) = process::cpu_seconds();
    line(text, format_args!("used_cpu_sys:{system:.6}\r\nused_cpu_user:{user:.6}"));
}

fn keyspace(stats: &Stats, text: &mut String) {
    for (number, one) in stats.namespaces.iter().enumerate().take(NAMESPACES).filter(|(_, one)| one.keys > 0)
    {
        line(text, format_args!("db{number}:keys={},expires={},avg_ttl=0", one.keys, one.expiring));
    }
}
