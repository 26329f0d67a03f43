//! The `process_*` families, read from the process file system when a scraper asks. What cannot be read is left out.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads the process' own figures.
pub(super) struct Process {
    /// Seconds since the Unix epoch; cannot change.
    started: Option<f64>,
}

/// A family of one sample without labels.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) word: &'static str,
    pub(super) help: &'static str,
    pub(super) value: f64,
}

/// What `stat` says of the process.
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// Ticks after the system's boot.
    started: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Process {
    pub(super) fn new() -> Self {
        let started = || {
            let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
            let booted = boot_time(&fs::read_to_string("/proc/stat").ok()?)?;
            Some(booted as f64 + stat.started as f64 / clock_ticks_per_second() as f64)
        };
        Self { started: started() }
    }

    /// The figures as they are now.
    pub(super) fn read(&self) -> Vec<Figure> {
        let mut figures = Vec::with_capacity(7);
        let mut add = |name, word, help, value: Option<f64>| {
            figures.extend(value.map(|value| Figure {
                name,
                word,
                help,
                value,
            }));
        };
        let help = "When the process started, in seconds since the Unix epoch.";
        add("process_start_time_seconds", "gauge", help, self.started);
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().and_then(Stat::parse);
        if let Some(stat) = stat {
            let cpu = stat.cpu_ticks as f64 / clock_ticks_per_second() as f64;
            let help = "Processor time used, by user and system, in seconds.";
            add("process_cpu_seconds_total", "counter", help, Some(cpu));
            let resident = stat.resident_pages as f64 * page_size() as f64;
            let help = "Memory in use that is in RAM.";
            add(
                "process_resident_memory_bytes",
                "gauge",
                help,
                Some(resident),
            );
            let help = "Address space in use.";
            let virtual_bytes = Some(stat.virtual_bytes as f64);
            add("process_virtual_memory_bytes", "gauge", help, virtual_bytes);
            let help = "Threads of the process.";
            add("process_threads", "gauge", help, Some(stat.threads as f64));
        }
        let help = "File descriptors in use.";
        add("process_open_fds", "gauge", help, open_fds());
        let help = "File descriptors that the process may use.";
        let limit = getrlimit(Resource::Nofile).current.map(|n| n as f64);
        add("process_max_fds", "gauge", help, limit);
        figures
    }
}

impl Stat {
    /// The command in the second field may hold anything but ends at the last parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The field that the manual numbers from 1; the first one here is its third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_time(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// The size of the directory is their number, on kernels that tell it; else they are counted.
fn open_fds() -> Option<f64> {
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told as f64);
    }
    // Reading the directory takes one descriptor itself.
    let counted = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(counted.saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_spaces_and_parentheses() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 3 0 1234 8192 5 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.cpu_ticks, 300);
        assert_eq!((stat.threads, stat.started), (3, 1234));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (8192, 5));
        assert!(Stat::parse("7 (short) S 1").is_none());
    }

    #[test]
    fn the_process_tells_plausible_figures() {
        let figures = Process::new().read();
        let names: Vec<_> = figures.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), 7, "{names:?}");
        let of = |name| figures.iter().find(|f| f.name == name).unwrap().value;
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs_f64();
        let age = now - of("process_start_time_seconds");
        assert!((-2.0..600.0).contains(&age), "started {age} s ago");
        assert!(of("process_resident_memory_bytes") < of("process_virtual_memory_bytes"));
        assert!(of("process_open_fds") >= 3.0);
        assert!(of("process_open_fds") <= of("process_max_fds"));
    }
}
