//! Static routes.

use std::net::IpAddr;

use posthorn_api::directory::v1 as wire;
use posthorn_api::error::invalid;
use posthorn_mail::Domain;
use tonic::Status;

use crate::cache::Change;
use crate::directory::routes;
use crate::grpc::{failed, field};
use crate::known::{RouteHost, StaticRoute};
use crate::router::Router;

/// How many hosts a route may have.
const MOST_HOSTS: usize = 20;

pub(crate) async fn create(
    router: &Router,
    request: wire::CreateRouteRequest,
) -> Result<wire::CreateRouteResponse, Status> {
    let route = field::required("route", request.route)?;
    let pattern = pattern("route.domain", &route.domain)?;
    if !(1..=MOST_HOSTS).contains(&route.hosts.len()) {
        return Err(invalid("route.hosts", format!("has not 1 to {MOST_HOSTS} hosts")));
    }
    let hosts = route.hosts.iter().enumerate().map(|(at, host)| read_host(at, host));
    let route = StaticRoute { pattern, hosts: hosts.collect::<Result<_, Status>>()? };
    routes::insert(&router.pool, &route)
        .await
        .map_err(|error| failed(&format!("route {}", route.pattern), error))?;
    router.change(&Change::Routes).await;
    Ok(wire::CreateRouteResponse { route: Some(shown(route)) })
}

pub(crate) async fn list(
    router: &Router,
    request: wire::ListRoutesRequest,
) -> Result<wire::ListRoutesResponse, Status> {
    let (size, limit) = field::page_size(request.page_size)?;
    let after = field::after_name(&request.page_token)?;
    let mut rows = routes::list(&router.pool, after, limit).await.map_err(|error| failed("routes", error))?;
    let next_page_token = field::cut_page(&mut rows, size, |route| route.pattern.clone());
    Ok(wire::ListRoutesResponse { routes: rows.into_iter().map(shown).collect(), next_page_token })
}

pub(crate) async fn delete(
    router: &Router,
    request: wire::DeleteRouteRequest,
) -> Result<wire::DeleteRouteResponse, Status> {
    let pattern = pattern("domain", &request.domain)?;
    routes::delete(&router.pool, &pattern)
        .await
        .map_err(|error| failed(&format!("route {pattern}"), error))?;
    router.change(&Change::Routes).await;
    Ok(wire::DeleteRouteResponse {})
}

/// A domain, ".example.com", or "*".
fn pattern(name: &str, text: &str) -> Result<String, Status> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let below = text.strip_prefix('.');
    let domain: Domain = field::domain(name, below.unwrap_or(text))?;
    Ok(if below.is_some() { format!(".{domain}") } else { domain.to_string() })
}

fn read_host(at: usize, host: &wire::RouteHost) -> Result<RouteHost, Status> {
    let port = u16::try_from(host.port)
        .map_err(|_| invalid(format!("route.hosts[{at}].port"), "is larger than 65535"))?;
    let name = match host.host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => field::domain(&format!("route.hosts[{at}].host"), &host.host)?.to_string(),
    };
    Ok(RouteHost { host: name, port })
}

fn shown(route: StaticRoute) -> wire::Route {
    let host = |host: RouteHost| wire::RouteHost { host: host.host, port: host.port.into() };
    wire::Route { domain: route.pattern, hosts: route.hosts.into_iter().map(host).collect() }
}
