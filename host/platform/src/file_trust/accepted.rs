//! Accounts that the operator accepts as writers, by `--trust-files`.

use std::{fmt, str::FromStr, sync::OnceLock};

use crate::accounts;

static ACCEPTED: OnceLock<Accepted> = OnceLock::new();

/// Additional accounts that may write files that decide what the daemon runs. They cannot be set in
/// `modules.yaml`, which is checked by the same rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    pub(super) everyone: bool,
    pub(super) owners: Vec<u32>,
    pub(super) groups: Vec<u32>,
}

impl Accepted {
    /// Sets the accepted accounts of this process. Only the first call has an effect.
    pub fn apply(self) {
        let _ = ACCEPTED.set(self);
    }

    /// Returns the accepted accounts of this process.
    #[must_use]
    pub fn current() -> Self {
        ACCEPTED.get().cloned().unwrap_or_default()
    }

    /// Returns whether no account is accepted.
    #[must_use]
    pub const fn is_nobody(&self) -> bool {
        !self.everyone && self.owners.is_empty() && self.groups.is_empty()
    }

    /// Returns the accounts of both sets.
    #[must_use]
    pub(super) fn and(mut self, other: Self) -> Self {
        self.everyone |= other.everyone;
        self.owners.extend(other.owners);
        self.groups.extend(other.groups);
        for numbers in [&mut self.owners, &mut self.groups] {
            numbers.sort_unstable();
            numbers.dedup();
        }
        self
    }
}

/// Reason for a list of accepted accounts being invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptedError {
    /// No user has this name.
    #[error("there is no user {0:?}; give a name of /etc/passwd or a number")]
    NoUser(String),
    /// No group has this name.
    #[error("there is no group {0:?}; give a name of /etc/group or a number")]
    NoGroup(String),
    /// A part of the list is unknown.
    #[error("{0:?} is none of owner:USER, group:GROUP and everyone, separated by commas")]
    Unknown(String),
}

impl FromStr for Accepted {
    type Err = AcceptedError;

    fn from_str(text: &str) -> Result<Self, AcceptedError> {
        let mut accepted = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.split_once(':') {
                None if word == "everyone" => accepted.everyone = true,
                Some(("owner", user)) => {
                    let number = user.parse().ok().or_else(|| accounts::user_number(user));
                    let number = number.ok_or_else(|| AcceptedError::NoUser(user.to_owned()));
                    accepted.owners.push(number?);
                }
                Some(("group", group)) => {
                    let number = group.parse().ok().or_else(|| accounts::group_number(group));
                    let number = number.ok_or_else(|| AcceptedError::NoGroup(group.to_owned()));
                    accepted.groups.push(number?);
                }
                _ => return Err(AcceptedError::Unknown(word.to_owned())),
            }
        }
        Ok(accepted)
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = self.owners.iter().map(|it| format!("owner:{it}"));
        let groups = self.groups.iter().map(|it| format!("group:{it}"));
        let everyone = self.everyone.then(|| "everyone".to_owned());
        f.write_str(&owners.chain(groups).chain(everyone).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_it_is_read() {
        for text in ["", "owner:1000", "owner:1000,group:50,group:2000", "everyone"] {
            let accepted: Accepted = text.parse().expect("it is right");
            assert_eq!(accepted.to_string(), text);
            assert_eq!(accepted.is_nobody(), text.is_empty());
        }
        let named: Accepted = " owner:root, group:root,".parse().expect("they are everywhere");
        assert_eq!(named.to_string(), "owner:0,group:0");
        let more = named.and("owner:0,owner:7".parse().expect("it is right"));
        assert_eq!(more.to_string(), "owner:0,owner:7,group:0");
        let word = |text: &str| text.to_owned();
        for (text, error) in [
            ("all", AcceptedError::Unknown(word("all"))),
            ("owner", AcceptedError::Unknown(word("owner"))),
            ("mode:777", AcceptedError::Unknown(word("mode:777"))),
            ("owner:", AcceptedError::NoUser(word(""))),
            ("everyone,owner:-1", AcceptedError::NoUser(word("-1"))),
            ("group:no such", AcceptedError::NoGroup(word("no such"))),
        ] {
            assert_eq!(text.parse::<Accepted>(), Err(error), "{text}");
        }
    }
}
