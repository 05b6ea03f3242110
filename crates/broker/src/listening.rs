//! The listeners of a running broker: opening, closing and renewing them as the configuration asks.
//!
//! What stands in `listeners` is open. A dynamic change of it closes the listeners that are gone,
//! with their connections, and opens new ones; one that stays keeps its address and protocol. With
//! every change of this broker's configuration, and when one of their files has changed,
//! certificates are read again: connections made from then on get the new ones.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fleuve_metadata::config::{
    BrokerSettings, Listener as ListenerSettings, Listeners, Role, TlsSettings,
};
use fleuve_os::Random;
use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::authentication::{Door, Identity};
use crate::broker::{BoundListener, StartError};
use crate::connection::{
    self, Admission, CloseReason, ConnectionGate, GateLimits, Limits, Listener, Standing,
};
use crate::dispatch::Dispatcher;
use crate::node::{ListenerState, Node};
use crate::request::Peer;
use crate::startup;

/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether files of certificates have changed.
pub(crate) const FILES_LOOK: Duration = Duration::from_secs(5);

/// A socket that is bound and not served yet, with what protects it.
pub(crate) struct Prepared {
    role: Role,
    settings: ListenerSettings,
    socket: Listener,
    door: Door,
    files: FileTimes,
}

impl Prepared {
    /// Binds the address of a listener.
    pub(crate) async fn bind(
        settings: &BrokerSettings,
        (role, listener): (Role, &ListenerSettings),
        random: &dyn Random,
    ) -> Result<Self, StartError> {
        let socket = startup::bind(settings, listener).await?;
        let door = Door::open(settings, listener, random).await?;
        let files = file_times(&listener.protection.tls).await;
        Ok(Self { role, settings: listener.clone(), socket, door, files })
    }

    /// Tells its name and address.
    pub(crate) fn bound(&self) -> BoundListener {
        let (name, address) = (self.settings.name.clone(), self.socket.address());
        BoundListener { name, address, is_controllers: self.role == Role::Controller }
    }
}

/// When files of certificates were last changed.
pub(crate) type FileTimes = Vec<(PathBuf, Option<SystemTime>)>;

/// Looks when the files of certificates were last changed.
pub(crate) async fn file_times(tls: impl IntoIterator<Item = &TlsSettings>) -> FileTimes {
    let mut times = Vec::new();
    for path in tls.into_iter().flat_map(TlsSettings::files) {
        let found = tokio::fs::metadata(path).await.and_then(|found| found.modified());
        times.push((path.to_owned(), found.ok()));
    }
    times
}

/// Asks for the listeners to be brought in line with the settings.
pub(crate) type Wish = oneshot::Sender<Result<(), String>>;

/// A listener that accepts connections.
struct Open {
    index: usize,
    settings: ListenerSettings,
    door: Arc<RwLock<Arc<Door>>>,
    files: FileTimes,
    task: AbortHandle,
}

/// What connections of all listeners need.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) node: Arc<Node>,
    pub(crate) gate: Arc<ConnectionGate>,
    pub(crate) limits: Limits,
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) alive: mpsc::Sender<Infallible>,
}

/// Opens and closes listeners.
pub(crate) struct Listening {
    around: Surroundings,
    open: Vec<Open>,
}

impl Listening {
    /// Begins to accept connections.
    pub(crate) fn start(around: Surroundings, prepared: Vec<Prepared>) -> Self {
        let mut listening = Self { around, open: Vec::new() };
        for (index, prepared) in prepared.into_iter().enumerate() {
            listening.serve(index, prepared);
        }
        listening
    }

    fn serve(&mut self, index: usize, prepared: Prepared) {
        let Prepared { role, settings, socket, door, files } = prepared;
        *self.around.node.listeners.read()[index].certificate.lock() = door.names();
        let door = Arc::new(RwLock::new(Arc::new(door)));
        let acceptor = Acceptor {
            name: settings.name.clone(),
            role,
            index,
            socket,
            door: Arc::clone(&door),
            around: self.around.clone(),
        };
        let task = tokio::spawn(accept(acceptor)).abort_handle();
        self.open.push(Open { index, settings, door, files, task });
    }

