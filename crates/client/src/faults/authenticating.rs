//! Authentication against the same faults, with sessions so short that clients authenticate again while they work: nothing
//! else goes over a connection that is not authenticated, or is just being so.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use fleuve_protocol::messages::sasl_authenticate_response::SaslAuthenticateResponse;
use fleuve_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use fleuve_protocol::messages::sasl_handshake_response::SaslHandshakeResponse;
use ring::{digest, hmac, pbkdf2};

use super::*;
use crate::config::{OAuthConfig, SaslConfig, ScramCredentials, Secret, Security, TokenSource};
use crate::scripted::{body, send};

/// How far a connection has come.
#[derive(Clone, Debug)]
enum Proof {
    Nothing,
    /// A mechanism was agreed on.
    Begun {
        mechanism: String,
    },
    /// Of SCRAM: the messages so far.
    Challenged {
        client_first_bare: String,
        server_first: String,
    },
    Whole,
}

/// The broker's side of authentication.
#[derive(Default)]
struct Gate {
    proofs: HashMap<u64, Proof>,
    /// What came over connections that had not proved enough.
    intruders: Vec<(ApiKey, String)>,
    /// How often somebody proved who he is.
    passed: usize,
}

const SESSION_MS: i64 = 2500;
const ROUNDS: u32 = 4096;
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"];

impl Gate {
    /// Answers what is the gate's; other requests pass, or are noted down and end the connection.
    fn reply(
        &mut self,
        connection: u64,
        request: &RequestFrame,
        error: Option<ErrorCode>,
    ) -> Option<Reply> {
        let proof = self.proofs.entry(connection).or_insert(Proof::Nothing);
        let error_code = error.unwrap_or(ErrorCode::None).code();
        match (request.key, proof) {
            (ApiKey::ApiVersions, _) | (_, Proof::Whole)
                if request.key != ApiKey::SaslHandshake =>
            {
                None
            }
            (ApiKey::SaslHandshake, proof) => {
                let asked: SaslHandshakeRequest = body(request);
                if error.is_none() {
                    *proof = Proof::Begun { mechanism: asked.mechanism.to_string() };
                }
                let mechanisms = MECHANISMS.map(Into::into).to_vec();
                Some(send(request, &SaslHandshakeResponse { error_code, mechanisms }))
            }
            (ApiKey::SaslAuthenticate, proof) => {
                let asked: SaslAuthenticateRequest = body(request);
                let mut response = SaslAuthenticateResponse { error_code, ..Default::default() };
                if error.is_none() {
                    match proof.clone().next(&asked.auth_bytes) {
                        Ok((next, said)) => {
                            *proof = next;
                            response.auth_bytes = said;
                        }
                        Err(()) => {
                            response.error_code = ErrorCode::SaslAuthenticationFailed.code();
                        }
                    }
                    if matches!(proof, Proof::Whole) {
                        response.session_lifetime_ms = SESSION_MS;
                        self.passed += 1;
                    }
                }
                Some(send(request, &response))
            }
            (key, proof) => {
                self.intruders.push((key, format!("{proof:?}")));
                Some(Reply::HangUp)
            }
        }
    }
}

impl Proof {
    /// Takes the client's message and returns ours.
    fn next(self, message: &[u8]) -> Result<(Self, Bytes), ()> {
        let text = std::str::from_utf8(message).map_err(drop)?;
        match self {
            Self::Begun { mechanism } if mechanism == "PLAIN" => {
                let right = text == "\0ada\0lovelace";
                right.then_some((Self::Whole, Bytes::new())).ok_or(())
            }
            Self::Begun { mechanism } if mechanism == "OAUTHBEARER" => {
                let right = text.contains("auth=Bearer the-token");
                right.then_some((Self::Whole, Bytes::new())).ok_or(())
            }
            Self::Begun { .. } => {
                let client_first_bare = text.strip_prefix("n,,").ok_or(())?.to_owned();
                let nonce = client_first_bare.split_once("r=").ok_or(())?.1;
                let server_first =
                    format!("r={nonce}theirs,s={},i={ROUNDS}", STANDARD.encode("salt"));
                let said = server_first.clone().into();
                Ok((Self::Challenged { client_first_bare, server_first }, said))
            }
            Self::Challenged { client_first_bare, server_first } => {
                let (without_proof, proof) = text.split_once(",p=").ok_or(())?;
                let messages = format!("{client_first_bare},{server_first},{without_proof}");
                let mut salted = [0; 32];
                let rounds = std::num::NonZeroU32::new(ROUNDS).ok_or(())?;
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, rounds, b"salt", b"lovelace", &mut salted);
                let sign = |key: &[u8], text: &[u8]| {
                    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
                };
                let client_key = sign(&salted, b"Client Key");
                let stored = digest::digest(&digest::SHA256, client_key.as_ref());
                let signature = sign(stored.as_ref(), messages.as_bytes());
                let pairs = client_key.as_ref().iter().zip(signature.as_ref());
                let expected: Vec<u8> = pairs.map(|(key, signed)| key ^ signed).collect();
                if STANDARD.decode(proof).map_err(drop)? != expected {
                    return Err(());
                }
                let server_key = sign(&salted, b"Server Key");
                let signature = sign(server_key.as_ref(), messages.as_bytes());
                Ok((Self::Whole, format!("v={}", STANDARD.encode(signature)).into()))
            }
            Self::Nothing | Self::Whole => Err(()),
        }
    }
}

