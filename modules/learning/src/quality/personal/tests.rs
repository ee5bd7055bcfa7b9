//! A corpus of personal data as chance makes it, and texts that only look like some.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::quality::tests::{Random, chat};

fn redacted(text: &str) -> String {
    let mut example = chat("1", text, "");
    PersonalData::new(&Config::default()).redact(&mut example);
    example.messages.swap_remove(0).content
}

/// Makes a piece of personal data: the text before it, the data, the text after it.
type Make = fn(&mut Random) -> (String, String, String);

fn plain(data: String) -> (String, String, String) {
    (String::new(), data, String::new())
}

fn name(random: &mut Random) -> String {
    let names =
        ["ada", "grace", "edsger", "barbara", "ken", "margaret", "niklaus", "jürgen", "zoë"];
    format!("{}{}", random.pick(&names), random.word())
}

fn octet(random: &mut Random) -> usize {
    1 + random.below(250)
}

/// Returns a card's number: the digits, and the one that makes the sum right.
fn card(random: &mut Random, head: &str, length: usize) -> String {
    let body = random.chars("0123456789", length - 1 - head.len());
    complete(&format!("{head}{body}"), |number| {
        passes(&number.bytes().map(|byte| u32::from(byte - b'0')).collect::<Vec<_>>())
    })
}

/// Appends the digit that makes a number right, by a sum of the tests' own.
fn complete(number: &str, is_right: impl Fn(&str) -> bool) -> String {
    let numbers = (0..10).map(|digit| format!("{number}{digit}"));
    numbers.into_iter().find(|number| is_right(number)).expect("one of ten digits is right")
}

fn passes(digits: &[u32]) -> bool {
    let doubled = |digit: u32| [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][digit as usize];
    let places = digits.iter().rev().enumerate();
    places.map(|(at, it)| if at % 2 == 1 { doubled(*it) } else { *it }).sum::<u32>() % 10 == 0
}

/// Returns a bank account's number with its check digits.
fn iban(random: &mut Random, country: &str, length: usize) -> String {
    let body = random.chars("0123456789", length - 4);
    let signs =
        |text: &str| text.chars().map(|c| c.to_digit(36).expect("a sign")).collect::<Vec<_>>();
    let number = signs(&format!("{body}{country}00"));
    let rest = number.iter().fold(0_u64, |rest, sign| {
        (rest * if *sign < 10 { 10 } else { 100 } + u64::from(*sign)) % 97
    });
    format!("{country}{:02}{body}", 98 - rest)
}

fn spaced(text: &str, every: usize, sign: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(every).map(String::from_iter).collect::<Vec<_>>().join(sign)
}

const KINDS: [(&str, Make); 20] = [
    ("EMAIL", |it| plain(format!("{}@{}.org", name(it), it.word()))),
    ("EMAIL", |it| plain(format!("{}.{}+x@mail.{}.co.uk", name(it), name(it), it.word()))),
    ("EMAIL", |it| plain(format!("{}_{}@bücher{}.de", name(it), it.below(99), it.word()))),
    ("IP", |it| plain(format!("{}.{}.{}.{}", 11 + it.below(80), octet(it), octet(it), octet(it)))),
    ("IP", |it| {
        let rest: Vec<String> = (0..6).map(|_| format!("{:x}", it.below(0xffff))).collect();
        plain(format!("2a01:{}", rest.join(":") + ":1"))
    }),
    ("IP", |it| plain(format!("2a03:2880:{:x}::{:x}", it.below(0xffff), 1 + it.below(0xfff)))),
    ("PHONE", |it| {
        plain(format!("+43 {} {}", 600 + it.below(99), 1_000_000 + it.below(8_999_999)))
    }),
    ("PHONE", |it| plain(format!("+1{}", 2_000_000_000_u64 + it.below(7_999_999_999) as u64))),
    ("PHONE", |it| {
        plain(format!("({}) {}-{:04}", 201 + it.below(700), 201 + it.below(700), it.below(9999)))
    }),
    ("PHONE", |it| {
        plain(format!("{}-{}-{:04}", 201 + it.below(700), 201 + it.below(700), it.below(9999)))
    }),
    ("PHONE", |it| {
        (
            "Tel.: ".to_owned(),
            format!("0{} {}", 1 + it.below(999), 100_000 + it.below(899_999)),
            String::new(),
        )
    }),
    ("CARD", |it| plain(card(it, "4", 16))),
    ("CARD", |it| plain(spaced(&card(it, "53", 16), 4, " "))),
    ("CARD", |it| plain(spaced(&card(it, "4", 16), 4, "-"))),
    ("CARD", |it| plain(card(it, "37", 15))),
    ("IBAN", |it| plain(iban(it, "DE", 22))),
    ("IBAN", |it| plain(spaced(&iban(it, "AT", 20), 4, " "))),
    ("USER", |it| ("/home/".to_owned(), name(it), "/src/main.rs".to_owned())),
    ("USER", |it| {
        ("C:\\Users\\".to_owned(), format!("{} Love", name(it)), "\\Documents".to_owned())
    }),
    ("HOST", |it| ("ssh -p 22 root@".to_owned(), format!("build-{}", it.word()), String::new())),
];

