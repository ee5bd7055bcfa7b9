//! Resolution of references, and redaction of secrets in displayed settings.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use serde_json::{Map, Value};

use super::{
    Config, ConfigError, ConfigErrors, Environment, Fetched, ReferenceError, Secret, references,
    tree::{Node, SourceLocation, Yaml},
};

/// A module's settings with every reference replaced: only the module gets them.
#[derive(Clone)]
pub struct Resolved {
    /// The settings.
    pub settings: Map<String, Value>,
    /// Warnings about files with secrets that are open to others.
    pub warnings: Vec<ConfigError>,
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolved")
            .field("keys", &self.settings.len())
            .field("warnings", &self.warnings)
            .finish()
    }
}

impl Config {
    /// Replaces `~/`, `${NAME}` and `file:/path` in the texts of a module's settings. The last two
    /// are only replaced in texts from this configuration, not in the module's defaults.
    ///
    /// # Errors
    ///
    /// Returns an error for every reference that cannot be resolved: a variable that is not set, a
    /// file that cannot be read, is no regular file, or has more than 64 KiB.
    pub fn resolve(
        &self,
        module: &str,
        settings: &Map<String, Value>,
        environment: &Environment,
    ) -> Result<Resolved, ConfigErrors> {
        let mut walk =
            Walk { config: self, module, environment, errors: Vec::new(), warnings: Vec::new() };
        let mut settings = settings.clone();
        let section = self.section(module);
        for (key, value) in &mut settings {
            let given = section.and_then(|section| section.node.get(key));
            walk.value(key, value, given.map(|entry| &entry.node));
        }
        ConfigErrors::or(walk.errors, Resolved { settings, warnings: walk.warnings })
    }

    /// Returns a secret of a module: the target of its section's `secrets.NAME`, or else systemd's
    /// credential `<module>.<name>`. `None` if neither is given.
    ///
    /// # Errors
    ///
    /// Returns an error if the reference cannot be resolved.
    pub fn secret(
        &self,
        module: &str,
        name: &str,
        environment: &Environment,
    ) -> Result<Option<Secret>, ConfigError> {
        let section = self.module(module);
        let path = format!("secrets.{name}");
        let fetched = match section.and_then(|section| section.secrets.get(name)) {
            Some(reference) => reference.resolve(environment),
            None => match credential(module, name, environment) {
                Some(fetched) => fetched,
                None => return Ok(None),
            },
        };
        fetched
            .map(|fetched| Some(fetched.secret))
            .map_err(|error| self.error_at(module, &path, error.to_string()))
    }

    fn error_at(&self, module: &str, path: &str, message: String) -> ConfigError {
        let key = format!("modules.{module}.{path}");
        match self.place_of(module, path) {
            Some(place) => place.error(&self.path, key, message, ""),
            None => ConfigError { key, ..ConfigError::of_file(&self.path, message, "") },
        }
    }
}

fn credential(
    module: &str,
    name: &str,
    environment: &Environment,
) -> Option<Result<Fetched, ReferenceError>> {
    let file = format!("{module}.{name}");
    if file.contains('/') {
        return None;
    }
    let path = Path::new(environment.get("CREDENTIALS_DIRECTORY")?).join(file);
    path.exists().then(|| references::read_secret(&path))
}

