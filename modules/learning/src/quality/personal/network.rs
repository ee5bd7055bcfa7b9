//! Addresses: of mail, and of the Internet.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use regex::Regex;

use super::{Kind, Span, numbers::stands_free};

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = concat!(
        r"[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}.%&'+_~-]*[\p{L}\p{M}\p{N}+_-])?@",
        r"(?:[\p{L}\p{N}][\p{L}\p{M}\p{N}-]*\.)+\p{L}[\p{L}\p{M}]+"
    );
    Regex::new(pattern).expect("the pattern is tested")
});
static IPV4: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}").expect("the pattern is tested"));
static IPV6: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)[23][0-9a-f]{3}:[0-9a-f:]{2,34}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?";
    Regex::new(pattern).expect("the pattern is tested")
});

/// Finds the addresses of a text.
pub(super) fn find(text: &str, spans: &mut Vec<Span>) {
    if text.contains('@') {
        let found = EMAIL.find_iter(text).filter(|found| is_personal(found.as_str()));
        spans.extend(found.map(|found| Span { range: found.range(), kind: Kind::Email }));
    }
    let found = IPV4.find_iter(text).filter(|found| {
        let address = found.as_str().parse();
        let (before, after) = (&text[..found.start()], &text[found.end()..]);
        let free = !goes_on(before, after) && !is_version(before);
        free && address.is_ok_and(is_public)
    });
    spans.extend(found.map(|found| Span { range: found.range(), kind: Kind::Ip }));
    for found in IPV6.find_iter(text) {
        // The end of a sentence, or of a pair with a port.
        let address = found.as_str().trim_end_matches(':');
        let end = found.start() + address.len();
        let free = stands_free(text, found.start(), end) && !text[..found.start()].ends_with(':');
        if free && address.parse().is_ok_and(is_public_v6) {
            spans.push(Span { range: found.start()..end, kind: Kind::Ip });
        }
    }
}

/// Domains that belong to nobody, of RFC 2606 and 6761, and how they end.
const NOBODYS: [&str; 8] = [
    "example.com",
    "example.org",
    "example.net",
    "example.edu",
    ".example",
    ".invalid",
    ".test",
    ".localhost",
];

/// Accounts that are no person's, before `@`.
const NO_PERSON: [&str; 6] = ["git", "noreply", "no-reply", "donotreply", "hg", "svn"];

/// Checks whether an address of mail may be somebody's.
fn is_personal(address: &str) -> bool {
    let Some((name, domain)) = address.rsplit_once('@') else {
        return false;
    };
    let domain = domain.to_lowercase();
    let ends = |nobodys: &&str| {
        let rest = domain.strip_suffix(*nobodys);
        rest.is_some_and(|rest| nobodys.starts_with('.') || rest.is_empty() || rest.ends_with('.'))
    };
    !NOBODYS.iter().any(ends) && !NO_PERSON.contains(&name.to_lowercase().as_str())
}

/// Resolvers that everybody knows.
const KNOWN: [Ipv4Addr; 6] = [
    Ipv4Addr::new(8, 8, 8, 8),
    Ipv4Addr::new(8, 8, 4, 4),
    Ipv4Addr::new(1, 1, 1, 1),
    Ipv4Addr::new(1, 0, 0, 1),
    Ipv4Addr::new(9, 9, 9, 9),
    Ipv4Addr::new(208, 67, 222, 222),
];

/// Greatest number of versions and sections; of real addresses one in 5,000 has no greater one.
const SMALL: u8 = 30;

/// Checks whether an address leads to somebody.
fn is_public(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || (first, second & 0xc0) == (100, 64)
        || (first, second & 0xfe) == (198, 18)
        || (first, second, third) == (192, 0, 0);
    // Numbers so small are those of a version or a section.
    let small = address.octets().iter().all(|octet| *octet <= SMALL);
    !special && !small && !KNOWN.contains(&address)
}

/// Checks whether an address is a global one, and not of documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0x0db8) && first != 0x3fff
}

/// Checks whether four numbers with dots between are a part of more: `1.2.3.4.5`, `5.15.1.1-amd64`.
fn goes_on(before: &str, after: &str) -> bool {
    let mut before = before.chars().rev();
    let mut after = after.chars();
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    let dotted = |sign: Option<char>, beyond: Option<char>| {
        sign == Some('.') && beyond.is_some_and(|c| c.is_ascii_digit())
    };
    let (last, last_but_one) = (before.next(), before.next());
    let (next, second) = (after.next(), after.next());
    let tagged = next == Some('-') && second.is_some_and(char::is_alphabetic);
    last.is_some_and(joins)
        || next.is_some_and(joins)
        || dotted(last, last_but_one)
        || dotted(next, second)
        || tagged
}

/// Checks whether what stands before four numbers says that they are a version.
fn is_version(before: &str) -> bool {
    let before = before.trim_end_matches([' ', '=', ':', '"', '\'', '^', '~', '>', '-']);
    ["version", "Version", "release", " v", "@", "/v", "ection", "§", "OID", "lause"]
        .iter()
        .any(|it| before.ends_with(it))
        || before == "v"
}
