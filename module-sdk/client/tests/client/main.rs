//! The client against servers that are slow, large, wrong or hostile.

mod server;
mod tls;

use std::time::Duration;

use module_http_client::{Answer, Client, ClientError, Header, Policy, Refusal, Request};
use module_sdk::Secret;
use server::Server;

/// Limit of bytes of the requests here.
const MAX: usize = 64 * 1_024;

fn client() -> Client {
    Client::new(Policy { local: true, ..Policy::default() })
}

fn request(url: String) -> Request {
    Request { deadline: Duration::from_secs(20), max_bytes: MAX, ..Request::get(url) }
}

async fn send(request: Request) -> Result<Answer, ClientError> {
    client().send(request).await
}

#[tokio::test]
async fn an_answer_is_whole_and_timed() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         content-type: Application/JSON; charset=utf-8\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    let answer = send(request(server.url("/v1/models"))).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(answer.content_type(), "application/json");
    assert_eq!(answer.date.map(|it| it.to_string()).as_deref(), Some("1994-11-06T08:49:37Z"));
    assert!(answer.elapsed > Duration::ZERO && answer.certificate_expires_at.is_none());
    let seen = server.requests().remove(0);
    assert!(seen.starts_with("GET /v1/models HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("user-agent: lodestar/"), "{seen}");
}

#[tokio::test]
async fn a_body_and_headers_are_sent() {
    let server = Server::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let secret: Secret = serde_json::from_str("\"sk-canary\"").expect("a secret");
    let mut post = Request::post(server.url("/hook"), "application/json", "{\"a\":1}");
    post.headers.push(Header::bearer(&secret));
    send(post).await.expect("an answer");
    let seen = server.requests().remove(0);
    assert!(seen.contains("authorization: Bearer sk-canary\r\n"), "{seen}");
    assert!(seen.contains("content-type: application/json\r\n"), "{seen}");
    assert!(seen.ends_with("{\"a\":1}"), "{seen}");
}

#[tokio::test]
async fn what_hangs_ends_at_its_deadline() {
    let deadline = Duration::from_millis(200);
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    for server in [Server::hanging().await, Server::hanging_after(head).await] {
        let error = send(Request { deadline, ..request(server.url("/")) }).await;
        assert_eq!(error.expect_err("it hangs"), ClientError::Timeout(deadline));
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read() {
    let said = "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n";
    let unsaid = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(MAX + 1));
    for text in [said, &unsaid] {
        let server = Server::hanging_after(text).await;
        let error = send(request(server.url("/"))).await.expect_err("it is too large");
        assert_eq!(error, ClientError::TooLarge(MAX));
    }
}

#[tokio::test]
async fn redirects_stay_at_their_origin() {
    let other = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let to = |status: u16, location: &str| {
        format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    };
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned();

    let server = Server::answering_each([to(302, "/there"), ok.clone()]).await;
    let answer = send(request(server.url("/here"))).await.expect("it is followed");
    assert_eq!(answer.body, b"ok");
    assert!(server.requests()[1].starts_with("GET /there "), "{:?}", server.requests());

    for (location, host) in [
        (other.url("/"), "http://127.0.0.1"),
        ("https://a.example/x?key=sk-canary".to_owned(), "https://a.example"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "http://169.254.169.254"),
        ("file:///etc/passwd".to_owned(), "file://no host"),
    ] {
        let server = Server::answering(&to(307, &location)).await;
        let error = send(request(server.url("/"))).await.expect_err("it is not followed");
        assert_eq!(error, ClientError::Redirect(host.to_owned()));
    }
    assert!(other.requests().is_empty(), "nothing was sent to the other origin");

    // What was to be sent does not turn into a question.
    let server = Server::answering(&to(302, "/there")).await;
    let post = Request::post(server.url("/hook"), "text/plain", "text");
    assert!(matches!(send(post).await, Err(ClientError::Redirect(_))));
    assert_eq!(server.requests().len(), 1);

    let server = Server::answering(&to(302, "/")).await;
    let error = send(request(server.url("/"))).await.expect_err("it goes round");
    assert!(matches!(error, ClientError::Redirect(_)), "{error}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn names_are_checked_where_they_lead() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let url = format!("http://localhost:{}/", server.port());
    send(request(url.clone())).await.expect("local names may be reached");
    let error = Client::new(Policy::default()).send(request(url)).await;
    assert_eq!(
        error.expect_err("they may not"),
        ClientError::Refused { host: "localhost".to_owned(), refusal: Refusal::Private }
    );
    assert_eq!(server.requests().len(), 1);
    let error = send(request("http://nowhere.invalid/".to_owned())).await.expect_err("no address");
    assert_eq!(error.reason(), "dns", "{error}");
}

#[tokio::test]
async fn no_answer_has_a_reason() {
    let closed = Server::closed_port().await;
    let error = send(request(format!("http://127.0.0.1:{closed}/"))).await.expect_err("no server");
    assert_eq!(error, ClientError::Connect("connection refused".to_owned()));
    for text in ["SSH-2.0-OpenSSH_9.2\r\n", "", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"] {
        let server = Server::answering(text).await;
        let error = send(request(server.url("/"))).await.expect_err("it is no HTTP");
        assert_eq!(error.reason(), "protocol", "{text:?}: {error}");
    }
    for url in ["", "localhost:11434", "http://", "http://a.example:port/"] {
        let error = send(request(url.to_owned())).await.expect_err("no URL");
        assert_eq!(error.reason(), "url", "{url}: {error}");
    }
}
