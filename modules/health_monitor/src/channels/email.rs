//! Mail by SMTP.

use std::{error::Error as _, io, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
        extension::ClientId,
    },
};
use module_sdk::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Channel, ChannelError, Envelope, SendError, Sending, deadline};
use crate::{
    notify::{note::clean, options::RouteOptions},
    quantity::Span,
    text::visible,
};

/// Settings of a channel by mail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmailOptions {
    /// Settings that every channel has.
    #[serde(flatten)]
    pub route: RouteOptions,
    /// Name of the mail server.
    pub host: String,
    /// Port. Default: 587 for `starttls`, 465 for `tls`, 25 for `none`.
    pub port: Option<u16>,
    /// Encryption.
    pub tls: Encryption,
    /// Name of the account, where the server wants one.
    pub username: Option<String>,
    /// Its password: `${NAME}` or `file:/path`.
    #[schemars(with = "Option<String>")]
    pub password: Option<Secret>,
    /// Sender: `Lodestar <lodestar@example.org>`.
    pub from: String,
    /// Receivers.
    pub to: Vec<String>,
    /// Time within which the server has to take the mail.
    pub deadline: Span,
}

/// Encryption of the way to the mail server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Encryption after a greeting; a server that does not offer it gets no mail.
    #[default]
    Starttls,
    /// Encryption from the beginning.
    Tls,
    /// None, for a server on this machine.
    None,
}

impl Default for EmailOptions {
    fn default() -> Self {
        Self {
            route: RouteOptions::default(),
            host: String::new(),
            port: None,
            tls: Encryption::default(),
            username: None,
            password: None,
            from: String::new(),
            to: Vec::new(),
            deadline: Span::of_seconds(30),
        }
    }
}

pub(super) struct Email {
    host: String,
    port: u16,
    tls: Encryption,
    credentials: Option<Credentials>,
    from: Mailbox,
    to: Vec<Mailbox>,
    deadline: Duration,
}

/// Receivers at most.
const RECEIVERS: usize = 20;

impl Email {
    pub(super) fn new(options: &EmailOptions) -> Result<Self, ChannelError> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        if options.host.is_empty() || !options.host.chars().all(is_host) {
            return Err(ChannelError::new("host", "must be the name of a mail server"));
        }
        let mailbox = |key, text: &str| {
            let error = |_| ChannelError::new(key, "is no address: `Name <name@example.org>`");
            text.parse::<Mailbox>().map_err(error)
        };
        if options.to.is_empty() || options.to.len() > RECEIVERS {
            return Err(ChannelError::new("to", "must name 1 to 20 receivers"));
        }
        let credentials = match (&options.username, &options.password) {
            (Some(name), Some(password)) => {
                Some(Credentials::new(name.clone(), password.expose().to_owned()))
            }
            (None, None) => None,
            (Some(_), None) => return Err(ChannelError::new("password", "is missing")),
            (None, Some(_)) => return Err(ChannelError::new("username", "is missing")),
        };
        let is_here = matches!(options.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        if credentials.is_some() && options.tls == Encryption::None && !is_here {
            let message = "would send the password without encryption; write `starttls` or `tls`";
            return Err(ChannelError::new("tls", message));
        }
        let usual = match options.tls {
            Encryption::Starttls => 587,
            Encryption::Tls => 465,
            Encryption::None => 25,
        };
        Ok(Self {
            host: options.host.clone(),
            port: options.port.unwrap_or(usual),
            tls: options.tls,
            credentials,
            from: mailbox("from", &options.from)?,
            to: options.to.iter().map(|text| mailbox("to", text)).collect::<Result<_, _>>()?,
            deadline: deadline(options.deadline)?,
        })
    }