    /// Follows the configuration until the broker stops.
    pub(crate) fn keep(mut self, mut wishes: mpsc::UnboundedReceiver<Wish>) -> JoinHandle<()> {
        let mut stopped = self.around.stopped.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    wish = wishes.recv() => match wish {
                        Some(wish) => {
                            // Nobody may wait for it any more.
                            let _ = wish.send(self.follow().await);
                        }
                        None => break,
                    },
                    () = sleep(FILES_LOOK) => self.renew_changed().await,
                    () = stop(&mut stopped) => break,
                }
            }
        })
    }

    /// Brings the listeners in line with the settings in force.
    async fn follow(&mut self) -> Result<(), String> {
        let node = Arc::clone(&self.around.node);
        let settings = node.settings();
        let wanted = &settings.network.listeners;
        let gone = |open: &Open| wanted.all().all(|(_, it)| it.name != open.settings.name);
        for open in self.open.extract_if(.., |open| gone(open)) {
            tracing::info!(listener = %open.settings.name, "listener closed");
            open.task.abort();
            self.around.gate.close_listener(&open.settings.name);
            node.listeners.read()[open.index].close();
        }
        let mut failures = Vec::new();
        for (role, listener) in wanted.all() {
            let known = self.open.iter().position(|open| open.settings.name == listener.name);
            let outcome = match known {
                Some(position) => self.renew(position, &settings, listener).await,
                None => self.open(&settings, (role, listener)).await,
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "a listener does not follow its configuration");
                failures.push(error.to_string());
            }
        }
        let (network, listeners) = (settings.network.clone(), wanted.clone());
        let limits = tokio::task::spawn_blocking(move || GateLimits::of(&network, &listeners));
        if let Ok(limits) = limits.await {
            self.around.gate.set_limits(limits);
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    async fn open(
        &mut self,
        settings: &BrokerSettings,
        (role, listener): (Role, &ListenerSettings),
    ) -> Result<(), StartError> {
        let node = Arc::clone(&self.around.node);
        let prepared = Prepared::bind(settings, (role, listener), &*node.random).await?;
        let bound = prepared.bound();
        tracing::info!(listener = %bound.name, address = %bound.address, "listener opened");
        let endpoint = startup::endpoint(&settings.network.listeners, listener, &bound);
        let index = {
            let mut listeners = node.listeners.write();
            listeners.push(Arc::new(ListenerState::new(&bound.name, role, endpoint)));
            listeners.len() - 1
        };
        self.serve(index, prepared);
        Ok(())
    }

    /// Reads certificates, users and rules of a listener again.
    async fn renew(
        &mut self,
        position: usize,
        settings: &BrokerSettings,
        listener: &ListenerSettings,
    ) -> Result<(), StartError> {
        let node = Arc::clone(&self.around.node);
        let files = file_times(&listener.protection.tls).await;
        let open = &mut self.open[position];
        if listener.protection == open.settings.protection && files.is_empty() {
            return Ok(());
        }
        let door = Door::open(settings, listener, &*node.random).await?;
        let state = Arc::clone(&node.listeners.read()[open.index]);
        let mut certificate = state.certificate.lock();
        door.may_replace(certificate.as_ref(), settings.network.certificate_changes)
            .map_err(|reason| StartError::Protection { listener: listener.name.clone(), reason })?;
        *certificate = door.names();
        *open.door.write() = Arc::new(door);
        open.files = files;
        open.settings.protection = listener.protection.clone();
        Ok(())
    }

    /// Renews the listeners whose files have changed.
    async fn renew_changed(&mut self) {
        let settings = self.around.node.settings();
        for position in 0..self.open.len() {
            let listener = self.open[position].settings.clone();
            let files = file_times(&listener.protection.tls).await;
            if files == self.open[position].files {
                continue;
            }
            match self.renew(position, &settings, &listener).await {
                Ok(()) => tracing::info!(listener = %listener.name, "certificates read again"),
                Err(error) => {
                    // Said once, until they change again.
                    self.open[position].files = files;
                    tracing::error!(%error, "changed certificates are not used");
                }
            }
        }
    }
}

/// Waits until the broker stops.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // The sender going away means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.open.iter().for_each(|open| open.task.abort());
    }
}

