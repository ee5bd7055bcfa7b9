//! Preparation of what one module gets from the configuration: its settings with all references
//! resolved, and the grant of its data and permissions.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, OnceLock},
};

use lodestar_config::{Config, ConfigError, ConfigErrors, given_address, names_secret};
use lodestar_library::{
    Package,
    install::{Keys, Lock},
};
use lodestar_platform::file_trust;
use module_sdk::manifest::{ListenerSection, Manifest};
use serde_json::{Map, Value, json};

use super::{Daemon, data_dirs::make_data_dir, isolation::was_installed};
use crate::{
    args::Places,
    logging::Redactor,
    module::{Bounds, Configure, ConfigureError, Configured, Grant, Operate, SecretError},
};

type Explain = Box<dyn Fn(&str) -> String + Send>;

/// Defaults of a generation: from the file that was admitted with its library, even if that file
/// has changed since.
pub(super) type Defaults = Arc<OnceLock<Option<String>>>;

/// Returns a function that prepares the configuration of a module, once its manifest is known.
pub(super) fn configure(daemon: Arc<Daemon>, config: Arc<Config>, defaults: Defaults) -> Configure {
    Arc::new(move |manifest, path| {
        let name = &manifest.module.name;
        if defaults.get().is_none() {
            let read = Package::of(path, name).defaults()?;
            let _ = defaults.set(read);
        }
        let defaults = defaults.get().and_then(|defaults| defaults.as_deref());
        let settings = settings(&daemon, &config, name, defaults)?;
        let data_dir = make_data_dir(&daemon, name)
            .map_err(|error| ConfigureError::NoDirectory(daemon.data_dir(name), error))?;
        if let Some(exposed) = file_trust::on_the_way(&data_dir, file_trust::Also::OwnGroup) {
            return Err(ConfigureError::OpenDirectory(exposed));
        }
        let grant = Grant {
            addresses: addresses(&config, manifest, &settings, defaults)?,
            secrets: secrets(&daemon, &config, manifest),
            providers: providers(&daemon, &config, manifest, path),
            operate: operate(&daemon, &config, manifest, path),
            manifest: manifest.clone(),
            data_dir,
        };
        let bounds = bounds(&daemon, &config, name)?;
        let config = serde_json::to_vec(&settings)?;
        Ok(Configured { config, grant, bounds })
    })
}

/// Returns the limits on the paths that may be opened to the process of a module. The paths come
/// from the operator alone: a module that was installed must not choose them in the `config.yaml`
/// that it brings.
fn bounds(daemon: &Daemon, config: &Config, module: &str) -> Result<Bounds, ConfigErrors> {
    let given = config.effective(module, None)?;
    let given = config.resolve(module, &given, &daemon.configuration.layers.environment)?.settings;
    let Places { config, state_dir, .. } = &daemon.places;
    let keys = Keys::beside(config).directory().to_owned();
    Ok(Bounds { given, closed: vec![state_dir.clone(), config.clone(), keys] })
}

/// Returns a function that formats a report of a module's own validation, with the place in the
/// file.
pub(super) fn explain(config: Arc<Config>, module: &str, defaults: Defaults) -> Explain {
    let module = module.to_owned();
    Box::new(move |report| {
        let defaults = defaults.get().and_then(|defaults| defaults.as_deref());
        config.explain_with(&module, report, defaults).to_string()
    })
}

/// Returns the settings of a module, with all references resolved. Secrets among them are kept out
/// of the log from now on.
pub(super) fn settings(
    daemon: &Daemon,
    config: &Config,
    module: &str,
    defaults: Option<&str>,
) -> Result<Map<String, Value>, ConfigErrors> {
    let environment = &daemon.configuration.layers.environment;
    let written = config.effective(module, defaults)?;
    let resolved = config.resolve(module, &written, environment)?;
    for warning in &resolved.warnings {
        tracing::warn!(module, %warning, "a secret is open to others");
    }
    let resolved = resolved.settings;
    let redactor = &*daemon.logging.redactor;
    for (key, value) in &written {
        let resolved = resolved.get(key).unwrap_or(&Value::Null);
        learn_secrets(redactor, names_secret(key), value, resolved);
    }
    Ok(resolved)
}

/// Adds the resolved values to the redactor. The value of every reference is kept out of messages.
/// A value under the name of a secret that is no path counts as a secret, and is kept out of data
/// too; a name that stands elsewhere (`project: ${PROJECT}`) must not vanish from data.
fn learn_secrets(redactor: &Redactor, secret: bool, written: &Value, resolved: &Value) {
    match (written, resolved) {
        (Value::String(written), Value::String(resolved))
            if (secret && !written.starts_with(['/', '~']))
                || (written != resolved && !written.starts_with('~')) =>
        {
            match secret {
                true => redactor.learn_secret(resolved),
                false => redactor.learn(resolved),
            }
        }
        (Value::Object(written), Value::Object(resolved)) => {
            for (key, value) in written {
                let resolved = resolved.get(key).unwrap_or(&Value::Null);
                learn_secrets(redactor, secret || names_secret(key), value, resolved);
            }
        }
        (Value::Array(written), Value::Array(resolved)) => {
            for (written, resolved) in written.iter().zip(resolved) {
                learn_secrets(redactor, secret, written, resolved);
            }
        }
        _ => {}
    }
}

fn addresses(
    config: &Config,
    manifest: &Manifest,
    settings: &Map<String, Value>,
    defaults: Option<&str>,
) -> Result<HashMap<String, String>, ConfigError> {
    let (module, listeners) = (&manifest.module.name, &manifest.listeners);
    let wrong = config.wrong_addresses(module, listeners, settings, defaults);
    if let Some(error) = wrong.into_iter().next() {
        return Err(error);
    }
    let address = |listener: &ListenerSection| {
        let given = given_address(listener, settings).and_then(Value::as_str);
        (listener.name.clone(), given.unwrap_or(&listener.default).to_owned())
    };
    Ok(manifest.listeners.iter().map(address).collect())
}

