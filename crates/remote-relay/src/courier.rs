//! A courier takes one batch: the messages for one destination, one after another, over one connection at a time.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use posthorn_api::work::v1::Item;
use posthorn_mail::{EnhancedStatus, Outcome, Recipient, RemoteServer, ReversePath, Status, Verdict};
use posthorn_service::trace;
use posthorn_smtp::client::{Ending, Transaction};
use posthorn_smtp_io::client::{Connection, OpenError, Target};
use posthorn_work::Batch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::Config;
use crate::attempt::{Attempt, Then, refused};
use crate::candidates::Candidate;
use crate::content::{Fitted, Spool};
use crate::hosts::{Hosts, Way};
use crate::parcel;
use crate::pool::{Held, Pool};
use crate::report::{note, note_failure};

/// What all couriers of the process share; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Courier {
    pub(crate) config: Arc<Config>,
    pub(crate) hosts: Hosts,
    pub(crate) spool: Spool,
    pub(crate) pool: Pool,
    /// Nothing is begun any more.
    pub(crate) shutdown: CancellationToken,
    /// What is under way is broken off.
    pub(crate) cut: CancellationToken,
}

/// What a courier has learned of its destination on its way.
struct Trip {
    destination: String,
    ways: HashMap<String, Way>,
    /// Servers that could take nothing: not tried again for the rest of the batch.
    down: HashMap<SocketAddr, (Status, RemoteServer)>,
    /// Servers that left a transaction unfinished: once may be the message's fault, twice is theirs.
    failed_once: HashSet<SocketAddr>,
    /// The connection in hand.
    held: Option<(SocketAddr, Held)>,
}

/// Recipients of one message that go together.
struct Shipment {
    servers: Arc<[Candidate]>,
    sender: ReversePath,
    recipients: Vec<(usize, Recipient)>,
}

impl Courier {
    /// Takes the batch to its end; each item is reported as soon as it is done.
    pub(crate) async fn deliver(mut self, batch: Batch) {
        let mut trip = Trip::to(batch.destination);
        for leased in batch.items {
            // Dropped, it is given back.
            if self.shutdown.is_cancelled() || leased.is_overdue(Instant::now()) {
                continue;
            }
            let span = tracing::info_span!(
                "relay",
                message_id = leased.message_id().map(tracing::field::display),
                destination = trip.destination,
                attempt = parcel::attempt(&leased.item),
            );
            trace::link(&span, &leased.item.traceparent);
            let outcomes = self.deliver_one(&leased.item, &mut trip).instrument(span).await;
            leased.report_outcomes(outcomes);
        }
        self.put_back(&mut trip);
    }

    async fn deliver_one(&mut self, item: &Item, trip: &mut Trip) -> Vec<Outcome> {
        let (groups, unreadable) = parcel::groups(item);
        let mut outcomes: Vec<Option<Outcome>> = vec![None; item.recipients.len()];
        unreadable.into_iter().for_each(|(place, outcome)| outcomes[place] = Some(outcome));
        let mut shipments = Vec::<Shipment>::new();
        for group in groups {
            let verdict = match self.way(&group.domain, trip).await {
                Way::Local => Verdict::Reroute(format!("{} is a domain of ours now", group.domain)),
                Way::Refused(status) => refused(status, false),
                Way::Servers(servers) => {
                    let same =
                        shipments.iter_mut().find(|s| s.sender == group.sender && s.servers == servers);
                    match same {
                        Some(shipment) => shipment.recipients.extend(group.recipients),
                        None => {
                            let (sender, recipients) = (group.sender, group.recipients);
                            shipments.push(Shipment { servers, sender, recipients });
                        }
                    }
                    continue;
                }
            };
            for (place, _) in group.recipients {
                outcomes[place] = Some(Outcome { verdict: verdict.clone(), remote: None });
            }
        }
        for shipment in shipments {
            let ended = self.ship(item, &shipment, trip).await;
            for ((place, _), outcome) in shipment.recipients.iter().zip(ended) {
                outcomes[*place] = Some(outcome);
            }
        }
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        note(item, &outcomes);
        outcomes
    }