    fn message(&self, envelope: &Envelope) -> Result<Message, SendError> {
        let note = &envelope.note;
        let mut text = note.lines().join("\r\n");
        text.push_str("\r\n\r\n`lodestar health` shows how things are now.\r\n");
        let domain = self.from.email.domain();
        let message = Message::builder()
            .from(self.from.clone())
            // A server that is given the same mail again knows it by its id.
            .message_id(Some(format!("<{}@{domain}>", envelope.id)))
            // No line break gets into a header: the subject is one line by itself.
            .subject(clean(&note.title()))
            .header(ContentType::TEXT_PLAIN);
        let message = self.to.iter().fold(message, |message, to| message.to(to.clone()));
        message.body(text).map_err(|error| SendError::Mail(visible(&error.to_string())))
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, SendError> {
        let parameters = || TlsParameters::new(self.host.clone()).map_err(|error| mail(&error));
        let tls = match self.tls {
            Encryption::Starttls => Tls::Required(parameters()?),
            Encryption::Tls => Tls::Wrapper(parameters()?),
            Encryption::None => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .hello_name(ClientId::Domain("lodestar".to_owned()))
            .timeout(Some(self.deadline));
        if let Some(credentials) = &self.credentials {
            transport = transport.credentials(credentials.clone());
        }
        Ok(transport.build())
    }
}

impl Channel for Email {
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a> {
        Box::pin(async move {
            let message = self.message(envelope)?;
            let transport = self.transport()?;
            let sent = tokio::time::timeout(self.deadline, transport.send(message)).await;
            let sent = sent.map_err(|_| SendError::Late(self.deadline))?;
            sent.map(drop).map_err(|error| mail(&error))
        })
    }
}

/// Returns what went wrong. The words of the server may repeat the mail or the account, so they are
/// left out.
fn mail(error: &lettre::transport::smtp::Error) -> SendError {
    let kind = match error.status() {
        Some(code) => {
            let refused = format!("the mail server answers {code}");
            // These are about the mail, not about the account or the server.
            return match code.to_string().as_str() {
                "552" | "554" => SendError::Refused(refused),
                _ => SendError::Mail(refused),
            };
        }
        None if error.is_tls() || is_about_encryption(error) => {
            "bad certificate or encryption of the mail server"
        }
        None if error.is_timeout() => "no answer of the mail server",
        None if error.is_response() => "the mail server does not speak SMTP",
        None if error.is_client() => {
            "the mail server does not offer the encryption or the sign-in that is asked for"
        }
        None => "no connection to the mail server",
    };
    SendError::Mail(kind.to_owned())
}

/// Returns whether a connection failed because of its encryption: the library does not say.
fn is_about_encryption(error: &lettre::transport::smtp::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let io_error = error.downcast_ref::<io::Error>();
        if io_error.is_some_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::notify::note::{
        Kind, News, Note,
        tests::{item, subject},
    };

    fn options(mut json: Value) -> EmailOptions {
        let usual = json!({
            "host": "mail.example", "from": "Lodestar <lodestar@a.example>", "to": ["b@b.example"],
        });
        for (key, value) in usual.as_object().expect("it is an object") {
            json.as_object_mut().expect("it is one").entry(key).or_insert_with(|| value.clone());
        }
        serde_json::from_value(json).expect("it has the form")
    }

    #[test]
    fn no_header_can_be_put_in() {
        let email =
            Email::new(&options(json!({}))).map_err(|error| error.key).expect("it is valid");
        let component = "model.x\r\nBcc: all@evil.example\r\n\r\nhello";
        let items = vec![item(News::Firing, subject("a", component, "critical"))];
        let at = "2026-11-20T10:10:00Z".parse().expect("a time");
        let note = Note::new(Kind::Alerts, at, items);
        let envelope = Envelope { id: "0123".to_owned(), note };
        let message = email.message(&envelope).expect("it is a mail").formatted();
        let message = String::from_utf8(message).expect("it is text");
        assert!(!message.contains("\nBcc:"), "{message}");
        assert!(message.contains("Message-ID: <0123@a.example>\r\n"), "{message}");
        let (headers, _) = message.split_once("\r\n\r\n").expect("it has a body");
        assert!(headers.contains("Subject: Lodestar: CRITICAL: model.x"), "{headers}");
    }

    #[test]
    fn what_cannot_be_a_mail_is_named() {
        let check = |json: Value, key: &str| {
            let error = Email::new(&options(json)).err().expect("it is refused");
            assert_eq!(error.key, key);
            assert!(!error.to_string().contains("canary"), "{error}");
        };
        check(json!({"host": ""}), "host");
        check(json!({"host": "smtp://u:canary@x"}), "host");
        check(json!({"from": "canary"}), "from");
        check(json!({"from": "a@b.example\r\nBcc: canary@x"}), "from");
        check(json!({"to": []}), "to");
        check(json!({"to": ["canary"]}), "to");
        check(json!({"username": "me"}), "password");
        check(json!({"password": "canary"}), "username");
        check(json!({"username": "me", "password": "canary", "tls": "none"}), "tls");
    }
}
