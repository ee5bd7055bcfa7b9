//! Processes of the benchmark: this program again, in another role.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
};

/// Variable that says which role the program has.
const ROLE: &str = "LODESTAR_BENCH_ROLE";

/// A role of this program.
pub(crate) enum Role {
    /// The provider.
    Mock,
    /// The bare proxy in front of it.
    Floor(SocketAddr),
}

/// Returns the role of this process, where it has one.
pub(crate) fn role() -> Option<Role> {
    let role = std::env::var(ROLE).ok()?;
    match role.split_once(' ') {
        None => Some(Role::Mock),
        Some((_, upstream)) => Some(Role::Floor(upstream.parse().expect("it is an address"))),
    }
}

/// Tells the address to the process that started this one, and ends with it.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().expect("somebody reads it");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}

/// A process in a role. It ends when it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
}

impl Child {
    pub(crate) fn start(role: &str) -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut command = Command::new(program);
        command.env(ROLE, role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it runs already");
        let mut line = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it tells its address");
        let address = line.trim().parse().expect("it is an address");
        Self { process, address }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Returns the processor time of a process so far, in seconds, threads that ended included.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Returns the processor time of the threads of a process so far, in seconds, by their names.
pub(crate) fn cpu_by_thread(pid: u32) -> BTreeMap<String, f64> {
    let mut times = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let name = read("comm").trim().trim_end_matches(|it: char| it.is_ascii_digit()).to_owned();
        let stat = read("schedstat");
        let ns = stat.split_whitespace().next().and_then(|it| it.parse::<f64>().ok());
        *times.entry(name).or_default() += ns.unwrap_or_default() / 1e9;
    }
    times
}

/// Returns the resident memory of a process, in MB.
pub(crate) fn memory_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok());
    kib.unwrap_or_default() * 1_024.0 / 1e6
}
