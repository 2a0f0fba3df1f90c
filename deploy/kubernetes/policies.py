"""Holds the network policies of rendered manifests to R6: who faces the internet does not reach the stores, and who must
talk can.

    policies.py FILE ...     each FILE a system of its own; a line for each thing that is wrong; fails if there is one

As Kubernetes does it (https://kubernetes.io/docs/concepts/services-networking/network-policies/): a pod that no policy
selects may do anything; otherwise what any of its policies allows, at both ends.
"""

import collections
import ipaddress
import re
import sys

import yaml

POSTGRES, REDIS = 5432, 6379
MAY_REACH = {POSTGRES: {"queue", "router", "local-delivery", "migrate"}, REDIS: {"queue"}}
STORES = {"postgres": POSTGRES, "redis": REDIS, "posthorn-db": POSTGRES}
SECTIONS = {"LOCAL_DELIVERY": "local-delivery", "RELAY": "remote-relay"}  # where the name is not that of the service
WORLD, INSIDE = ipaddress.ip_address("198.51.100.7"), ipaddress.ip_address("10.9.8.7")

Pod = collections.namedtuple("Pod", "name labels ports namespace")
ELSEWHERE = [
    Pod("somebody elsewhere", {}, {}, {"kubernetes.io/metadata.name": "elsewhere"}),
    Pod("a program", {}, {}, {"posthorn.dev/programs": "true"}),
    Pod("the monitoring", {}, {}, {"posthorn.dev/monitoring": "true"}),
]
OURS = {"kubernetes.io/metadata.name": "posthorn"}


def matches(selector, labels):
    """Whether a label selector takes these labels. Operators that the manifests do not use are not known here."""
    for wanted in selector.get("matchExpressions", []):
        if wanted["operator"] != "In":
            raise ValueError(wanted["operator"])
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


