//! A scripted DNS: answers what a test has said, by UDP and TCP, and counts what it was asked.
//!
//! It answers as a name server of one's provider does: CNAMEs are followed as far as it knows them, a name without
//! the records asked for is NOERROR with an SOA, a name it was never told of is NXDOMAIN with an SOA.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A scripted DNS server; it stops when dropped.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

/// How a name misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// No answer at all.
    Silent,
}

#[derive(Debug)]
struct Zone {
    names: HashMap<Name, Vec<Record>>,
    trouble: HashMap<(Name, Option<RecordType>), Trouble>,
    asked: HashMap<(Name, RecordType), usize>,
    by_tcp: usize,
    /// Of the records that are added, in seconds.
    ttl: u32,
    /// Of what does not exist, in seconds.
    negative_ttl: u32,
    /// UDP answers are cut to nothing, so that all must be asked again by TCP.
    truncates: bool,
    /// How long it thinks about every answer by UDP.
    delay: Duration,
}

impl Dns {
    /// A server on a free port of 127.0.0.1 that knows nothing yet.
    pub async fn start() -> Self {
        // The port must be free for both protocols.
        loop {
            let port = posthorn_stores::free_port().expect("a free port");
            if let Ok(dns) = Self::start_at(SocketAddr::from(([127, 0, 0, 1], port))).await {
                return dns;
            }
        }
    }

    /// A server at this address and port.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        let zone = Arc::new(Mutex::new(Zone {
            names: HashMap::new(),
            trouble: HashMap::new(),
            asked: HashMap::new(),
            by_tcp: 0,
            ttl: 300,
            negative_ttl: 300,
            truncates: false,
            delay: Duration::ZERO,
        }));
        let address = udp.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, zone.clone()));
        tasks.spawn(serve_tcp(tcp, zone.clone()));
        Ok(Self { address, zone, _tasks: tasks })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The TTL, in seconds, of the records that are added from now on; 300 at the start.
    pub fn ttl(&self, seconds: u32) -> &Self {
        self.zone().ttl = seconds;
        self
    }

    /// How long, in seconds, it may be remembered that something does not exist; 300 at the start.
    pub fn negative_ttl(&self, seconds: u32) -> &Self {
        self.zone().negative_ttl = seconds;
        self
    }

    /// From now on UDP carries no answers, so that all must be asked for by TCP.
    pub fn truncate(&self) -> &Self {
        self.zone().truncates = true;
        self
    }

    /// From now on answers by UDP come so late.
    pub fn delay(&self, delay: Duration) -> &Self {
        self.zone().delay = delay;
        self
    }

    /// Adds an MX record; the exchange "." is the null MX.
    pub fn mx(&self, domain: &str, preference: u16, exchange: &str) -> &Self {
        self.add(domain, RData::MX(MX::new(preference, name(exchange))))
    }

    /// Adds an A record.
    pub fn a(&self, host: &str, ip: Ipv4Addr) -> &Self {
        self.add(host, RData::A(A(ip)))
    }

    /// Adds an AAAA record.
    pub fn aaaa(&self, host: &str, ip: Ipv6Addr) -> &Self {
        self.add(host, RData::AAAA(AAAA(ip)))
    }

    /// Adds an A or AAAA record.
    pub fn ip(&self, host: &str, ip: IpAddr) -> &Self {
        match ip {
            IpAddr::V4(ip) => self.a(host, ip),
            IpAddr::V6(ip) => self.aaaa(host, ip),
        }
    }

    /// Adds a CNAME record.
    pub fn cname(&self, alias: &str, target: &str) -> &Self {
        self.add(alias, RData::CNAME(CNAME(name(target))))
    }

    /// Adds a TXT record.
    pub fn txt(&self, host: &str, text: &str) -> &Self {
        self.add(host, RData::TXT(TXT::new(vec![text.to_owned()])))
    }

    /// The name exists, even if it has no records.
    pub fn exists(&self, host: &str) -> &Self {
        self.zone().names.entry(name(host)).or_default();
        self
    }

    /// Forgets all records of a name, and that it exists: NXDOMAIN from now on.
    pub fn remove(&self, host: &str) -> &Self {
        self.zone().names.remove(&name(host));
        self
    }

    /// Every question about the name ends like this.
    pub fn trouble(&self, host: &str, trouble: Trouble) -> &Self {
        self.zone().trouble.insert((name(host), None), trouble);
        self
    }

    /// Questions for this type of record of the name ("MX", "A", "AAAA", "CNAME", "TXT") end like this.
    pub fn trouble_with(&self, host: &str, record_type: &str, trouble: Trouble) -> &Self {
        self.zone().trouble.insert((name(host), Some(kind(record_type))), trouble);
        self
    }

    /// The name's trouble is over.
    pub fn recover(&self, host: &str) -> &Self {
        let host = name(host);
        self.zone().trouble.retain(|(troubled, _), _| *troubled != host);
        self
    }

    /// How often it was asked for this type of record of the name.
    pub fn asked(&self, host: &str, record_type: &str) -> usize {
        self.zone().asked.get(&(name(host), kind(record_type))).copied().unwrap_or_default()
    }

    /// How many questions came by TCP.
    pub fn asked_by_tcp(&self) -> usize {
        self.zone().by_tcp
    }

    fn add(&self, host: &str, data: RData) -> &Self {
        let mut zone = self.zone();
        let record = Record::from_rdata(name(host), zone.ttl, data);
        zone.names.entry(name(host)).or_default().push(record);
        drop(zone);
        self
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        lock(&self.zone)
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Absolute, and lower case as questions may come in any.
fn name(text: &str) -> Name {
    let text = if text.ends_with('.') { text.to_owned() } else { format!("{text}.") };
    Name::from_ascii(text).expect("a test names names that can be").to_lowercase()
}

fn kind(record_type: &str) -> RecordType {
    record_type.parse().expect("a test names record types that there are")
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let socket = Arc::new(socket);
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (answer, delay) = {
            let mut zone = lock(&zone);
            (zone.answer(&buffer[..length], false), zone.delay)
        };
        let Some(answer) = answer else { continue };
        let socket = socket.clone();
        answers.spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = socket.send_to(&answer, from).await;
        });
        while answers.try_join_next().is_some() {}
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, zone.clone()));
    }
}

