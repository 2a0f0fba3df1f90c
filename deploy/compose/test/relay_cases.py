"""Mail for elsewhere. The name server and the servers that it meets there are in compose.yml.

All messages are sent at once. When nothing waits any more, it is looked where each came, what its sender was told, and,
in the system's own account, what became of each attempt.
"""

import concurrent.futures
import dataclasses
import email
import email.policy
import json
import re
import smtplib

from system import SMTP_PORT, fail, say

SENDER = "sender@relayed.test"
SERVERS = ["first", "second", "old", "mute", "rude"]
OUTCOMES = ["delivered", "deferred", "failed", "uncertain"]


@dataclasses.dataclass
class Case:
    """A message, and what is to become of it."""

    title: str
    to: list = dataclasses.field(default_factory=list)  # whom it comes to
    at: str = ""  # at which server
    attempts: list = dataclasses.field(default_factory=lambda: ["delivered"])
    # Of whom the sender is told, with the status, the server that refused (None: Posthorn did), and the first words.
    bounces: dict = dataclasses.field(default_factory=dict)
    text: str = "Hello.\n"
    number: str = ""  # in the header
    message_id: str = ""  # once it was sent

    def content(self):
        head = f"From: {SENDER}\nSubject: {self.title}\nX-Test: {self.number}\nMIME-Version: 1.0\n"
        head += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
        return (head + self.text).replace("\n", "\r\n").encode()


CASES = [
    Case("the lower preference", ["dave@lower.test"], "first"),
    Case("a host that is not there", ["dave@silent.test"], "second"),
    Case("a host that takes no connection", ["dave@closed.test"], "second"),
    Case("a host that says nothing", ["dave@mute.test"], "second"),
    Case("greylisting", ["grey@grey.test"], "first", ["deferred", "delivered"]),
    Case("put off twice", ["full@full.test"], "first", ["deferred", "deferred", "delivered"]),
    Case("a connection dropped after the dot", ["drop@drop.test"], "first", ["uncertain", "delivered"]),
    Case("8-bit text for a server without 8BITMIME", ["dave@old.test"], "old", text="Grüße aus Köln\n.Punkt\n"),
    Case(
        "one recipient taken, one refused",
        ["dave@half.test"],
        "first",
        bounces={"gone@half.test": ("5.1.1", "first.test", "smtp; 550 5.1.1 nobody of that name is here")},
    ),
    Case(
        "a message too large for the server",
        bounces={"dave@small.test": ("5.3.4", None, "X-Posthorn; 552 5.3.4")},
        text="Hello.\n" * 2000,
    ),
    Case(
        "a server that refuses everything",
        bounces={"dave@rude.test": ("5.7.1", "mx.rude.test", "smtp; 554 5.7.1 go away")},
    ),
    Case("a null MX", bounces={"dave@null.test": ("5.1.10", None, "X-Posthorn; 556 5.1.10")}),
    Case("a domain that does not exist", bounces={"dave@missing.test": ("5.1.2", None, "X-Posthorn; 550 5.1.2")}),
]


def mail_finds_its_way(system):
    system.ctl("router", "domain", "create", SENDER.partition("@")[2])
    system.ctl("router", "account", "create", SENDER)
    for number, case in enumerate(CASES):
        case.number = f"relayed-{number}"
        case.message_id = send(case)
    wrong = [f"still waits: {message}" for message in system.waiting_after(60)]
    with concurrent.futures.ThreadPoolExecutor(4) as readers:
        attempts = readers.map(lambda case: outcomes(system, case), CASES)
        received = [entry for entries in readers.map(lambda at: received_at(system, at), SERVERS) for entry in entries]
    notices = list(notices_in_mailbox(system))
    for case, attempted in zip(CASES, attempts):
        found = wrong_attempts(case, attempted), wrong_arrivals(case, received), wrong_notices(case, notices)
        wrong += [f"{case.title}: {line}" for lines in found for line in lines]
    if wrong:
        fail("relaying did not go as it should:\n" + "\n".join(wrong))
    say(f"{len(CASES)} cases of relaying went as they should")


