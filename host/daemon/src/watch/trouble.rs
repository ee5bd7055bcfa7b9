//! The reason why the system gives no watcher, in words.

use std::{fs::File, path::Path};

use lodestar_platform::Trouble;
use lodestar_platform::files;
use notify::{Error, ErrorKind};
use rustix::io::Errno;

use super::LOOK_EVERY;

/// Describes an error of a watcher, and what helps.
pub(super) fn of(error: &Error) -> Trouble {
    let (what, remedy) = match limit_of(error) {
        Some((limit, least)) => {
            let now = files::read_text(&Path::new("/proc/sys/fs/inotify").join(limit)).ok();
            let now = now.and_then(|text| text.trim().parse::<u64>().ok());
            let more = now.unwrap_or_default().saturating_mul(2).max(least);
            let now = now.map(|now| format!(", which is {now}")).unwrap_or_default();
            let what = format!("this user has used up fs.inotify.{limit}{now}");
            let remedy = format!(
                "run `sysctl fs.inotify.{limit}={more}`, and write it into a file in /etc/sysctl.d"
            );
            (what, remedy)
        }
        None if File::open("/dev/null").is_err() => {
            let remedy =
                "give lodestard more descriptors: `ulimit -n`, or LimitNOFILE= in its unit";
            ("no descriptor is free".to_owned(), remedy.to_owned())
        }
        None => {
            let remedy = "without a watcher `lodestar config check` and SIGHUP help to be quick";
            (error.to_string(), remedy.to_owned())
        }
    };
    let message = format!(
        "{what}: changes of the configuration and of libraries are not told, and lodestard looks \
         for them every {} s",
        LOOK_EVERY.as_secs()
    );
    (message, remedy)
}

/// Returns the limit that was reached, and a value that is enough for most.
fn limit_of(error: &Error) -> Option<(&'static str, u64)> {
    match &error.kind {
        ErrorKind::MaxFilesWatch => Some(("max_user_watches", 524_288)),
        ErrorKind::Io(error)
            if error.raw_os_error() == Some(Errno::MFILE.raw_os_error())
                && File::open("/dev/null").is_ok() =>
        {
            Some(("max_user_instances", 1_024))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_limit_and_a_value() {
        let check = |error: Error, limit: &str| {
            let (message, remedy) = of(&error);
            assert!(message.contains(&format!("fs.inotify.{limit}")), "{message}");
            assert!(message.ends_with("every 30 s"), "{message}");
            assert!(remedy.contains(&format!("`sysctl fs.inotify.{limit}=")), "{remedy}");
        };
        check(Error::new(ErrorKind::MaxFilesWatch), "max_user_watches");
        let no_instance = std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        check(Error::io(no_instance), "max_user_instances");
        let (message, _) = of(&Error::generic("the system has no inotify"));
        assert!(message.starts_with("the system has no inotify: "), "{message}");
    }
}
