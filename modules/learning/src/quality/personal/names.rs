//! Names of people and machines, where they stand in paths, prompts and addresses.

use std::sync::LazyLock;

use regex::Regex;

use super::{Kind, Span};

static HOME: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = concat!(
        // C:\Users\Ada Lovelace\x, also as JSON and code write it.
        r"(?:(?i:\b[a-z]:[\\/]{1,4}|\\{1,4})(?i:users|documents and settings)[\\/]{1,4}|/Users/)",
        r#"(?<s>[^\\/:*?"'<>|\s`,;()\[\]{}]{1,64}"#,
        r#"(?:(?: [A-Z][^\\/:*?"'<>|\s`,;()\[\]{}]{0,32}){1,2}[\\/])?)"#,
        r#"|/(?:home|export/home|var/home|usr/home)/(?<h>[^\\/:*?"'<>|\s`,;()\[\]{}$]{1,64})"#
    );
    Regex::new(pattern).expect("the pattern is tested")
});
static PROMPT: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = concat!(
        // ada@analytical:~/src$, [ada@analytical src]#
        r"(?m)(?:^|[\s\[(])(?<u>[A-Za-z_][A-Za-z0-9_.-]{0,31})",
        r"@(?<h>[A-Za-z0-9][A-Za-z0-9.-]{0,62})",
        r"(?::[~/]|[ ][~/A-Za-z0-9._-]{1,64}\][$#%])",
        // ssh ada@build-7, scp x ada@build-7:/tmp, rsync
        r"|\b(?:ssh|scp|sftp|rsync|ssh-copy-id|mosh)(?:[ ]+[^\s|;&]+){0,6}?[ ]+",
        r"(?<v>[A-Za-z_][A-Za-z0-9_.-]{0,31})@(?<i>[A-Za-z0-9][A-Za-z0-9.-]{0,62})"
    );
    Regex::new(pattern).expect("the pattern is tested")
});
static HOST: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = concat!(
        r"(?i)(?:://(?:[^\s/@]{1,64}@)?|\b(?:ssh|ping|host|hostname|server|node)[ :=]{1,3})",
        r"(?<h>[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,6}",
        r"\.(?:internal|intranet|corp|lan|local|home\.arpa|localdomain))(?-u:\b)"
    );
    Regex::new(pattern).expect("the pattern is tested")
});

/// Accounts and folders that are no person's.
const NO_PERSON: &[&str] = &[
    "user",
    "username",
    "users",
    "your_username",
    "your-username",
    "yourname",
    "your_name",
    "name",
    "you",
    "me",
    "myuser",
    "someone",
    "somebody",
    "shared",
    "public",
    "default",
    "all users",
    "root",
    "admin",
    "administrator",
    "ubuntu",
    "debian",
    "ec2-user",
    "centos",
    "fedora",
    "vagrant",
    "pi",
    "runner",
    "runneradmin",
    "circleci",
    "jenkins",
    "git",
    "gitpod",
    "codespace",
    "vscode",
    "node",
    "app",
    "www-data",
    "postgres",
    "mysql",
    "nobody",
    "guest",
    "linuxbrew",
    "jovyan",
    "deploy",
    "test",
    "testuser",
    "email",
    "example",
    "sample",
    "myname",
    "ip",
    "phone",
    "card",
    "iban",
    "foo",
    "bar",
    "docker",
    "build",
    "builder",
    "dev",
    "home",
    "...",
    "..",
    ".",
    "*",
    "lost+found",
    "user1",
    "alice",
    "bob",
    "john",
    "jdoe",
    "johndoe",
];

/// Machines that are nobody's.
const NO_HOST: &[&str] = &[
    "localhost",
    "host.docker.internal",
    "metadata.google.internal",
    "cluster.local",
    "host",
    "hostname",
    "server",
    "myhost",
    "my-host",
    "remote",
    "example.com",
    "github.com",
    "gitlab.com",
    "bitbucket.org",
    "gateway.docker.internal",
    "kubernetes.docker.internal",
];