#[test]
fn of_twenty_kinds_all_but_one_in_a_hundred_are_replaced() {
    for (index, (kind, make)) in KINDS.iter().enumerate() {
        let mut random = Random::new(index as u64);
        let mut missed = Vec::new();
        for _ in 0..500 {
            let (before, data, after) = make(&mut random);
            let (first, last) =
                [("", ""), ("It is ", "."), ("see (", ")"), ("\"", "\","), ("a: ", "\n")]
                    [random.below(5)];
            let text = format!("{first}{before}{data}{after}{last}");
            let expected = format!("{first}{before}<{kind}_1>{after}{last}");
            let redacted = redacted(&text);
            if redacted != expected {
                missed.push((text, redacted));
            }
        }
        let shown = &missed[..missed.len().min(5)];
        assert!(missed.len() <= 5, "{index} {kind}: {} of 500 missed: {shown:#?}", missed.len());
    }
}

#[test]
fn what_belongs_to_nobody_stays() {
    for text in [
        "write to ada@example.com or info@shop.test",
        "git clone git@github.com:acme/shop.git",
        "npm install lodash@4.17.21 @types/node@20 react@next",
        "@app.route and user@localhost",
        "bind 127.0.0.1:8080, 0.0.0.0, 192.168.1.20, 10.0.0.7, 172.16.0.1, 169.254.169.254",
        "resolve by 8.8.8.8 and 1.1.1.1, in tests 192.0.2.10 and 203.0.113.9",
        "24 80 24 80 24 80 24 80 24 80 00 61 00 74 00 65 +8388608.0 +9999-12-31 23:59",
        "RFC 5280 §4.2.1.99, section-5.1.2.90, OID 2.5.29.90, kernel 5.15.146.1-generic",
        "http://www.acme.io/home/lock-free, 5029875928683246316",
        "version 1.2.3.4, Chrome/120.0.6099.109, 1.2.3.4.5, section 3.1.2",
        "std::net::Ipv6Addr, ::1, fe80::1, fd00::2, 2001:db8::5, 12:30:45, dead::beef, a::b",
        "took 1795218501711000000 ns at 1795218501711",
        "2026-11-30 17:08:00, 2026-11-30T17:08:00+0000, 12/31/2026",
        "+ 10000000\n+12345\n-17\n00000001\n1 + 2 - 3 * 400000000",
        "order 123456789012, id 550e8400-e29b-41d4-a716-446655440000",
        "0.4111111111111111 and 4111111111111112",
        "DE89370400440532013001 is wrong, and AB12 CDEF 3456 7890 1234 too",
        "/home/user/x, /home/runner/work, /Users/Shared/y, C:\\Users\\Public\\z, /home/$USER/a",
        "GET /users/ada/orders HTTP/1.1",
        "~/src/main.rs and /usr/local/bin",
        "http://localhost:8080, http://host.docker.internal:11434, http://api.svc.cluster.local",
        "import com.acme.internal.Shop; self.local = true; .env.local",
        "https://github.com/acme/shop/blob/main/README.md#L10",
        "555 items, 1-800 pages, 100-200-300, 1.234.567",
        "",
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn the_same_value_has_the_same_number_everywhere() {
    let question = "I am ada.l@acme.io (ADA.L@acme.io), not bob.k@acme.io. See /home/lovelace/x.";
    let mut example = chat("1", question, "Hello Lovelace, wrote to bob.k@acme.io.");
    let arguments = json!({"to": "ada.l@acme.io", "home": "/home/lovelace"}).to_string();
    example.messages[1].tool_calls = Some(json!([{"function": {"arguments": arguments}}]));
    example.tools = Some(json!({"ada.l@acme.io": 1, "bob.k@acme.io": ["+43 664 1234567", 2]}));
    let counts = PersonalData::new(&Config::default()).redact(&mut example);
    assert_eq!(
        example.messages[0].content,
        "I am <EMAIL_1> (<EMAIL_1>), not <EMAIL_2>. See /home/<USER_1>/x."
    );
    assert_eq!(example.messages[1].content, "Hello <USER_1>, wrote to <EMAIL_2>.");
    let calls = example.messages[1].tool_calls.take().expect("it has calls");
    let arguments = calls[0]["function"]["arguments"].as_str().expect("it is text");
    let arguments: Value = serde_json::from_str(arguments).expect("it is JSON still");
    assert_eq!(arguments, json!({"to": "<EMAIL_1>", "home": "/home/<USER_1>"}));
    assert_eq!(example.tools, Some(json!({"<EMAIL_1>": 1, "<EMAIL_2>": ["<PHONE_1>", 2]})));
    assert_eq!(counts, Some(BTreeMap::from([("email", 7), ("phone", 1), ("user", 3)])));
}

#[test]
fn names_of_the_configuration_are_replaced() {
    let config = Config {
        user_names: vec!["Ada Lovelace".into()],
        host_names: vec!["analytical".into()],
        ..Config::default()
    };
    let mut example = chat("1", "ada lovelace at ANALYTICAL, analytically", "Ada.");
    PersonalData::new(&config).redact(&mut example);
    assert_eq!(example.messages[0].content, "<USER_1> at <HOST_1>, analytically");
    assert_eq!(example.messages[1].content, "Ada.");
}

#[test]
fn prompts_and_paths_tell_names() {
    for (text, expected) in [
        ("ada@engine:~/src$ ls", "<USER_1>@<HOST_1>:~/src$ ls"),
        ("[ada@engine src]$ ls", "[<USER_1>@<HOST_1> src]$ ls"),
        ("scp -P 22 x.txt ada@engine:/tmp", "scp -P 22 x.txt <USER_1>@<HOST_1>:/tmp"),
        (r#""C:\\Users\\lovelace\\x""#, r#""C:\\Users\\<USER_1>\\x""#),
        ("/Users/lovelace", "/Users/<USER_1>"),
        ("/mnt/c/Users/lovelace/x", "/mnt/c/Users/<USER_1>/x"),
        ("file:///home/lovelace/x", "file:///home/<USER_1>/x"),
        ("93.184.216.34-93.184.216.35", "<IP_1>-<IP_2>"),
        ("see /home/lovelace.", "see /home/<USER_1>."),
        ("http://build-7.acme.internal/x", "http://<HOST_1>/x"),
        ("/Users/ada and then foo/bar", "/Users/<USER_1> and then foo/bar"),
    ] {
        assert_eq!(redacted(text), expected);
    }
}

#[test]
fn what_may_still_have_some_is_dropped() {
    let redact = |count: usize| {
        let mut example = chat("1", &"+43 664 1234567".repeat(count), "");
        PersonalData::new(&Config::default()).redact(&mut example)
    };
    assert_eq!(redact(5), Some(BTreeMap::from([("phone", 5)])));
    assert_eq!(redact(50), None);
}

#[test]
fn hostile_texts_take_no_long_time() {
    for unit in [
        "a",
        "a@",
        "a@aa.",
        "1",
        "1 ",
        "+1 ",
        "DE89 ",
        "/home/a/",
        "/home/abc",
        "ssh a",
        "2a01:",
        "1.1.",
        "天",
    ] {
        let text = unit.repeat(1_000_000 / unit.len());
        let begun = std::time::Instant::now();
        redacted(&text);
        assert!(begun.elapsed().as_secs() < 20, "{unit}: {:?}", begun.elapsed());
    }
}

/// Makes pieces of text as hostile people and careless ones write it.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[ -~]{0,20}",
        Just("ada.l@acme.io".to_owned()),
        Just("/home/lovelace/".to_owned()),
        Just("C:\\Users\\Ada L\\".to_owned()),
        Just("+43 664 1234567".to_owned()),
        Just("4242 4242 4242 4242".to_owned()),
        Just("DE89 3704 0044 0532 0130 00".to_owned()),
        Just("93.184.216.34".to_owned()),
        Just("2a01:4f8::1".to_owned()),
        Just("lovelace@engine:~".to_owned()),
        Just("<EMAIL_1>".to_owned()),
        Just("tel ".to_owned()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_redacted_once_and_for_all(text in pieces()) {
        let once = redacted(&text);
        prop_assert_eq!(redacted(&once), once);
    }

    #[test]
    fn nothing_of_what_is_replaced_stays(words in "[a-z ]{0,30}", more in "[a-z ,.]{0,30}") {
        let words = format!("{words} ");
        for data in ["ada.l@acme.io", "DE89 3704 0044 0532 0130 00", "4242-4242-4242-4242"] {
            let redacted = redacted(&format!("{words}{data} {more}"));
            for part in data.split(|c: char| !c.is_alphanumeric()).filter(|it| it.len() > 3) {
                prop_assert!(!redacted.contains(part), "{} in {}", part, redacted);
            }
        }
    }
}