struct Walk<'a> {
    config: &'a Config,
    module: &'a str,
    environment: &'a Environment,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Walk<'_> {
    /// Resolves the references in a value. `given` is the value's node in the configuration;
    /// without it the value is the module's own default.
    fn value(&mut self, path: &str, value: &mut Value, given: Option<&Node>) {
        match value {
            Value::String(text) => self.text(path, text, given.is_some()),
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    let given = given.and_then(|node| node.item(index));
                    self.value(&format!("{path}[{index}]"), value, given);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let given = given.and_then(|node| node.get(key)).map(|entry| &entry.node);
                    self.value(&format!("{path}.{key}"), value, given);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, path: &str, text: &mut String, given: bool) {
        let expanded = match given {
            true => references::expand(text, self.environment),
            false => references::expand_default(text, self.environment),
        };
        match expanded {
            Ok(expanded) => {
                *text = expanded.text;
                let warning = expanded.warning;
                self.warnings.extend(
                    warning.map(|message| self.config.error_at(self.module, path, message)),
                );
            }
            Err(error) => {
                self.errors.push(self.config.error_at(self.module, path, error.to_string()));
            }
        }
    }
}

/// Returns settings for display: texts under a name that promises a secret (`api_key`, `token`) and
/// that are not references become `[redacted]`, and so do the passwords in addresses.
#[must_use]
pub fn redacted(settings: &Map<String, Value>) -> Map<String, Value> {
    let shown = |(key, value): (&String, &Value)| (key.clone(), redact(value, names_secret(key)));
    settings.iter().map(shown).collect()
}

pub(super) fn redact(value: &Value, secret: bool) -> Value {
    match value {
        Value::String(text) if secret && !is_reference(text) => "[redacted]".into(),
        Value::String(text) => match password(text) {
            Some(at) => format!("{}[redacted]{}", &text[..at.start], &text[at.end..]).into(),
            None => value.clone(),
        },
        Value::Array(values) => values.iter().map(|value| redact(value, secret)).collect(),
        Value::Object(map) => {
            let shown = map
                .iter()
                .map(|(key, value)| (key.clone(), redact(value, secret || names_secret(key))));
            Value::Object(shown.collect())
        }
        other => other.clone(),
    }
}

/// Returns the change of mode, as chmod(1) takes it, that keeps others from reading a file; `None`
/// if they cannot, or if there is no file.
#[must_use]
pub fn open_to_others(path: &Path) -> Option<&'static str> {
    let metadata = path.metadata().ok()?;
    // The daemon reads what is not its own as one of the group, but for root's.
    let me = rustix::process::geteuid();
    let own = me.is_root() || metadata.uid() == me.as_raw();
    let (others, closing) = if own { (0o044, "go-r") } else { (0o004, "o-r") };
    (metadata.mode() & others != 0).then_some(closing)
}

/// Returns a warning for each secret in the file itself, where a reference belongs. `open` is the
/// change of mode that keeps others from reading the file, if they can.
#[must_use]
pub fn literal_secrets(config: &Config, open: Option<&str>) -> Vec<ConfigError> {
    let (message, hint) = if let Some(closing) = open {
        let path = config.path.display();
        (
            "a secret stands in the configuration itself, which others than the file's owner can \
             read",
            format!(
                "run `chmod {closing} {path}`, or better move it to a file or variable and write \
                 `file:/path` or `${{NAME}}`"
            ),
        )
    } else {
        (
            "a secret stands in the configuration itself",
            "move it to a file or variable and write `file:/path` or `${NAME}`".to_owned(),
        )
    };
    let mut found = Vec::new();
    for module in &config.modules {
        if let Some(section) = config.section(&module.name) {
            let key = format!("modules.{}", module.name);
            find_literals(&section.node, &key, false, &mut |place, key| {
                found.push(place.error(&config.path, key, message, &*hint));
            });
        }
    }
    found
}

fn find_literals(
    node: &Node,
    key: &str,
    secret: bool,
    found: &mut impl FnMut(&SourceLocation, &str),
) {
    match &node.value {
        Yaml::String(text) if !is_reference(text) && (secret || password(text).is_some()) => {
            found(&node.place, key);
        }
        Yaml::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                find_literals(node, &format!("{key}[{index}]"), secret, found);
            }
        }
        Yaml::Map(entries) => {
            for entry in entries {
                let secret = secret || names_secret(&entry.name);
                find_literals(&entry.node, &format!("{key}.{}", entry.name), secret, found);
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::String(_) => {}
    }
}

/// Returns where the password stands in an address with one: `redis://user:password@host`. A
/// reference in its place is none.
fn password(text: &str) -> Option<std::ops::Range<usize>> {
    let begin = text.find("://")? + 3;
    let rest = &text[begin..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let user = &authority[..authority.rfind('@')?];
    let colon = user.find(':')?;
    let at = begin + colon + 1..begin + user.len();
    (!at.is_empty() && !is_reference(&text[at.clone()])).then_some(at)
}

/// Returns whether a key's name promises a secret. `max_tokens` is a number; `keys` are names.
pub fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = name.split(['_', '-']);
    parts.into_iter().any(|part| {
        matches!(part, "secret" | "secrets" | "password" | "passphrase" | "token" | "credentials")
    }) || name.ends_with("api_key")
        || name.ends_with("api_keys")
        || name.ends_with("private_key")
        || name.ends_with("secret_key")
        || name == "apikey"
        || name == "key"
}