/// Finds the names that stand in paths, prompts and addresses.
pub(super) fn find(text: &str, spans: &mut Vec<Span>) {
    let mut push = |found: regex::Match<'_>, kind| {
        let name = found.as_str().trim_end_matches(['.', ' ', '\\', '/']);
        let end = found.start() + name.len();
        if !is_nobodys(name, kind) {
            spans.push(Span { range: found.start()..end, kind });
        }
    };
    for found in HOME.captures_iter(text) {
        let of_system = found.name("h").filter(|name| !is_in_url(&text[..name.start()]));
        if let Some(name) = found.name("s").or(of_system) {
            push(name, Kind::User);
        }
    }
    if text.contains('@') {
        for found in PROMPT.captures_iter(text) {
            let users = found.name("u").or(found.name("v"));
            let hosts = found.name("h").or(found.name("i"));
            users.into_iter().for_each(|name| push(name, Kind::User));
            hosts.into_iter().for_each(|name| push(name, Kind::Host));
        }
    }
    for found in HOST.captures_iter(text) {
        if let Some(name) = found.name("h") {
            push(name, Kind::Host);
        }
    }
}

/// Number of bytes before a folder in which the address begins that it is a part of.
const LONGEST_URL: usize = 128;

/// Checks whether the word at the end of a text is an address of the web, whose path has a folder
/// `home` for other reasons.
fn is_in_url(before: &str) -> bool {
    let mut from = before.len().saturating_sub(LONGEST_URL);
    while !before.is_char_boundary(from) {
        from += 1;
    }
    let word = before[from..].rsplit(|c: char| c.is_whitespace() || "\"'`(<".contains(c)).next();
    let scheme = word.and_then(|word| word.split_once("://")).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.ends_with("http") || scheme.ends_with("https"))
}

fn is_nobodys(name: &str, kind: Kind) -> bool {
    let small = name.to_lowercase();
    let is_placeholder = small.starts_with(['$', '%', '{', '<', '-']);
    let known = match kind {
        Kind::Host => {
            let of_cluster = small.ends_with(".cluster.local") || small.ends_with(".svc.local");
            of_cluster || NO_HOST.contains(&small.as_str())
        }
        _ => NO_PERSON.contains(&small.as_str()),
    };
    name.is_empty() || is_placeholder || known || small.bytes().all(|byte| byte.is_ascii_digit())
}

/// Words that are names of people and of other things, too: they are replaced where a path or a
/// prompt says that they are a name, and stay elsewhere.
const WORDS: &[&str] = &[
    "the", "and", "for", "main", "data", "code", "work", "will", "mark", "may", "art", "rust",
    "client", "service", "local", "project", "projects", "system", "lib", "src", "web", "api",
    "prod", "staging", "database", "backup", "cache", "demo", "python", "java", "linux", "windows",
    "store", "shop", "media", "pages", "frank", "rose", "grant", "max", "bill", "chase", "drew",
    "page",
];

/// Checks whether a name is long and rare enough to be looked for everywhere.
pub(super) fn is_telling(name: &str) -> bool {
    name.chars().count() >= 3 && !WORDS.contains(&name.to_lowercase().as_str())
}

/// Finds names that are known, where they stand as words, in whatever case.
pub(super) fn find_known(text: &str, names: &[String], kind: Kind, spans: &mut Vec<Span>) {
    for name in names.iter().take(MOST) {
        // The words of placeholders are no names.
        let first = name.chars().next().filter(|_| !is_nobodys(name, kind));
        let Some(first) = first else {
            continue;
        };
        let is_first = |c: char| c == first || c.to_lowercase().eq(first.to_lowercase());
        let mut from = 0;
        while let Some(at) = text[from..].find(is_first) {
            let start = from + at;
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
            let Some(length) = prefix(&text[start..], name) else {
                continue;
            };
            let joins = |c: char| c.is_alphanumeric();
            let before = text[..start].chars().next_back().is_some_and(joins);
            let after = text[start + length..].chars().next().is_some_and(joins);
            if !before && !after {
                spans.push(Span { range: start..start + length, kind });
                from = start + length;
            }
        }
    }
}

/// Number of names that are looked for: an example with more is a list of them, and each costs a
/// look through all texts.
const MOST: usize = 64;

/// Returns the length of the beginning of a text that is this word but for case.
fn prefix(text: &str, word: &str) -> Option<usize> {
    let mut chars = text.chars();
    for expected in word.chars() {
        let c = chars.next()?;
        if c != expected && !c.to_lowercase().eq(expected.to_lowercase()) {
            return None;
        }
    }
    Some(text.len() - chars.as_str().len())
}