class System:
    def __init__(self, documents):
        of_kind = lambda *kinds: [d for d in documents if d["kind"] in kinds]
        self.policies = [d["spec"] for d in of_kind("NetworkPolicy")]
        self.services = {d["metadata"]["name"]: d["spec"] for d in of_kind("Service")}
        self.settings = {k: v for d in of_kind("ConfigMap") for k, v in d["data"].items()}
        self.pods = [self.pod(d) for d in of_kind("Deployment", "StatefulSet", "Job")]
        self.pods.append(Pod("ctl", {"app.kubernetes.io/name": "ctl"}, {}, OURS))
        for cluster in of_kind("Cluster"):
            name = cluster["metadata"]["name"]
            self.pods.append(Pod(name, {"cnpg.io/cluster": name}, {"postgres": POSTGRES}, OURS))
        blocks = re.findall(r"'cidr': '(.*?)'", str(self.policies))
        in_blocks = [ipaddress.ip_network(block)[-1] for block in blocks if not block.endswith("/0")]
        self.everybody = [*self.pods, *ELSEWHERE, WORLD, INSIDE, *in_blocks]

    def pod(self, document):
        template = document["spec"]["template"]
        ports = [p for c in template["spec"]["containers"] for p in c.get("ports", [])]
        named = {port["name"]: port["containerPort"] for port in ports}
        return Pod(document["metadata"]["name"], template["metadata"]["labels"], named, OURS)

    def allows(self, pod, way, other, port, at):
        """Whether the policies of a pod let it talk that `way` with another; `at` is whose port it is."""
        rules = [
            policy.get(way.lower(), [])
            for policy in self.policies
            if way in policy["policyTypes"] and pod.namespace == OURS and matches(policy["podSelector"], pod.labels)
        ]
        return not rules or any(self.permits(rule, way, other, port, at) for some in rules for rule in some)

    def permits(self, rule, way, other, port, at):
        names = at.ports if isinstance(at, Pod) else {}
        ports = [names.get(p["port"], p["port"]) for p in rule.get("ports", []) if p.get("protocol", "TCP") == "TCP"]
        peers = rule.get("from" if way == "Ingress" else "to", [])
        return ("ports" not in rule or port in ports) and (not peers or any(self.is_peer(p, other) for p in peers))

    def is_peer(self, peer, other):
        if "ipBlock" in peer:
            inside = lambda block: other in ipaddress.ip_network(block)
            block = peer["ipBlock"]
            return not isinstance(other, Pod) and inside(block["cidr"]) and not any(map(inside, block.get("except", [])))
        if not isinstance(other, Pod):
            return False
        spaces = peer["namespaceSelector"] if "namespaceSelector" in peer else {"matchLabels": OURS}
        return matches(spaces, other.namespace) and matches(peer.get("podSelector", {}), other.labels)

    def sends(self, pod, to, port):
        return self.allows(pod, "Egress", to, port, to)

    def takes(self, pod, of, port):
        return self.allows(pod, "Ingress", of, port, pod)

    def wrong(self):
        """All that must not be, one line each."""
        yield from self.wrong_ways_to_stores()
        yield from self.wrong_ways_with_the_world()
        yield from self.ways_that_are_shut()

    def wrong_ways_to_stores(self):
        clients = [pod for pod in self.pods if pod.name not in STORES]
        for port, may in MAY_REACH.items():
            can = {pod.name for pod in clients if any(self.sends(pod, to, port) for to in self.everybody)}
            if can != may:
                yield f"to port {port} may send {sorted(can)}, and not {sorted(may)}"
        for store in (pod for pod in self.pods if pod.name in STORES):
            for other in self.everybody:
                may = isinstance(other, Pod) and other.name in MAY_REACH[STORES[store.name]] | {store.name}
                if self.takes(store, other, STORES[store.name]) and not may:
                    yield f"{store.name} takes connections of {getattr(other, 'name', other)}"

    def wrong_ways_with_the_world(self):
        numbers = {port for pod in self.pods for port in pod.ports.values()}
        open_to = {(pod.name, port) for pod in self.pods for port in numbers if self.takes(pod, WORLD, port)}
        if open_to != {("ingress", 2525), ("ingress", 2587)}:
            yield f"open to the world: {sorted(open_to)}"
        for port in (25, 465, 587):
            can = {pod.name for pod in self.pods if pod.name not in STORES and self.sends(pod, WORLD, port)}
            if can != {"remote-relay"}:
                yield f"to port {port} of the world may send {sorted(can)}"
            if any(self.sends(pod, INSIDE, port) for pod in self.pods if pod.name == "remote-relay"):
                yield f"remote-relay may send to port {port} of private addresses"

    def ways_that_are_shut(self):
        for client, service, port in self.urls():
            yield from self.shut(client, service, port)
        for store in STORES.keys() & self.services.keys():
            for name in MAY_REACH[STORES[store]]:
                yield from self.shut(name, store, STORES[store])
        for name in ("ingress", "queue", "router", "local-delivery", "remote-relay"):
            yield from self.shut("ctl", name, self.port_of(name, "grpc"))
            pod = next(pod for pod in self.pods if pod.name == name)
            if not self.takes(pod, ELSEWHERE[2], pod.ports["http"]):
                yield f"{name} does not let its metrics be read"

    def urls(self):
        """Who is to call which port of which service, by the settings."""
        for name, value in self.settings.items():
            section = name.removeprefix("POSTHORN_").split("__")[0]
            if url := re.fullmatch(r"http://([a-z-]+):(\d+)", value):
                yield SECTIONS.get(section, section.lower()), url[1], int(url[2])

    def port_of(self, service, name):
        return next(port["port"] for port in self.services[service]["ports"] if port["name"] == name)

    def shut(self, client, service, number):
        """Whether the way of a client to a port of a service is shut at either end."""
        target = [p["targetPort"] for p in self.services.get(service, {}).get("ports", []) if p["port"] == number]
        if not target:
            yield f"{client} is to talk to {service}:{number}, which no Service has"
            return
        clients = [pod for pod in self.pods if pod.name == client]
        servers = [p for p in self.pods if self.services[service]["selector"].items() <= p.labels.items()]
        if not clients or not servers:
            yield f"there is no pod of {client}, or none of {service}"
        for one, other in ((one, other) for one in clients for other in servers):
            port = other.ports.get(target[0], target[0])
            if not self.sends(one, other, port):
                yield f"{client} may not send to {service}:{port}"
            if not self.takes(other, one, port):
                yield f"{service} does not take connections of {client} at {port}"


def main(files):
    found, ways = [], 0
    for file in files:
        system = System(list(yaml.safe_load_all(open(file))))
        ways += len(list(system.urls()))
        found += [f"{file}: {what}" for what in system.wrong()]
    print("\n".join(found) or f"manifests: only who must reaches the stores, and {ways} ways between services are open")
    sys.exit(bool(found) or not ways)


main(sys.argv[1:])