fn is_reference(text: &str) -> bool {
    references::Reference::parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde_json::json;

    use super::*;
    use crate::Layers;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("m.yaml"), &Layers::default()).expect("it is valid")
    }

    fn resolve(text: &str, environment: &Environment) -> Result<Value, ConfigErrors> {
        let config = config(text);
        let settings = config.effective("m", None)?;
        config.resolve("m", &settings, environment).map(|resolved| json!(resolved.settings))
    }

    #[test]
    fn replaces_references_in_texts() {
        let environment = [("HOME", "/home/me"), ("NAME", "value"), ("_2", "two")];
        let environment: Environment = environment.into_iter().collect();
        let check = |text: &str, expected: &str| {
            let text = format!("modules:\n  m:\n    k: [{{d: '{text}'}}]\n");
            let expected = json!({"k": [{"d": expected}]});
            assert_eq!(resolve(&text, &environment), Ok(expected), "{text}");
        };
        check("plain", "plain");
        check("~", "/home/me");
        check("~/x/y", "/home/me/x/y");
        check("~other/x", "~other/x");
        check("a ~/x", "a ~/x");
        check("${NAME}", "value");
        check("<${NAME}-${_2}>", "<value-two>");
        check("$NAME costs 5$", "$NAME costs 5$");
        check("$${NAME} $$", "${NAME} $");
        check("file:relative", "file:relative");
    }

    #[test]
    fn what_came_with_a_module_looks_nothing_up() {
        let environment: Environment =
            [("HOME", "/home/me"), ("KEY", "s3cret")].into_iter().collect();
        let config = config("modules:\n  m:\n    own: ${KEY}\n    map: {own: '${KEY}'}\n");
        for (text, place) in [
            ("a: ${KEY}\n", "1:4: a"),
            ("b: file:~/.ssh/id_ed25519\n", "1:4: b"),
            ("c: file:///etc/shadow\n", "1:4: c"),
            ("d: {e: [x, 'in $${A} ${KEY}']}\n", "1:12: d.e[1]"),
            // Also where the operator's own value lies above it.
            ("own: ${KEY}\n", "1:6: own"),
        ] {
            let errors = config.effective("m", Some(text)).expect_err(text).to_string();
            assert!(
                errors.starts_with(&format!("m/config.yaml:{place}: a module's own")),
                "{errors}"
            );
            assert!(crate::check_defaults(text, "m").is_err(), "{text}");
            assert!(!errors.contains("s3cret"));
        }
        let defaults = "home: ~/x\nplain: $${A} $$ file:x\nmap: {other: [b]}\n";
        let settings = config.effective("m", Some(defaults)).expect("it is valid");
        let resolved = config.resolve("m", &settings, &environment).expect("it is valid");
        let expected = json!({
            "home": "/home/me/x", "plain": "${A} $ file:x", "own": "s3cret",
            "map": {"own": "s3cret", "other": ["b"]},
        });
        assert_eq!(json!(resolved.settings), expected);
        // The second bolt: what was let through by mistake is not looked up all the same.
        let smuggled =
            json!({"x": "${KEY}", "map": {"own": "${KEY}"}, "file": "file:/etc/hostname"});
        let smuggled = smuggled.as_object().expect("it is a map");
        assert!(config.resolve("m", smuggled, &environment).is_err(), "x is not the operator's");
    }

    #[test]
    fn says_which_reference_leads_nowhere() {
        let check = |text: &str, expected: &str| {
            let text = format!("modules:\n  m:\n    one: 1\n    k: '{text}'\n");
            let errors = resolve(&text, &Environment::default()).expect_err("it leads nowhere");
            assert_eq!(errors.to_string(), format!("m.yaml:4:5: modules.m.k: {expected}"));
        };
        check(
            "${ABSENT}",
            "the environment variable ABSENT is not set; set it where lodestard is started",
        );
        check("${A", "holds `${` without `}`; write `$${` for the characters themselves");
        check(
            "${a b}",
            "holds `${…}` around something that is no variable's name; write `$${` for the \
             characters themselves",
        );
        check(
            "file:/absent",
            "the file /absent cannot be read: No such file or directory (os error 2)",
        );
        check("file:///dev/null", "the file /dev/null is not a regular file");
    }

    #[test]
    fn reads_secrets_from_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("secret");
        let text = format!("modules:\n  m:\n    k: file:{}\n", path.display());
        let check = |bytes: &[u8], mode: u32, expected: Result<&str, &str>, warns: bool| {
            fs::write(&path, bytes).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let config = config(&text);
            let settings = config.effective("m", None).expect("it is valid");
            assert_eq!(settings["k"], format!("file:{}", path.display()));
            match (config.resolve("m", &settings, &Environment::default()), expected) {
                (Ok(resolved), Ok(expected)) => {
                    assert_eq!(resolved.settings["k"], expected);
                    assert_eq!(!resolved.warnings.is_empty(), warns, "{:?}", resolved.warnings);
                }
                (Err(errors), Err(part)) => assert!(errors.to_string().contains(part), "{errors}"),
                (result, _) => panic!("{expected:?}: {result:?}"),
            }
        };
        check(b"s3cret\n", 0o600, Ok("s3cret"), false);
        check(b"s3cret\r\n", 0o640, Ok("s3cret"), false);
        check(b" a\nb \n\n", 0o644, Ok(" a\nb \n"), true);
        check(b"\n", 0o600, Err("is empty"), false);
        check(b"\xff", 0o600, Err("is not UTF-8 text"), false);
        check(&vec![b'x'; 65_537], 0o600, Err("is larger than 64 KiB"), false);
    }

    #[test]
    fn finds_a_secret_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("m.two"), "from systemd\n").expect("written");
        let place = directory.path().display().to_string();
        let environment: Environment =
            [("ONE", "from the environment"), ("CREDENTIALS_DIRECTORY", &place)]
                .into_iter()
                .collect();
        let config = config("modules:\n  m:\n    secrets: {one: '${ONE}', three: '${THREE}'}\n");
        let get = |name: &str| {
            config
                .secret("m", name, &environment)
                .map(|secret| secret.map(|secret| secret.expose().to_owned()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(get("one"), Ok(Some("from the environment".to_owned())));
        assert_eq!(get("two"), Ok(Some("from systemd".to_owned())));
        assert_eq!(get("four"), Ok(None));
        assert_eq!(get("../m.two"), Ok(None));
        let error = get("three").expect_err("it is not set");
        assert!(error.starts_with("m.yaml:3:30: modules.m.secrets.three: the env"), "{error}");
        let secret = config.secret("m", "one", &environment).expect("it is set");
        assert_eq!(format!("{secret:?}"), "Some([redacted])");
    }

    #[test]
    fn says_how_a_file_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("m.yaml");
        assert_eq!(open_to_others(&path), None, "it is not there");
        std::fs::write(&path, "modules: {}").expect("it is writable");
        for (mode, closing) in [(0o600, None), (0o640, Some("go-r")), (0o644, Some("go-r"))] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("it is ours");
            assert_eq!(open_to_others(&path), closing, "{mode:o}");
        }
    }

    #[test]
    fn keeps_secrets_out_of_what_is_shown() {
        let config = config(
            "modules:\n  m:\n    api_keys: {shop: abc, bank: 'file:/k'}\n    token: ${T}\n    \
             password: xyz\n    max_tokens: 5\n    keys: [a]\n    \
             redis: 'redis://me:pw@host:1/2'\n    other: 'redis://me:${P}@host'\n    \
             plain: 'http://host/a:b@c'\n",
        );
        let settings = config.effective("m", None).expect("it is valid");
        assert_eq!(
            json!(redacted(&settings)),
            json!({
                "api_keys": {"shop": "[redacted]", "bank": "file:/k"}, "token": "${T}",
                "password": "[redacted]", "max_tokens": 5, "keys": ["a"],
                "redis": "redis://me:[redacted]@host:1/2", "other": "redis://me:${P}@host",
                "plain": "http://host/a:b@c",
            })
        );
        for open in [None, Some("o-r")] {
            let found = literal_secrets(&config, open);
            let keys: Vec<_> = found.iter().map(|found| found.key.as_str()).collect();
            let expected = ["modules.m.api_keys.shop", "modules.m.password", "modules.m.redis"];
            assert_eq!(keys, expected);
            let remedy = |found: &ConfigError| found.hint.contains("`chmod o-r m.yaml`");
            assert!(found.iter().all(|found| remedy(found) == open.is_some()), "{found:?}");
        }
    }
}
