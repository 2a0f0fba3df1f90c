"""The golden sessions of crates/smtp, played over a socket with the system as it is scaled.

Their format is explained in crates/smtp/tests/server/transcripts.rs, their escapes in shell.rs beside it. There a shell
with simple rules stands behind the session; here it is the router that knows the recipients, and the queue that takes
the messages. The words of these differ, so that codes are compared; where there is no enhanced code, the whole line.
"""

import collections
import glob
import json
import re
import socket

from system import ROOT, SMTP_PORT, fail, say

# In place of the transcripts' example.test, whose mailboxes are the traffic's; as long as that, for what counts octets.
DOMAIN = "another.test"
HOSTNAME = "mail.example.test"  # MAIL_HOSTNAME of docker-compose.yml; the transcripts have mx.example.test
MORE_THAN = 60
PATIENCE = 20
LEFT_OUT = re.compile(
    r"^! |"  # Settings of its own: the system has one set for all.
    r"^\+|"  # Minutes that pass.
    r"^~ |"  # What befalls the server or the connection, or whose client it is: only the shell can bring that about.
    r"<later@|^C: Refuse",  # What router and queue say here in trouble only, and the shell when it is asked to.
    re.MULTILINE,
)
ESCAPES = {"": b"", "r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


class Difference(Exception):
    """A session goes otherwise than written."""


def smtp_goes_as_written(system):
    """Plays all that can be played, and looks whether what was taken came to the mailboxes, and nothing else."""
    cases = [case for case in transcripts() if not LEFT_OUT.search(case)]
    if len(cases) <= MORE_THAN:
        fail(f"only {len(cases)} SMTP sessions can be played")
    mailboxes = make_mailboxes(system, cases)
    wrong = [difference for difference in map(play, cases) if difference]
    wrong += [f"still waits: {message}" for message in system.waiting_after(60)]
    wrong += wrong_in_mailboxes(system, mailboxes, cases)
    if wrong:
        fail("SMTP sessions did not go as written:\n" + "\n".join(wrong))
    say(f"{len(cases)} SMTP sessions went as written")


def transcripts():
    for path in sorted(glob.glob(f"{ROOT}/crates/smtp/tests/transcripts/server-*.txt")):
        with open(path, encoding="utf-8", newline="") as file:
            yield from (case.removeprefix("== ").rstrip() for case in file.read().split("\n== "))


def make_mailboxes(system, cases):
    """Of those whom the shell knows, as far as they are in its domain."""
    asked_for = (to for case in cases for line in events(case, "verify") for to in recipients(line))
    mailboxes = sorted({to for to in asked_for if to.endswith(f"@{DOMAIN}") and not to.startswith("unknown")})
    system.ctl("router", "domain", "create", DOMAIN)
    for mailbox in mailboxes:
        system.ctl("router", "account", "create", mailbox)
    return mailboxes


def events(case, *kinds):
    """What the shell is asked to do."""
    return [line for line in case.split("\n") if line.startswith(tuple(f"E: {kind}" for kind in kinds))]


def recipients(event):
    """Those of `E: verify` and `E: begin`, as their mailboxes are called."""
    found = re.findall(r'<("(?:\\.|[^"\\])*"@[^>]+|[^>"]+@[^>]+)>', event.partition(" to=")[2])
    return [address.replace("example.test", DOMAIN).lower() for address in found]


def play(case):
    """Nothing, or where the session first goes otherwise."""
    title, *lines = case.split("\n")
    said = "connecting"
    try:
        with Client(in_full=title.endswith("in full")) as client:
            for line in [*lines, "C: QUIT", "S: 221 2.0.0 Bye", "E: close"]:
                kind, text = line[:3], line[3:]
                if kind in ("C: ", "C< "):
                    said = line
                    client.send(unescape(text.replace("example.test", DOMAIN)) + (b"\r\n" if kind == "C: " else b""))
                elif kind == "S: ":
                    client.expect(text)
                elif line == "E: close":
                    return client.expect_end()
    except (Difference, OSError) as error:
        return f"{title}: after `{said}`: {error}"


class Client:
    """A client at the door of all ingresses."""

    def __init__(self, in_full):
        self.in_full = in_full  # all lines of a reply are wanted, not just the last
        self.socket = socket.create_connection(("127.0.0.1", SMTP_PORT), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def expect(self, reply):
        while (line := self.line())[3:4] == "-" and not self.in_full:
            pass
        if codes(line) != codes(reply):
            raise Difference(f"wanted `{reply}`, got `{line or 'the end'}`")

    def expect_end(self):
        try:
            line = self.line()
        except ConnectionResetError:
            return
        if line:
            raise Difference(f"wanted the end of the connection, got `{line}`")

    def line(self):
        return self.lines.readline().decode().removesuffix("\r\n")


def codes(reply):
    both = re.match(r"\d{3}[ -]\d\.\d+\.\d+ ", reply)
    return both[0] if both else reply.replace("mx.example.test", HOSTNAME)


def unescape(text):
    data = b""
    for repeated, times, octet, letter, plain in re.findall(r"\{([^}]*)\*(\d+)\}|\\x(..)|\\(.)|(.)", text):
        if times:
            data += unescape(repeated) * int(times)
        else:
            data += bytes.fromhex(octet) + ESCAPES[letter] + plain.encode()
    return data


def wrong_in_mailboxes(system, mailboxes, cases):
    """Each recipient of each message that was taken has it; what was refused or smuggled is nowhere."""
    wanted, to = collections.Counter(), []
    for event in (event for case in cases for event in events(case, "begin", "end")):
        if event.startswith("E: begin"):
            to = recipients(event)
        else:
            wanted.update(to)
    for mailbox in mailboxes:
        listed = system.ctl("local-delivery", "--json", "mailbox", "list", mailbox).splitlines()
        if len(listed) != wanted[mailbox]:
            subjects = [json.loads(line)["subject"] for line in listed]
            yield f"{mailbox} has {len(listed)} messages, not {wanted[mailbox]}: {subjects}"