/// RFC 1035 §4.2.2: each message after its length.
async fn serve_connection(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let answer = lock(&zone).answer(&question, true);
        let Some(answer) = answer else { continue };
        let length = u16::try_from(answer.len()).expect("answers of tests are short");
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

impl Zone {
    fn answer(&mut self, question: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let asked = Message::from_vec(question).ok()?;
        let query = asked.queries.first()?.clone();
        let (host, record_type) = (query.name().to_lowercase(), query.query_type());
        *self.asked.entry((host.clone(), record_type)).or_default() += 1;
        self.by_tcp += usize::from(by_tcp);
        let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query);
        let general = self.trouble.get(&(host.clone(), None));
        match general.or_else(|| self.trouble.get(&(host.clone(), Some(record_type)))) {
            Some(Trouble::Silent) => return None,
            Some(Trouble::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
            Some(Trouble::Refused) => answer.metadata.response_code = ResponseCode::Refused,
            None if self.truncates && !by_tcp => answer.metadata.truncation = true,
            None => self.fill(&mut answer, host, record_type),
        }
        answer.to_vec().ok()
    }

    fn fill(&self, answer: &mut Message, mut host: Name, record_type: RecordType) {
        // A chain of CNAMEs that leads back to itself ends somewhere.
        for _ in 0..8 {
            let Some(records) = self.names.get(&host) else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let wanted: Vec<Record> =
                records.iter().filter(|record| record.record_type() == record_type).cloned().collect();
            if !wanted.is_empty() {
                answer.add_answers(wanted);
                return;
            }
            let alias = records.iter().find_map(|record| match &record.data {
                RData::CNAME(CNAME(target)) => Some((record.clone(), target.to_lowercase())),
                _ => None,
            });
            let Some((record, target)) = alias else { break };
            answer.add_answer(record);
            host = target;
        }
        let soa = SOA::new(name("ns.test"), name("hostmaster.test"), 1, 3600, 600, 86400, self.negative_ttl);
        answer.add_authority(Record::from_rdata(host.base_name(), self.negative_ttl, RData::SOA(soa)));
    }
}
