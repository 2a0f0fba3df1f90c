"""The system under test: docker-compose.yml with an internet of its own, driven by the command lines of an operator."""

import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../../.."))
BASE_IMAGES = {"RUST_IMAGE": "rust:1-slim-bookworm", "POSTGRES_IMAGE": "postgres:17-bookworm"}
BASE_IMAGES |= {"REDIS_IMAGE": "redis:7-bookworm", "BASE_IMAGE": "debian:bookworm-slim"}
IMAGE = "posthorn:test"
VERSION = "0.0.0-test"
SMTP_PORT = 62525  # beside a system that has the usual one
HTTP_PORTS = {"ingress": 8001, "queue": 8002, "router": 8003, "local-delivery": 8004, "remote-relay": 8005}
INTERNET = "posthorn-test-internet:local"
BUILT_ALREADY = "posthorn-test-built-already:local"
HEALTH = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
BEGAN = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {text}", flush=True)


def fail(text):
    raise SystemExit(f"test-compose: {text}")


def command(*arguments, check=True, env=None):
    """What a command prints on standard output."""
    done = subprocess.run(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if check and done.returncode:
        fail(f"{' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()


def compose_commands():
    """Each Compose there is, the one that is to be used first."""
    found = [os.environ.get("COMPOSE", "").split(), ["docker", "compose"], ["docker-compose"]]
    found.append([os.path.join(ROOT, "target/tools/bin/docker-compose")])
    works = lambda words: subprocess.run([*words, "version"], capture_output=True).returncode == 0
    found = [words for words in found if words and shutil.which(words[0]) and works(words)]
    return found or fail("there is neither `docker compose` nor `docker-compose`")


class System:
    def __init__(self, replicas):
        self.replicas = replicas
        self.project = f"posthorn-test-{os.getpid()}"
        self.network = f"{self.project}_posthorn"
        self.compose_command = compose_commands()[0]
        self.env = os.environ | {
            "COMPOSE_FILE": f"{ROOT}/docker-compose.yml:{HERE}/compose.yml",
            "COMPOSE_PROJECT_NAME": self.project,
            "POSTHORN_IMAGE": IMAGE,
            "TRUSTED_NETWORKS": '["127.0.0.0/8", "10.213.77.0/24"]',
            "SMTP_PORT": str(SMTP_PORT),
            "SUBMISSION_PORT": "62587",
            "INGRESS_PORT": "62001",
            "QUEUE_PORT": "62002",
            "ROUTER_PORT": "62003",
            "LOCAL_DELIVERY_PORT": "62004",
            "RELAY_PORT": "62005",
        }

    def docker(self, *arguments, check=True):
        return command("docker", *arguments, check=check)

    def compose(self, *arguments, check=True):
        return command(*self.compose_command, *arguments, check=check, env=self.env)

    def every_compose_takes_the_files(self):
        for words in compose_commands():
            for over in (f"{HERE}/compose.yml", f"{ROOT}/deploy/compose/world.yml"):
                files = self.env | {"COMPOSE_FILE": f"{ROOT}/docker-compose.yml:{over}"}
                command(*words, "--profile", "tools", "--profile", "observability", "config", "-q", env=files)
            say(f"the files are right by `{' '.join(words)}`")

    def build(self):
        """Our image and that of the internet; the base images must be there or come from a registry."""
        for name, default in BASE_IMAGES.items():
            image = os.environ.get(name, default)
            if not self.docker("images", "-q", image):
                self.docker("pull", image)
        say("build the image")
        rust = os.environ.get("RUST_IMAGE", BASE_IMAGES["RUST_IMAGE"])
        if "POSTHORN_TEST_BINARY" in os.environ:
            rust = self.built_already(rust, os.environ["POSTHORN_TEST_BINARY"])
        arguments = {"RUST_IMAGE": rust, "VERSION": VERSION, "REVISION": "of the test"}
        arguments = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        self.docker("build", "-q", "-f", "deploy/Dockerfile", *arguments, "-t", IMAGE, ".")
        base = os.environ.get("BASE_IMAGE", BASE_IMAGES["BASE_IMAGE"])
        self.docker("build", "-q", "--build-arg", f"BASE_IMAGE={base}", "-t", INTERNET, HERE)

    def built_already(self, rust, binary):
        """A Rust image that does not compile: its cargo hands out the binary given."""
        with tempfile.TemporaryDirectory() as context:
            shutil.copy(os.path.join(ROOT, binary), os.path.join(context, "posthorn"))
            built = ["-f", os.path.join(HERE, "built-already.Dockerfile"), "--build-arg", f"RUST_IMAGE={rust}"]
            self.docker("build", "-q", *built, "-t", BUILT_ALREADY, context)
        return BUILT_ALREADY

    def up(self):
        say("bring it up: " + ", ".join(f"{n} {service}" for service, n in self.replicas.items()))
        self.scale(self.replicas)
        self.wait_healthy([c for service in self.replicas for c in self.containers(service)])
        say("all are healthy")

    def scale(self, replicas):
        wanted = [word for service, n in replicas.items() for word in ("--scale", f"{service}={n}")]
        self.compose("up", "-d", "--no-build", "--no-recreate", *wanted)

    def down(self):
        self.compose("down", "-v", "-t", "1", check=False)

    def containers(self, service):
        """The names of a service's containers, running or not."""
        ids = self.compose("ps", "-a", "-q", service).split()
        return sorted(self.inspect(i, "{{.Name}}").lstrip("/") for i in ids)

    def inspect(self, container, what):
        return self.docker("inspect", "-f", what, container)

    def wait_healthy(self, containers, limit=120):
        deadline = time.monotonic() + limit
        for container in containers:
            while (health := self.inspect(container, HEALTH)) != "running healthy":
                if time.monotonic() > deadline:
                    fail(f"{container} is {health} after {limit} s")
                time.sleep(0.5)

    def ctl(self, service, *arguments, check=True):
        """`posthorn ctl` in a container of that service which runs."""
        for container in self.containers(service):
            if self.inspect(container, "{{.State.Status}}") == "running":
                return self.docker("exec", container, "posthorn", "ctl", *arguments, check=check)
        fail(f"no {service} runs")

    def waiting_after(self, limit):
        """The messages that have not come to their end by then, one line each; returns as soon as there are none."""
        deadline = time.monotonic() + limit
        while waiting := self.ctl("queue", "--json", "queue", "list").splitlines():
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        return waiting

    def internet(self, service, *arguments):
        return self.docker("exec", self.containers(service)[0], *arguments)

    def metric(self, container, name):
        """The sum of a metric of one container over its labels."""
        address = self.inspect(container, f'{{{{(index .NetworkSettings.Networks "{self.network}").IPAddress}}}}')
        port = HTTP_PORTS[self.service_of(container)]
        text = self.internet("dns", "python3", "/internet.py", "get", f"http://{address}:{port}/metrics")
        values = [float(line.split()[-1]) for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        return sum(values)

    def service_of(self, container):
        return self.inspect(container, '{{index .Config.Labels "com.docker.compose.service"}}')

    def keep_logs(self):
        """After a failure: what every container said."""
        folder = os.path.join(ROOT, "target", "test-compose")
        os.makedirs(folder, exist_ok=True)
        for line in self.docker("ps", "-a", "--filter", f"name={self.project}", "--format", "{{.Names}}").split():
            with open(os.path.join(folder, f"{line.removeprefix(self.project)[1:]}.log"), "w") as log:
                subprocess.run(["docker", "logs", line], stdout=log, stderr=subprocess.STDOUT)
        print(f"what the containers said is in {folder}", file=sys.stderr)
