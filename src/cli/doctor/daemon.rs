//! Check of the daemon that listens at `server.bind`, if there is one: whether it is ready.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Check, in_time};
use crate::config::Config;

const NAME: &str = "daemon";

/// Asked in HTTP/1.0, so that the answer comes in one piece and ends with the connection.
const REQUEST: &[u8] =
    b"GET /readyz HTTP/1.0\r\nhost: localhost\r\nuser-agent: rescind-doctor\r\n\r\n";

/// Maximum size of the answer in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Answer to the question whether the daemon is ready.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Reason, as the daemon gives it.
    NotReady(String),
}

/// Body of an answer of Rescind.
#[derive(Deserialize)]
struct Body {
    status: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

/// Asks whoever listens at `server.bind` whether it is ready. A proxy that the environment names is not used: the
/// daemon is on this machine.
pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let bind = config.server.bind;
    if bind.port() == 0 {
        // A free one was taken, which is known to the daemon only.
        return Vec::new();
    }
    let Some(Ok(stream)) = in_time(TcpStream::connect(reachable(bind))).await else {
        let message = format!("nothing listens at {bind}: `rescind serve` does not run here");
        return vec![Check::ok(NAME, message)];
    };
    let answer = match in_time(ask(stream)).await {
        Some(Ok(answer)) => readiness(&answer),
        Some(Err(_)) => None,
        None => {
            let message = format!("what listens at {bind} gives no answer within 10 s");
            let mend = "if it is `rescind serve`, it takes no reports: its log says what it waits for, and one that was \
                        stopped (`ps` shows T) goes on with `kill -CONT`; if not, `serve` cannot listen there: set \
                        server.bind to another address";
            return vec![Check::failed(NAME, message, mend)];
        }
    };
    vec![match answer {
        Some(Readiness::Ready) => Check::ok(NAME, format!("the daemon at {bind} is ready")),
        Some(Readiness::NotReady(why)) => {
            let message = format!("the daemon at {bind} is not ready: {why}");
            let mend =
                "its log names the cause; docs/operations.md tells what to do, by what is seen";
            Check::failed(NAME, message, mend)
        }
        None => {
            let message = format!("what listens at {bind} is not `rescind serve`");
            let mend = "stop that program, or set server.bind to another address: `serve` cannot listen there";
            Check::warning(NAME, message, mend)
        }
    }]
}

/// Returns an address at which this machine reaches what listens at `bind`.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

async fn ask(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Returns what an answer says, or `None` if it is not one of Rescind's: ours repeat the code of an error in a header,
/// and say that all is well in one way only.
fn readiness(answer: &[u8]) -> Option<Readiness> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |name: &str| {
        let mut found = headers.iter();
        let found = found.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(found.1.trim())
    };
    let body: Body = serde_json::from_str(body).ok()?;
    if status == "200" {
        let is_ours = body.status.as_deref() == Some("ok")
            && header("x-content-type-options") == Some("nosniff")
            && header("cache-control") == Some("no-store");
        return is_ours.then_some(Readiness::Ready);
    }
    let code = header("x-stack-known-error").filter(|code| body.code.as_deref() == Some(code));
    let code = code.filter(|code| header("x-hexclave-known-error") == Some(code));
    code.and(body.error).map(Readiness::NotReady)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_rescind_is_believed() {
        let ready = "HTTP/1.0 200 OK\r\nX-Content-Type-Options: nosniff\r\ncache-control: no-store\r\n\r\n\
                     {\"status\":\"ok\"}";
        let not_ready = "HTTP/1.0 503 Service Unavailable\r\nx-stack-known-error: SERVICE_UNAVAILABLE\r\n\
                         x-hexclave-known-error: SERVICE_UNAVAILABLE\r\n\r\n\
                         {\"code\":\"SERVICE_UNAVAILABLE\",\"error\":\"Full.\"}";
        let said = |text: &str| readiness(text.as_bytes());
        assert_eq!(said(ready), Some(Readiness::Ready));
        let full = Readiness::NotReady("Full.".to_owned());
        assert_eq!(said(not_ready), Some(full));
        for other in [
            "",
            "SSH-2.0-OpenSSH_9.9\r\n",
            &ready.replace("\"ok\"", "\"up\""),
            &ready.replace("nosniff", "sniff"),
            &not_ready.replace("\"code\":\"S", "\"code\":\"T"),
            &not_ready.replace("x-stack", "x-other"),
            "HTTP/1.1 503 Service Unavailable\r\n\r\n<html>",
        ] {
            assert_eq!(said(other), None, "{other}");
        }
    }

    #[test]
    fn every_address_of_this_machine_is_reached_at_the_local_one() {
        let reached = |bind: &str| reachable(bind.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:8787"), "127.0.0.1:8787");
        assert_eq!(reached("[::]:8787"), "[::1]:8787");
        assert_eq!(reached("10.0.0.7:80"), "10.0.0.7:80");
    }
}