/// Checks that a change of the configuration leaves every listener usable.
pub(crate) async fn check(
    node: &Node,
    settings: &BrokerSettings,
    wanted: &Listeners,
) -> Result<(), String> {
    let current = node.settings();
    for (_, listener) in wanted.all() {
        let mut all = current.network.listeners.all();
        if let Some((_, known)) = all.find(|(_, known)| known.name == listener.name) {
            if known.protocol != listener.protocol {
                return Err(format!(
                    "Security protocol cannot be updated for existing listener {}",
                    listener.name
                ));
            }
            if (&known.host, known.port) != (&listener.host, listener.port) {
                return Err(format!(
                    "The address of listener {} cannot be changed while it is open; remove it \
                     first, or open another one",
                    listener.name
                ));
            }
        }
        // Certificates are read, and thrown away.
        let opened = Door::open(settings, listener, &*node.random).await;
        let door = opened.map_err(|error| error.to_string())?;
        let open = node.listeners.read().iter().find(|it| it.is_open_as(&listener.name)).cloned();
        if let Some(open) = open {
            let before = open.certificate.lock().clone();
            door.may_replace(before.as_ref(), settings.network.certificate_changes)?;
        }
    }
    Ok(())
}

/// What the task of a listener needs.
struct Acceptor {
    name: String,
    role: Role,
    index: usize,
    socket: Listener,
    door: Arc<RwLock<Arc<Door>>>,
    around: Surroundings,
}

/// A connection's place among those of its listener.
struct Seat {
    state: Arc<ListenerState>,
    _admission: Admission,
    _alive: mpsc::Sender<Infallible>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.state.closed.add(1);
    }
}

async fn accept(acceptor: Acceptor) {
    let Acceptor { name, role, index, socket, door, around } = acceptor;
    let Surroundings { node, gate, limits, mut stopped, alive } = around;
    let state = Arc::clone(&node.listeners.read()[index]);
    let connection_stopped = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept(&name, &gate) => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let (stream, admission) = accepted;
        let Ok(address) = stream.peer_addr() else { continue };
        state.opened.add(1);
        let (id, activity) = (admission.id(), admission.activity.clone());
        let seat = Seat { state: Arc::clone(&state), _admission: admission, _alive: alive.clone() };
        let stopped = connection_stopped.clone();
        let name = name.clone();
        let (node, door) = (Arc::clone(&node), Arc::clone(&door.read()));
        let task = tokio::spawn(async move {
            let dispatcher = |identity| {
                let mut peer = Peer::identified(address, index, identity);
                peer.asks = role;
                peer.activity = Some(activity);
                Dispatcher::new(Arc::clone(&node), peer)
            };
            let reason = match &door.tls {
                Some(tls) => {
                    let seat = &seat.state;
                    let served =
                        serve_encrypted(stream, tls, &door, seat, dispatcher, limits, stopped);
                    Box::pin(served).await
                }
                None => match door.arrival(None) {
                    Ok(identity) => {
                        connection::serve(stream, dispatcher(identity), limits, stopped).await
                    }
                    Err(reason) => CloseReason::Handshake(reason),
                },
            };
            node.endings.count(&reason);
            match reason {
                CloseReason::Handshake(_) => seat.state.authentications.count(false, false),
                CloseReason::SessionOver => seat.state.authentications.session_over(),
                _ => {}
            }
            let told = reason.is_peers_fault().then(|| node.endings.tell(Instant::now())).flatten();
            if let Some(left_out) = told {
                let left_out = Some(left_out).filter(|left_out| *left_out > 0);
                tracing::warn!(
                    listener = %name, peer = %address, %reason, left_out, "connection closed"
                );
            } else {
                tracing::debug!(listener = %name, peer = %address, %reason, "connection closed");
            }
            drop(seat);
        });
        gate.attach(id, task.abort_handle());
    }
}

/// Serves a connection inside TLS, from the handshake on.
async fn serve_encrypted(
    stream: TcpStream,
    tls: &TlsAcceptor,
    door: &Door,
    listener: &ListenerState,
    dispatcher: impl FnOnce(Identity) -> Dispatcher,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) -> CloseReason {
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_MAX, tls.accept(stream)) => shaken,
        _ = stopped.wait_for(|stop| *stop) => return CloseReason::Shutdown,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return CloseReason::Handshake(error.to_string()),
        Err(_) => return CloseReason::Handshake("it took too long".to_owned()),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    match door.arrival(certificate.map(|certificate| certificate.as_ref())) {
        Ok(identity) => {
            if identity.standing() == Standing::Known {
                listener.authentications.count(false, true);
            }
            connection::serve(stream, dispatcher(identity), limits, stopped).await
        }
        Err(reason) => CloseReason::Handshake(reason),
    }
}
