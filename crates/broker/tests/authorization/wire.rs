//! Requests of any API as bytes, and connections that authenticate by PLAIN.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleuve_protocol::messages::ApiKey;
use fleuve_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use fleuve_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use fleuve_protocol::{Message, Request, Str, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request that is ready to be sent, and how to read its answer.
pub(crate) struct Ask {
    frame: Vec<u8>,
    read: fn(Bytes, i16) -> Answer,
    key: ApiKey,
    version: i16,
    /// The same in older versions, as far as they can carry it.
    older: Vec<(i16, Vec<u8>)>,
}

/// What an answer says.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The error codes in it other than 0, each once, sorted.
    pub(crate) codes: Vec<i16>,
    /// All of it.
    pub(crate) text: String,
}

/// Makes a request of a version.
pub(crate) fn ask<R: Request>(request: R, version: i16) -> Ask {
    let client_id = Str::from("matrix");
    let encode = |version| frame::encode_request(1, Some(&client_id), &request, version);
    let frame = encode(version).expect("the version carries the request").concat();
    let older = (0..version).filter_map(|older| Some((older, encode(older).ok()?.concat())));
    Ask { frame, read: read::<R>, key: R::KEY, version, older: older.collect() }
}

fn read<R: Request>(frame: Bytes, version: i16) -> Answer {
    let (_, mut body) =
        frame::decode_response_header(frame, R::KEY, version).expect("a response header");
    let response = R::Response::decode(&mut body, version).expect("a response");
    let mut codes = Vec::new();
    response.error_codes(&mut |code| codes.push(code));
    codes.retain(|code| *code != 0);
    codes.sort_unstable();
    codes.dedup();
    Answer { codes, text: format!("{response:?}") }
}

/// A connection of somebody.
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Connects without saying who it is.
    pub(crate) async fn unknown(address: &str) -> Self {
        Self(TcpStream::connect(address).await.expect("the broker listens"))
    }

    /// Connects and authenticates as a user whose password is its name.
    pub(crate) async fn open(address: &str, user: &str) -> Self {
        let mut connection = Self::unknown(address).await;
        let handshake = SaslHandshakeRequest { mechanism: Str::from("PLAIN") };
        let answer = connection.call(&ask(handshake, 1)).await.expect("an answer");
        assert!(answer.codes.is_empty(), "{answer:?}");
        let auth_bytes = Bytes::from(format!("\0{user}\0{user}"));
        let answer = connection.call(&ask(SaslAuthenticateRequest { auth_bytes }, 2)).await;
        let answer = answer.expect("an answer");
        assert!(answer.codes.is_empty(), "{answer:?}");
        connection
    }

    /// Sends a request and returns the answer; `None` if the broker hung up instead.
    pub(crate) async fn call(&mut self, ask: &Ask) -> Option<Answer> {
        let frame = self.exchange(&ask.frame).await?;
        Some((ask.read)(frame, ask.version))
    }

    /// Sends a request in those older versions that are served, and tells in which of them the
    /// broker hung up instead of answering.
    pub(crate) async fn call_older(
        &mut self,
        ask: &Ask,
        served: &BTreeMap<i16, i16>,
        reopen: impl AsyncFn() -> Self,
    ) -> Vec<i16> {
        let oldest = served.get(&ask.key.code()).copied().unwrap_or(0);
        let mut silent = Vec::new();
        for (version, frame) in ask.older.iter().filter(|(version, _)| *version >= oldest) {
            match self.exchange(frame).await {
                Some(frame) => drop((ask.read)(frame, *version)),
                None => {
                    silent.push(*version);
                    *self = reopen().await;
                }
            }
        }
        silent
    }

    async fn exchange(&mut self, frame: &[u8]) -> Option<Bytes> {
        self.0.write_all(frame).await.ok()?;
        let length = self.0.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).ok()?];
        self.0.read_exact(&mut frame).await.ok()?;
        Some(Bytes::from(frame))
    }
}