def send(case):
    """Hands the message in, and returns the id that it was given."""
    with smtplib.SMTP("127.0.0.1", SMTP_PORT, timeout=30) as door:
        door.ehlo("relayed.test")
        replies = [door.mail(SENDER, ["BODY=8BITMIME"])]
        replies += [door.rcpt(recipient) for recipient in [*case.to, *case.bounces]]
        replies.append(door.data(case.content()))
    if any(code != 250 for code, _ in replies):
        fail(f"{case.title}: not accepted: {replies}")
    return re.search(r"queued as (\S+)", replies[-1][1].decode())[1]


def outcomes(system, case):
    """What became of each recipient, attempt by attempt."""
    events = map(json.loads, system.ctl("queue", "--json", "trace", case.message_id).splitlines())
    found = {}
    for event in events:
        if event["kind"] in OUTCOMES:
            found.setdefault(event["recipient"], []).append(event["kind"])
    return found


def received_at(system, server):
    entries = map(json.loads, system.internet(server, "cat", "/received").splitlines())
    return [entry | {"server": server} for entry in entries]


def notices_in_mailbox(system):
    for line in system.ctl("local-delivery", "--json", "mailbox", "list", SENDER).splitlines():
        uid = str(json.loads(line)["uid"])
        yield parsed(system.ctl("local-delivery", "mailbox", "read", SENDER, uid, "--raw").encode())


def parsed(message):
    return email.message_from_bytes(message, policy=email.policy.default)


def wrong_attempts(case, attempted):
    wanted = {to: case.attempts for to in case.to} | {to: ["failed"] for to in case.bounces}
    if attempted != wanted:
        yield f"the attempts were {attempted}, not {wanted}"


def wrong_arrivals(case, received):
    """A server has what it took, also where it did not say so."""
    entries = [entry for entry in received if entry["number"] == case.number]
    taken = sum(outcome in ("delivered", "uncertain") for outcome in case.attempts)
    wanted = sorted((case.at, to) for to in case.to for _ in range(taken))
    came = sorted((entry["server"], entry["to"]) for entry in entries)
    if came != wanted:
        yield f"it came to {came}, not to {wanted}"
    for entry in entries:
        content, mail = entry["content"].encode("latin-1"), entry["mail"]
        if not mail.startswith(f"<{SENDER}>"):
            yield f"its sender became {mail}"
        if entry["server"] != "old" and not content.endswith(case.content()):
            yield f"it came as {content}"
        # RFC 6152 §3
        if entry["server"] == "old" and not (content.isascii() and "BODY=" not in mail and text(content) == case.text):
            yield f"it was converted to {content} after MAIL FROM:{mail}"


def text(message):
    return parsed(message).get_content().replace("\r\n", "\n")


def wrong_notices(case, notices):
    """RFC 3464: one notice, of those who are to be told of, with the message or its headers."""
    about = [notice for notice in notices if re.search(rf"^X-Test: {case.number}\s*$", notice.as_string(), re.M)]
    if len(about) != bool(case.bounces):
        yield f"{len(about)} notices"
    for notice in about:
        kind = notice.get_content_type(), notice.get_param("report-type"), notice["Return-Path"]
        if kind != ("multipart/report", "delivery-status", "<>"):
            yield f"the notice is {kind}"
        told = {block["Final-Recipient"]: block for block in notice.get_payload(1).get_payload()[1:]}
        if told.keys() != {f"rfc822; {to}" for to in case.bounces}:
            yield f"the notice is about {list(told)}"
        for to, (status, server, words) in case.bounces.items():
            block = told.get(f"rfc822; {to}", {})
            got = block.get("Action"), block.get("Status"), block.get("Remote-MTA")
            if got != ("failed", status, server and f"dns; {server}"):
                yield f"of {to} it is told {got}"
            diagnostic = block.get("Diagnostic-Code", "")
            if not diagnostic.startswith(words):
                yield f"the words are `{diagnostic}`, not `{words}`"
