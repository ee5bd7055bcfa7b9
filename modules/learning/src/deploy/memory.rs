//! Memory of a server, where it tells it or runs on this machine.

use std::{fs, path::Path};

use module_http_client::Request;

use super::{Adapter, DeployError, Kind, Server, read};

/// State of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Memory of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// So many bytes.
    Bytes {
        /// Their number.
        bytes: u64,
        /// The thing that takes them.
        of: &'static str,
        /// `true` when that is on this machine.
        is_here: bool,
    },
    /// It cannot be told.
    Untold {
        /// The reason.
        reason: &'static str,
    },
}

impl Server {
    /// Returns the memory that the server takes with a version, after it answered: what Ollama says
    /// of the model, or the resident memory of the process that listens at the server's address.
    ///
    /// # Errors
    ///
    /// When Ollama does not answer.
    pub async fn memory(&self, adapter: &Adapter) -> Result<Memory, DeployError> {
        let is_here = is_here(&self.base_url);
        if self.kind == Kind::Ollama {
            let answer = read(&self.send(Request::get(self.url("/api/ps"))).await?)?;
            let models = answer["models"].as_array().map(Vec::as_slice).unwrap_or_default();
            let name = adapter.model();
            let model = models.iter().find(|it| it["name"].as_str() == Some(&name));
            return Ok(match model.and_then(|it| it["size"].as_u64()) {
                Some(bytes) => Memory::Bytes { bytes, of: "the model in Ollama", is_here },
                None => Memory::Untold { reason: "Ollama does not tell the memory of the model" },
            });
        }
        if self.kind == Kind::Vllm {
            let reason = "vLLM reserves its memory when it starts, whatever is loaded";
            return Ok(Memory::Untold { reason });
        }
        if !is_here {
            return Ok(Memory::Untold { reason: "the server does not run on this machine" });
        }
        let bytes = port(&self.base_url).and_then(|port| resident(Path::new("/proc"), port));
        Ok(match bytes {
            Some(bytes) => Memory::Bytes { bytes, of: "the server's process", is_here },
            None => Memory::Untold { reason: "the server's process is another user's" },
        })
    }
}

/// Returns the memory of this machine, in bytes.
#[must_use]
pub fn machine_memory() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Returns the host of a URL with its port.
fn authority(base_url: &str) -> &str {
    let rest = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn is_here(base_url: &str) -> bool {
    let authority = authority(base_url);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback());
    is_loopback || host.eq_ignore_ascii_case("localhost")
}

fn port(base_url: &str) -> Option<u16> {
    let authority = authority(base_url);
    let after = authority.rsplit(']').next().unwrap_or_default();
    match after.rsplit_once(':') {
        Some((_, port)) => port.parse().ok(),
        None if base_url.starts_with("https://") => Some(443),
        None => Some(80),
    }
}

/// Returns the resident memory of the process that listens at a port, if it is seen.
fn resident(proc: &Path, port: u16) -> Option<u64> {
    let sockets: Vec<String> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|name| fs::read_to_string(proc.join(name)).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = fs::read_dir(proc).ok()?.flatten().map(|entry| entry.path());
    let mut processes = processes.filter(|path| {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        name.bytes().all(|byte| byte.is_ascii_digit())
    });
    let process = processes.find(|path| {
        let files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    })?;
    kilobytes(&fs::read_to_string(process.join("status")).ok()?, "VmRSS:")
}

/// Returns the sockets that listen at a port, as links to open files name them.
fn listening(table: &str, port: u16) -> Vec<String> {
    let inodes = table.lines().skip(1).filter_map(|line| inode(line, port));
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}

/// Returns the number of the socket in a line, if it listens at the port.
fn inode(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    let found = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    if found == port && state == LISTENS { fields.nth(5) } else { None }
}

/// Returns a line of kB as bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (url, here, at) in [
            ("http://127.0.0.1:11434", true, Some(11_434)),
            ("http://localhost:8080/v1", true, Some(8_080)),
            ("http://[::1]:9", true, Some(9)),
            ("http://[::1]", true, Some(80)),
            ("https://gpu.example", false, Some(443)),
            ("http://localhost.example:1", false, Some(1)),
            ("http://a@10.0.0.7:x", false, None),
        ] {
            assert_eq!((is_here(url), port(url)), (here, at), "{url}");
        }
    }

    #[test]
    fn the_process_that_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        // This process listens; another one may hold the socket as well, if it was started now.
        let found = resident(Path::new("/proc"), port).expect("it is found");
        assert!(found > 100_000, "{found}");
        assert!(machine_memory() > Some(found));
        drop(listener);
        assert_eq!(resident(Path::new("/nowhere"), port), None);
    }

    #[test]
    fn other_sockets_are_left_out() {
        let line = |port: &str, state: &str, inode: u32| {
            format!("0: 0100007F:{port} 00000000:0000 {state} 00:00 00:00 00 1000 0 {inode} 1\n")
        };
        let table = [
            "sl local_address rem_address st tx_queue tr retrnsmt uid timeout inode\n".to_owned(),
            line("1F90", "0A", 4_242),
            line("1F90", "01", 4_243),
            line("1F91", "0A", 4_244),
        ];
        let table = table.concat();
        assert_eq!(listening(&table, 8_080), ["socket:[4242]"]);
        assert_eq!(listening("", 8_080), [""; 0]);
    }
}
