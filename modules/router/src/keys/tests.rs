//! Tests of keys from their command to their lookup.

use std::{net::IpAddr, sync::Arc, time::Duration};

use module_sdk::{Host, Reply, jiff::Timestamp, testing::FakeHost};
use serde_json::{Value, json};

use super::{Anonymous, Identity, KeyFault, KeyOptions, Keys, Peer};
use crate::target::TargetName;

struct Site {
    fake: Arc<FakeHost>,
    host: Host,
    keys: Keys,
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with(KeyOptions::default())
    }

    fn with(options: KeyOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        fake.set_now("2026-12-01T10:00:00Z".parse().expect("a time"));
        let host = fake.host().expect("it tells about itself");
        let keys = Keys::load(&host, options).expect("there are none");
        Self { fake, host, keys, directory }
    }

    fn run(&mut self, args: Value) -> Reply {
        let args = serde_json::from_value(args).expect("they fit");
        self.keys.command(args).expect("it is done")
    }

    fn fail(&mut self, args: Value) -> String {
        match serde_json::from_value(args) {
            Ok(args) => self.keys.command(args).expect_err("it is refused").to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn create(&mut self, args: Value) -> String {
        let mut all = json!({"action": "create"});
        all.as_object_mut()
            .expect("it is an object")
            .extend(args.as_object().expect("it is an object").clone());
        self.run(all).data["key"].as_str().expect("it is told").to_owned()
    }

    fn identify(&self, secret: &str) -> Result<Identity, KeyFault> {
        self.keys.ring().identify(Some(secret), far(), self.host.now())
    }

    fn later(&self, span: Duration) {
        self.fake.set_now(self.fake.now() + span);
    }
}

fn far() -> Peer {
    Peer { address: IpAddr::from([192, 0, 2, 7]), is_forwarded: false }
}

fn target(provider: &str, model: &str) -> TargetName {
    TargetName { provider: provider.into(), model: model.into() }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_key_is_made_found_rotated_and_revoked() {
    let mut site = Site::new();
    let first = site.create(json!({
        "name": "ci", "project": "shop", "requests_per_minute": 60, "usd_per_day": 2.5,
    }));
    let identity = site.identify(&first).expect("it is known");
    let key = identity.key().expect("it is a key");
    assert_eq!((&*key.name, identity.project()), ("ci", Some("shop")));
    let limits: Vec<String> = key.limits.limits().map(|limit| limit.to_string()).collect();
    assert_eq!(limits, ["60 requests per minute", "$2.50 per day"]);

    let reply = site.run(json!({"action": "rotate", "name": "ci"}));
    let second = reply.data["key"].as_str().expect("it is told").to_owned();
    assert_ne!(first, second);
    for secret in [&first, &second] {
        let again = site.identify(secret).expect("it is in its grace");
        assert_eq!(again.id(), identity.id(), "limits go on");
    }
    site.later(25 * HOUR);
    let expired = site.identify(&first).expect_err("its grace is over");
    assert!(matches!(expired, KeyFault::Expired { .. }), "{expired}");
    site.identify(&second).expect("it is the newest");

    site.run(json!({"action": "revoke", "name": "ci"}));
    let revoked = site.identify(&second).expect_err("it is revoked");
    assert_eq!((revoked.status(), revoked.code()), (401, "key_revoked"));
    site.create(json!({"name": "ci"}));
}

#[test]
fn an_ended_grace_of_zero_ends_the_former_secret_at_once() {
    let mut site = Site::new();
    let first = site.create(json!({"name": "ci"}));
    site.run(json!({"action": "rotate", "name": "ci", "grace": "0s"}));
    assert!(site.identify(&first).is_err());
}

#[test]
fn a_key_expires_and_is_renewed() {
    let mut site = Site::new();
    let secret = site.create(json!({"name": "guest", "expires": "2h"}));
    site.identify(&secret).expect("it is in its time");
    site.later(2 * HOUR);
    let error = site.identify(&secret).expect_err("it expired").to_string();
    let expected = "the key `guest` expired at 2026-12-01T12:00:00Z; \
                    `lodestar router keys rotate guest` renews it";
    assert_eq!(error, expected);
    let error = site.fail(json!({"action": "rotate", "name": "guest"}));
    assert!(error.contains("--expires 30d"), "{error}");
    let args = json!({"action": "rotate", "name": "guest", "expires": "30d"});
    let renewed = site.run(args).data["key"].as_str().expect("it is told").to_owned();
    site.identify(&renewed).expect("it counts again");
}

#[test]
fn no_file_holds_a_secret() {
    let mut site = Site::new();
    let secret = site.create(json!({"name": "ci"}));
    let file = site.directory.path().join("keys.json");
    let text = std::fs::read_to_string(&file).expect("it was written");
    assert!(text.contains(&secret[..8]) && !text.contains(&secret[3..]), "{text}");
    let again = Keys::load(&site.host, KeyOptions::default()).expect("they are read");
    again.ring().identify(Some(&secret), far(), site.host.now()).expect("it is known again");
    let list = site.run(json!({"action": "list"}));
    let list = serde_json::to_string(&list).expect("it is JSON");
    assert!(list.contains(&secret[..8]) && !list.contains(&secret[..9]), "{list}");
    assert!(!format!("{:?}", site.keys).contains(&secret[3..]));
}

#[test]
fn keys_that_cannot_be_written_are_not_in_force() {
    let mut site = Site::new();
    let secret = site.create(json!({"name": "ci"}));
    let file = site.directory.path().join("keys.json");
    std::fs::remove_file(&file).expect("it was written");
    std::fs::create_dir(&file).expect("it is ours");
    let error = site.fail(json!({"action": "revoke", "name": "ci"}));
    assert!(error.contains("keys.json"), "{error}");
    site.identify(&secret).expect("it was not revoked");
}

#[test]
fn a_file_of_a_newer_version_is_not_overwritten() {
    let site = Site::new();
    let file = site.directory.path().join("keys.json");
    std::fs::write(&file, r#"{"version": 2, "keys": []}"#).expect("it is ours");
    let error = Keys::load(&site.host, KeyOptions::default()).expect_err("it is newer");
    assert!(error.to_string().contains("a newer one"), "{error}");
    std::fs::write(&file, "{").expect("it is ours");
    assert!(Keys::load(&site.host, KeyOptions::default()).is_err());
}

#[test]
fn who_may_ask_without_a_key() {
    let check = |anonymous, address: &str, is_forwarded, expected: Result<(), KeyFault>| {
        let site = Site::with(KeyOptions { anonymous, ..KeyOptions::default() });
        let peer = Peer { address: address.parse().expect("an address"), is_forwarded };
        let asked = site.keys.ring().identify(None, peer, site.host.now());
        assert_eq!(asked.map(|_| ()), expected, "{anonymous:?} {address} {is_forwarded}");
    };
    use Anonymous::{Always, Loopback, Never};
    check(Loopback, "127.0.0.1", false, Ok(()));
    check(Loopback, "127.8.0.1", false, Ok(()));
    check(Loopback, "::1", false, Ok(()));
    check(Loopback, "::ffff:127.0.0.1", false, Ok(()));
    check(Loopback, "127.0.0.1", true, Err(KeyFault::NoKey));
    check(Loopback, "10.0.0.1", false, Err(KeyFault::NoKey));
    check(Never, "127.0.0.1", false, Err(KeyFault::NoKey));
    check(Always, "192.0.2.1", true, Ok(()));
    let options = KeyOptions { anonymous: Always, ..KeyOptions::default() };
    assert!(options.warning().is_some() && KeyOptions::default().warning().is_none());
}

#[test]
fn a_wrong_key_is_refused_even_on_this_machine() {
    let site = Site::new();
    let here = Peer { address: IpAddr::from([127, 0, 0, 1]), is_forwarded: false };
    let ring = site.keys.ring();
    let now = site.host.now();
    let wrong = ring.identify(Some("lk_wrong"), here, now).expect_err("it is unknown");
    assert_eq!(wrong, KeyFault::WrongKey);
    assert!(!wrong.to_string().contains("lk_wrong"));
    let own = ring.identify(Some("sk-ant-oat01-x"), here, now).expect("it is for the provider");
    assert_eq!((own.id(), own.project()), ("anonymous", None));
    assert_eq!(ring.identify(Some("sk-x"), far(), now).map(|_| ()), Err(KeyFault::WrongKey));
}

#[test]
fn a_key_uses_its_models_alone() {
    let mut site = Site::new();
    let secret = site.create(json!({"name": "ci", "models": "home/*, gpt-5-mini"}));
    let identity = site.identify(&secret).expect("it is known");
    let local = target("home", "llama3:8b");
    let (mini, large) = (target("cloud", "gpt-5-mini"), target("cloud", "gpt-5"));
    assert!(identity.may_use(&local) && identity.may_use(&mini) && !identity.may_use(&large));
    assert!(Identity::Anonymous.may_use(&large));
    let known = [local, mini, large];
    let check = |model: &str, expected: &str| {
        let fault = identity.refusal(model, &known);
        let expected = format!("the key `ci` may not use the model `{model}`; {expected}");
        assert_eq!((fault.to_string(), fault.status()), (expected, 403));
    };
    check("gpt-5", "did you mean `gpt-5-mini`?");
    check("zebra", "it may use home/*, gpt-5-mini");
}

#[test]
fn wrong_arguments_are_told() {
    let mut site = Site::new();
    site.create(json!({"name": "laptop"}));
    let mut check = |args: Value, expected: &str| {
        let error = site.fail(args.clone());
        assert!(error.contains(expected), "{args}: {error}");
    };
    check(json!({"action": "create"}), "name the key");
    check(json!({"action": "create", "name": "laptop"}), "there is a key `laptop` already");
    check(json!({"action": "create", "name": "a b"}), "cannot be called so");
    check(json!({"action": "create", "name": "b", "project": ""}), "a project cannot be");
    check(json!({"action": "create", "name": "b", "models": "a,,b"}), "an empty name");
    check(json!({"action": "create", "name": "b", "expires": "soon"}), "is no length of time");
    check(json!({"action": "create", "name": "b", "usd_per_day": -1}), "is less than nothing");
    check(json!({"action": "revoke", "name": "lapto"}), "did you mean `laptop`?");
    check(json!({"action": "revoke", "name": "zebra"}), "`lodestar router keys list` shows");
    check(json!({"action": "list", "name": "laptop"}), "takes no name");
}

#[test]
fn the_list_tells_what_ended() {
    let mut site = Site::new();
    assert!(site.run(json!({})).table.expect("it has one").notes[0].contains("There are no keys"));
    site.create(json!({"name": "a", "expires": "1h"}));
    site.create(json!({"name": "b", "tokens_per_minute": 1000}));
    site.later(2 * HOUR);
    let reply = site.run(json!({}));
    let table = reply.table.expect("it has one");
    assert_eq!(table.rows.len(), 1);
    assert_eq!(table.rows[0][4], "1,000 tokens per minute");
    assert_eq!(table.notes, ["1 that have ended are not shown; --all does"]);
    let all = site.run(json!({"all": true})).data;
    assert_eq!((&all[0]["state"], &all[1]["state"]), (&json!("expired"), &json!("active")));
    assert_eq!(all[1]["limits"], json!({"tokens_per_minute": 1000}));
    site.run(json!({"action": "revoke", "name": "b"}));
    site.later(100 * 24 * HOUR);
    site.create(json!({"name": "c"}));
    let left = site.run(json!({"all": true})).data;
    let names: Vec<&Value> =
        left.as_array().expect("a list").iter().map(|key| &key["name"]).collect();
    assert_eq!(names, ["a", "c"], "who was revoked long ago is forgotten");
}

#[test]
fn a_lookup_among_many_takes_microseconds() {
    let keys: Vec<super::StoredKey> = (0..1_000)
        .map(|index| {
            let text = format!(
                r#"{{"id": "k_{index}", "name": "n{index}", "created_at": "2026-12-01T00:00:00Z",
                    "secrets": [{{"prefix": "lk_", "sha256": "{index:064x}"}}]}}"#
            );
            serde_json::from_str(&text).expect("it is a key")
        })
        .collect();
    let ring = super::KeyRing::new(Anonymous::Never, &keys);
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        let asked = ring.identify(Some("lk_0123456789"), far(), Timestamp::UNIX_EPOCH);
        assert!(asked.is_err());
    }
    let each = begin.elapsed() / 10_000;
    assert!(each < Duration::from_micros(20), "{each:?}");
}
