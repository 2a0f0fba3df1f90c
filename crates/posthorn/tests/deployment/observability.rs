//! What watches Posthorn is wired together, and to what is there. (Its images cannot be had everywhere, so nothing here
//! runs but `promtool`, where it is on the PATH.)

use std::collections::BTreeSet;
use std::process::Command;

use serde_yaml_ng::Value;

use super::found::{COMPOSE, read, root, word, yaml};

const COLLECTOR: &str = "deploy/observability/otel-collector.yaml";
const PROMETHEUS: &str = "deploy/observability/prometheus/prometheus.yml";
const GRAFANA: &str = "deploy/observability/grafana";

fn names(mapping: &Value) -> BTreeSet<String> {
    mapping.as_mapping().into_iter().flatten().map(|(name, _)| word(name)).collect()
}

fn words(sequence: &Value) -> BTreeSet<String> {
    sequence.as_sequence().into_iter().flatten().map(word).collect()
}

#[test]
fn the_collectors_pipelines_are_made_of_what_is_defined() {
    let collector = yaml(COLLECTOR);
    let connectors = names(&collector["connectors"]);
    let mut used = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for (name, pipeline) in collector["service"]["pipelines"].as_mapping().unwrap() {
        for (used, kind) in used.iter_mut().zip(["receivers", "processors", "exporters"]) {
            let wanted = words(&pipeline[kind]);
            assert!(!wanted.is_empty() || kind == "processors", "{name:?} has no {kind}");
            used.extend(wanted);
        }
    }
    let [receivers, processors, exporters] = used;
    let defined = |kind: &str| names(&collector[kind]);
    // A connector ends one pipeline and begins another. What is in none does nothing.
    assert_eq!(receivers, &defined("receivers") | &connectors);
    assert_eq!(processors, defined("processors"));
    assert_eq!(exporters, &defined("exporters") | &connectors);
    let otlp = word(&collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]);
    let port = otlp.rsplit(':').next().unwrap();
    assert!(read(COMPOSE).contains(&format!("OTLP_ENDPOINT=http://otel-collector:{port}")), "{otlp}");
}

#[test]
fn prometheus_scrapes_every_service_where_it_listens() {
    let prometheus = yaml(PROMETHEUS);
    let services = names(&yaml(COMPOSE)["services"]);
    let jobs = prometheus["scrape_configs"].as_sequence().unwrap();
    for (container, section) in crate::services().filter(|(container, _)| container.file == COMPOSE) {
        let job = jobs.iter().find(|job| job["job_name"] == container.name.as_str());
        let found = &job.unwrap_or_else(|| panic!("nobody scrapes {container}"))["dns_sd_configs"][0];
        let address = &container.variables[&format!("POSTHORN_{}__LISTEN__HTTP", section.to_uppercase())];
        assert_eq!(words(&found["names"]), [container.name.clone()].into());
        assert_eq!(
            (word(&found["type"]).as_str(), word(&found["port"]).as_str()),
            ("A", address.rsplit(':').next().unwrap())
        );
        // Somebody is called when it is gone.
        let gone = format!("absent(up{{job=\"{}\"}})", container.name);
        assert!(read("deploy/observability/prometheus/alerts.yml").contains(&gone), "no alert has {gone}");
    }
    let collector = word(&yaml(COLLECTOR)["exporters"]["prometheus"]["endpoint"]);
    let targets = jobs.iter().flat_map(|job| job["static_configs"].as_sequence().into_iter().flatten());
    for target in targets.flat_map(|config| words(&config["targets"])) {
        let (host, port) = target.split_once(':').unwrap();
        assert!(services.contains(host) && collector.ends_with(&format!(":{port}")), "{target}");
    }
    for file in words(&prometheus["rule_files"]) {
        yaml(&format!("deploy/observability/prometheus/{file}"));
    }
}

#[test]
fn grafana_shows_what_prometheus_has() {
    let source = &yaml(&format!("{GRAFANA}/provisioning/datasources/prometheus.yaml"))["datasources"][0];
    let grafana = &yaml(COMPOSE)["services"]["grafana"];
    assert!(names(&yaml(COMPOSE)["services"]).contains("prometheus"));
    assert_eq!(
        (word(&source["type"]).as_str(), word(&source["url"]).as_str()),
        ("prometheus", "http://prometheus:9090")
    );
    let folder =
        &yaml(&format!("{GRAFANA}/provisioning/dashboards/posthorn.yaml"))["providers"][0]["options"]["path"];
    let mounted = format!("./{GRAFANA}/dashboards:{}:ro", word(folder));
    assert!(words(&grafana["volumes"]).contains(&mounted), "{mounted}");

    let text = read(&format!("{GRAFANA}/dashboards/posthorn.json"));
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let charts: Vec<_> = panels.iter().filter(|panel| panel["type"] != "row").collect();
    assert!(charts.len() > 10, "{}", charts.len());
    for panel in charts {
        assert_eq!(panel["datasource"]["uid"], word(&source["uid"]), "{}", panel["title"]);
        let targets = panel["targets"].as_array().unwrap();
        assert!(targets.iter().all(|target| target["expr"].is_string()), "{}", panel["title"]);
    }
}

#[test]
fn promtool_has_nothing_against_it() {
    match Command::new("promtool").args(["check", "config"]).arg(root().join(PROMETHEUS)).output() {
        Ok(checked) => assert!(checked.status.success(), "{}", crate::text(&checked.stderr)),
        Err(_) => println!("there is no promtool: the configuration of Prometheus is not checked by it"),
    }
}