    async fn way(&mut self, domain: &str, trip: &mut Trip) -> Way {
        if let Some(way) = trip.ways.get(domain) {
            return way.clone();
        }
        let way = self.hosts.find(domain, &self.shutdown).await;
        trip.ways.insert(domain.to_owned(), way.clone());
        way
    }

    /// Goes from server to server until each recipient has its end.
    async fn ship(&mut self, item: &Item, shipment: &Shipment, trip: &mut Trip) -> Vec<Outcome> {
        let mut attempt = Attempt::new(shipment.recipients.len());
        // A connection in hand is as good as the first choice (as in Postfix).
        let in_hand = trip.held.as_ref().map(|(address, _)| *address);
        let first = shipment.servers.iter().filter(|server| Some(server.address) == in_hand);
        let then = shipment.servers.iter().filter(|server| Some(server.address) != in_hand);
        let mut detour = false;
        for server in first.chain(then) {
            if self.cut.is_cancelled() {
                break;
            }
            if attempt.open_for(&server.host).is_empty() {
                continue;
            }
            if let Some((status, remote)) = trip.down.get(&server.address) {
                attempt.unavailable(status.clone(), remote.clone());
                continue;
            }
            detour |= attempt.has_put_off();
            match self.visit(item, shipment, server, &mut attempt, trip).await {
                Visit::Ended => break,
                Visit::NextServer => {}
            }
        }
        if detour {
            // The next message begins with the best host again, which has refused nothing of it yet.
            self.put_back(trip);
        }
        attempt.finish(&stopping())
    }

    /// Hands the message to one server, in as many transactions as that takes.
    async fn visit(
        &mut self,
        item: &Item,
        shipment: &Shipment,
        server: &Candidate,
        attempt: &mut Attempt,
        trip: &mut Trip,
    ) -> Visit {
        loop {
            let kept = self.kept(server, trip);
            let reused = kept.is_some();
            let mut held = match kept {
                Some(held) => held,
                None => match self.open(server).await {
                    Ok(connection) => Held { connection: Box::new(connection), messages: 0 },
                    Err(error) => return unreachable(server, &error, attempt, trip),
                },
            };
            let then = self.hand_over(item, shipment, server, &mut held, attempt).await;
            let remote = held.connection.remote().clone();
            let alive = held.connection.is_usable();
            if alive && held.messages < self.config.reuse.messages {
                trip.held = Some((server.address, held));
            } else if alive {
                self.pool.close(held);
            }
            // It had been idle, and the server lost patience: that says nothing of the server.
            let stale = reused && !alive && attempt.trouble().is_some() && then != Then::Done;
            if let Some(status) = attempt.trouble().filter(|_| !alive && !stale) {
                trip.unfinished(server.address, status, remote);
            }
            match then {
                Then::Done => return Visit::Ended,
                Then::NextServer if !stale => return Visit::NextServer,
                Then::SameServer | Then::NextServer => {}
            }
        }
    }

    /// The connection in hand if it leads there, or one that was kept open.
    fn kept(&self, server: &Candidate, trip: &mut Trip) -> Option<Held> {
        if let Some((address, mut held)) = trip.held.take() {
            if address == server.address && held.connection.is_usable() {
                return Some(held);
            }
            self.pool.put((address, trip.destination.clone()), held);
        }
        let held = self.pool.take(&(server.address, trip.destination.clone()))?;
        metrics::counter!("posthorn_relay_connections_reused_total").increment(1);
        Some(held)
    }

