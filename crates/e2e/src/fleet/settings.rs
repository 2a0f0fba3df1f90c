//! The settings of a fleet: everyone reaches everyone through a proxy, and what takes minutes takes seconds.

use std::net::SocketAddr;

use anyhow::Result;

use super::{Link, Service};
use crate::Internet;

/// The settings file of a replica.
pub(super) fn of(
    service: Service,
    number: usize,
    internet: &Internet,
    at: impl Fn(u8, u16) -> SocketAddr + Copy,
) -> Result<String> {
    let link = |link: Link| link.address(at);
    let own = |port: u16| at(service.host(number), port);
    let (smtp, submission) = (own(2525), own(2587));
    let listen = |section: &str, port: u16| {
        format!("[{section}.listen]\ngrpc = '{}'\nhttp = '{}'\n", own(port), own(port + 1000))
    };
    let database = |role: &str, through: Link| {
        format!("url = 'postgres://posthorn_{role}@{}/posthorn'\nstatement_timeout = '8s'\n", link(through))
    };
    let (workers_queue, workers_router) = (link(Link::WorkersQueue), link(Link::WorkersRouter));
    let parts = [
        format!(
            "[ingress]\nhostname = 'mx.example.test'\nqueue = 'http://{}'\nrouter = 'http://{}'\n\
             [ingress.smtp]\nlisten = ['{smtp}']\n[ingress.submission]\nlisten = ['{submission}']\n\
             [ingress.limits]\nconnections_per_client = 1000\n\
             [ingress.handover]\ntimeout = '20s'\n",
            link(Link::IngressQueue),
            link(Link::IngressRouter),
        ),
        listen("ingress", 7001),
        format!(
            "[queue]\nhostname = 'mx.example.test'\nrouter = 'http://{workers_router}'\n[queue.database]\n{}[queue.redis]\nurl = 'redis://{}'\ntimeout = '2s'\n\
             [queue.lease]\nlength = '10s'\n[queue.retry]\nschedule = ['500ms']\nuncertain = '500ms'\n\
             [queue.destination]\nmax_back_off = '2s'\n[queue.sweep]\nevery = '1s'\noverdue = '2s'\n",
            database("queue", Link::QueuePostgres),
            link(Link::QueueRedis),
        ),
        listen("queue", 7002),
        format!(
            "[router]\nqueue = 'http://{workers_queue}'\npostmaster = 'alice@example.test'\n[router.database]\n{}\
             [router.dns]\nservers = ['{}']\n",
            database("router", Link::RouterPostgres),
            internet.dns.address(),
        ),
        listen("router", 7003),
        format!(
            "[local_delivery]\nqueue = 'http://{workers_queue}'\nrouter = 'http://{workers_router}'\n\
             [local_delivery.database]\n{}",
            database("local_delivery", Link::LocalDeliveryPostgres),
        ),
        listen("local_delivery", 7004),
        format!(
            "[relay]\nqueue = 'http://{workers_queue}'\nrouter = 'http://{workers_router}'\nport = {}\n\
             allow_private_destinations = true\nhostname = 'mx.example.test'\n\
             [relay.timeouts]\ngreeting = '5s'\nhello = '5s'\nmail = '5s'\nrcpt = '5s'\ndata = '5s'\nblock = '5s'\n\
             final_dot = '5s'\nconnect = '5s'\n",
            internet.port(),
        ),
        listen("relay", 7005),
    ];
    Ok(parts.concat())
}