fn sasl(mechanism: &str) -> SaslConfig {
    let password = Secret::new("lovelace");
    let user = "ada".to_owned();
    match mechanism {
        "PLAIN" => SaslConfig::Plain { user, password },
        "OAUTHBEARER" => SaslConfig::OAuthBearer(OAuthConfig {
            source: TokenSource::Static(Secret::new("the-token")),
            extensions: Vec::new(),
        }),
        _ => {
            SaslConfig::ScramSha256(ScramCredentials { user, password, is_delegation_token: false })
        }
    }
}

async fn run(mechanism: &str, mut chooser: Chooser) -> (Run, Arc<Mutex<Gate>>) {
    let model = Arc::new(Mutex::new(Model::default()));
    let gate = Arc::new(Mutex::new(Gate::default()));
    let asked = Arc::new(Mutex::new(HashSet::new()));
    let broker = ScriptedBroker::per_connection({
        let (model, gate, asked) = (model.clone(), gate.clone(), asked.clone());
        move |connection, request| {
            asked.lock().expect("no panic").insert(request.key);
            let mut model = model.lock().expect("no panic");
            let mut gate = gate.lock().expect("no panic");
            chooser(request.key).strike(|error, act| {
                // An answer that is an error must not count as a proof.
                gate.reply(connection, &request, error).unwrap_or_else(|| match (act, error) {
                    (false, Some(code)) => model.refuse(&request, code),
                    (_, error) => model.answer(&request, error),
                })
            })
        }
    });
    let security = Security { sasl: Some(sasl(mechanism)), ..Security::default() };
    let config = ClientConfig { security, ..client_config() };
    (run_against(broker, config, GroupProtocol::Classic, model, asked).await, gate)
}

fn check((run, gate): (Run, Arc<Mutex<Gate>>), context: &str) {
    run.check(context);
    let gate = gate.lock().expect("no panic");
    assert!(gate.intruders.is_empty(), "{:?}: {context}", gate.intruders);
}

const SENT: [ApiKey; 3] = [ApiKey::ApiVersions, ApiKey::SaslHandshake, ApiKey::SaslAuthenticate];

#[tokio::test(start_paused = true)]
async fn sessions_are_renewed_and_nothing_slips_in_between() {
    for mechanism in MECHANISMS {
        let (run, gate) = run(mechanism, Box::new(|_| Fault::None)).await;
        assert!(!run.told, "{mechanism}");
        assert_eq!(run.acknowledged.len() as i32, RECORDS);
        let passed = gate.lock().expect("no panic").passed;
        assert!(passed > 10, "{mechanism}: {passed} times");
        check((run, gate), mechanism);
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_code_in_authentication_is_survived_or_told() {
    for key in SENT {
        for &code in ErrorCode::ALL {
            if code == ErrorCode::None {
                continue;
            }
            // The later one is that of a connection which works already.
            for which in [1, 12] {
                let context = format!("{code:?} in {key:?} number {which}");
                let mut number = 0;
                let chooser: Chooser = Box::new(move |asked| {
                    number += usize::from(asked == key);
                    let hit = asked == key && number == which;
                    if hit { Fault::Refused(code) } else { Fault::None }
                });
                check(run("PLAIN", chooser).await, &context);
            }
            if !WITHOUT_END.contains(&code) {
                continue;
            }
            let context = format!("{code:?} always in {key:?}");
            let asked = Arc::new(AtomicUsize::new(0));
            let mut run = run("PLAIN", always(key, Fault::Refused(code), asked.clone())).await;
            // What may pass is waited for, for as long as the application likes.
            run.0.told |= may_pass(code);
            check(run, &context);
            let asked = asked.load(Ordering::Relaxed);
            assert!(asked < STORM, "asked {asked} times: {context}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_late_and_missing_answers_in_authentication_are_survived() {
    let faults = [
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Late(Duration::from_secs(1)),
        Fault::Late(Duration::from_secs(9)),
        Fault::Silence,
    ];
    for mechanism in MECHANISMS {
        for key in SENT {
            for fault in &faults {
                for count in [1, 4] {
                    let context = format!("{fault:?} {count} times in {key:?}, {mechanism}");
                    check(run(mechanism, first(key, count, fault.clone())).await, &context);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lies_in_authentication_are_outlived() {
    for seed in 0..100 {
        let mut garble = garbling(Dice(seed + 9000));
        let chooser: Chooser = Box::new(move |key| match SENT.contains(&key) {
            true => garble(key),
            false => Fault::None,
        });
        let (run, _) = run(MECHANISMS[seed as usize % 3], chooser).await;
        // A lie may make the client believe that it is through; then the broker hangs up.
        run.check(&format!("seed {seed}"));
    }
}