    async fn open(&self, server: &Candidate) -> Result<Connection, OpenError> {
        let target = Target {
            host: server.host.clone(),
            address: server.address,
            bind_address: self.config.bind_address,
            connect_timeout: self.config.timeouts.connect,
            settings: self.config.session(),
        };
        let opened = tokio::select! {
            opened = Connection::open(&target) => opened,
            () = self.cut.cancelled() => Err(OpenError::Connect(stopping())),
        };
        let result = if opened.is_ok() { "opened" } else { "failed" };
        metrics::counter!("posthorn_relay_connections_total", "result" => result).increment(1);
        opened
    }

    /// Does one transaction, or several where the server takes no more recipients in one.
    async fn hand_over(
        &self,
        item: &Item,
        shipment: &Shipment,
        server: &Candidate,
        held: &mut Held,
        attempt: &mut Attempt,
    ) -> Then {
        // The connection may have been opened for another name of the same address.
        let remote = RemoteServer { host: server.host.clone(), ..held.connection.remote().clone() };
        let fitted = match self.spool.fit(item, held.connection.capabilities()).await {
            Ok(fitted) => fitted,
            Err(status) => {
                attempt.end_open(&refused(status, false), Some(&remote));
                return Then::Done;
            }
        };
        loop {
            let mut places = attempt.open_for(&remote.host);
            places.truncate(self.config.max_recipients);
            let transaction = transaction(item, shipment, &places, &fitted);
            let content = self.spool.content(item, &fitted);
            let began = Instant::now();
            held.messages += 1;
            let answers = tokio::select! {
                answers = held.connection.transfer(transaction, content) => Some(answers),
                () = self.cut.cancelled() => None,
            };
            let answers = answers.unwrap_or_else(|| held.connection.abandon("the relay is stopping"));
            metrics::histogram!("posthorn_relay_transaction_seconds").record(began.elapsed().as_secs_f64());
            match attempt.answered(&places, answers, &remote, held.connection.is_usable()) {
                Then::SameServer if held.connection.is_usable() => {}
                then => return then,
            }
        }
    }

    fn put_back(&self, trip: &mut Trip) {
        if let Some((address, held)) = trip.held.take() {
            self.pool.put((address, trip.destination.clone()), held);
        }
    }
}

impl Trip {
    fn to(destination: String) -> Self {
        let (ways, down, failed_once) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { destination, ways, down, failed_once, held: None }
    }

    /// A server broke a transaction off.
    fn unfinished(&mut self, server: SocketAddr, status: &Status, remote: RemoteServer) {
        let again = !self.failed_once.insert(server);
        if again || status.code() == 421 {
            self.down.insert(server, (status.clone(), remote));
        }
    }
}

/// How a visit to a server ended.
enum Visit {
    /// Each recipient has its end, or no other server is to be tried.
    Ended,
    NextServer,
}

/// No session came about: another server is tried, unless this one is ourselves.
fn unreachable(server: &Candidate, error: &OpenError, attempt: &mut Attempt, trip: &mut Trip) -> Visit {
    let remote =
        RemoteServer { host: server.host.clone(), address: server.address.to_string(), tls: String::new() };
    let status = error.status();
    note_failure(&remote, &status);
    attempt.unavailable(status.clone(), remote.clone());
    trip.down.insert(server.address, (status, remote));
    match error {
        // RFC 5321 §5.1: those behind us in the order would send it back to us.
        OpenError::Ended(Ending::Loop(_)) => Visit::Ended,
        OpenError::Ended(_) | OpenError::Connect(_) => Visit::NextServer,
    }
}

fn transaction(item: &Item, shipment: &Shipment, places: &[usize], fitted: &Fitted<'_>) -> Transaction {
    let recipients = places.iter().map(|place| shipment.recipients[*place].1.clone()).collect();
    Transaction {
        envelope: parcel::envelope(item, shipment.sender.clone(), recipients, fitted.body),
        size: fitted.size,
        utf8_headers: fitted.utf8_headers,
    }
}

/// RFC 3463 §3.4: the system is not accepting; said of ourselves.
fn stopping() -> Status {
    Status::new(451, EnhancedStatus::new(4, 3, 2), "the relay is stopping")
}