fn secrets(
    daemon: &Daemon,
    config: &Config,
    manifest: &Manifest,
) -> HashMap<String, Result<String, SecretError>> {
    let module = &manifest.module.name;
    let fetch = |name: &String| {
        let secret = config
            .secret(module, name, &daemon.configuration.layers.environment)
            .map_err(SecretError::from)
            .and_then(|secret| {
                secret.ok_or_else(|| SecretError::NotGiven {
                    name: name.clone(),
                    module: module.clone(),
                })
            })
            .map(|secret| secret.expose().to_owned());
        if let Ok(secret) = &secret {
            daemon.logging.redactor.learn_secret(secret);
        }
        (name.clone(), secret)
    };
    manifest.capabilities.secrets.iter().map(fetch).collect()
}

/// Returns the providers, if the module in `library` declares that it needs them; else null.
fn providers(daemon: &Daemon, config: &Config, manifest: &Manifest, library: &Path) -> Value {
    if !manifest.capabilities.providers {
        return Value::Null;
    }
    let with_keys = gets_keys(daemon, config, &Package::of(library, &manifest.module.name));
    let providers = config.providers.iter().map(|provider| {
        let key = provider.key.as_ref().filter(|_| with_keys).and_then(|key| {
            let fetched = key.resolve(&daemon.configuration.layers.environment).ok()?;
            let key = fetched.secret.expose().to_owned();
            daemon.logging.redactor.learn_secret(&key);
            Some(key)
        });
        let facts = json!({
            "base_url": provider.base_url,
            "api": provider.api,
            // As modules know it that were built before `api` was.
            "dialect": provider.api,
            "local": provider.local,
            "key": key,
            "models": provider.models,
        });
        (provider.id.clone(), facts)
    });
    Value::Object(providers.collect())
}

/// Returns whether a module gets the keys of the providers: as its section says; without that,
/// unless the module was installed. An installed module cannot grant itself secrets by its
/// manifest.
fn gets_keys(daemon: &Daemon, config: &Config, package: &Package) -> bool {
    let module = &package.name;
    if let Some(given) = config.module(module).and_then(|section| section.provider_keys) {
        return given;
    }
    // Where a lock cannot be read, what lies in the place of installed modules is one of them.
    let lock = Lock::read(&daemon.places.state_dir).unwrap_or_default();
    let installed = was_installed(daemon, package, &lock);
    if installed && config.providers.iter().any(|provider| provider.key.is_some()) {
        let remedy = "write `provider_keys: true` into its section if it may have them";
        tracing::warn!(module, remedy, "it is told the providers without their keys");
    }
    !installed
}

/// Returns whether the module in `library` may change the daemon, if it asks for that. One that was
/// installed needs it confirmed in its section.
fn operate(daemon: &Daemon, config: &Config, manifest: &Manifest, library: &Path) -> Operate {
    let name = &manifest.module.name;
    if manifest.capabilities.control.is_none()
        || config.module(name).is_some_and(|section| section.control.is_some())
    {
        return Operate::Allowed;
    }
    // Where a lock cannot be read, what lies in the place of installed modules is one of them.
    let lock = Lock::read(&daemon.places.state_dir).unwrap_or_default();
    let installed = was_installed(daemon, &Package::of(library, name), &lock);
    if installed { Operate::Unconfirmed } else { Operate::Allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_secrets_of_a_section() {
        let check = |written: Value, resolved: Value, text: &str, expected: &str| {
            let redactor = Redactor::new();
            learn_secrets(&redactor, false, &written, &resolved);
            assert_eq!(redactor.redact(text), expected, "{written}");
        };
        let same = |written: Value, text, expected| check(written.clone(), written, text, expected);
        let words = "a correct horse";
        check(json!({"a": "${B}"}), json!({"a": "correct horse"}), words, "a [redacted]");
        check(json!(["${B}"]), json!(["correct horse"]), words, "a [redacted]");
        check(json!({"a": "~/b"}), json!({"a": "/home/b"}), "no /home/b", "no /home/b");
        same(json!({"a": "correct horse"}), words, words);
        same(json!({"token": "correct horse"}), words, "a [redacted]");
        same(json!({"api_keys": {"shop": ["correct horse"]}}), words, "a [redacted]");
        same(json!({"token_file": "/run/token"}), "no /run/token", "no /run/token");
        same(json!({"max_tokens": 1_000_000}), "1000000", "1000000");
    }

    #[test]
    fn only_secrets_are_kept_out_of_data() {
        let check = |written: Value, resolved: Value, text: &str, expected: &str| {
            let redactor = Redactor::new();
            learn_secrets(&redactor, false, &written, &resolved);
            assert_eq!(redactor.redact_name(text), expected, "{written}");
        };
        let words = "correct-horse-battery";
        check(json!({"project": "${P}"}), json!({"project": "billing"}), "billing", "billing");
        check(json!({"project": "${P}"}), json!({"project": words}), words, words);
        check(json!({"token": "${T}"}), json!({"token": words}), words, "[redacted]");
        check(
            json!({"password": "postgres"}),
            json!({"password": "postgres"}),
            "postgres",
            "postgres",
        );
        check(json!({"tokens": [words]}), json!({"tokens": [words]}), words, words);
        check(json!({"api_keys": [words]}), json!({"api_keys": [words]}), words, "[redacted]");
    }
}
