"""Mail servers of several characters. Each appends a JSON line to /received for each recipient of what it takes."""

import collections
import json
import re
import socketserver
import threading
import time

RECEIVED = "/received"
# The reply to RCPT, and how often it comes, by what the recipient's name begins with.
REPLIES = {
    "grey": (1, "451 4.7.1 greylisted, come back"),
    "full": (2, "452 4.2.2 the mailbox is full"),
    "gone": (float("inf"), "550 5.1.1 nobody of that name is here"),
}


class Plain(socketserver.StreamRequestHandler):
    """One SMTP session. A recipient whose name begins with `drop` finds the connection dropped after the first dot."""

    offers = ["PIPELINING", "8BITMIME", "SIZE 100000000"]
    asked = collections.Counter()  # how often there was a RCPT for each
    lock = threading.Lock()
    disable_nagle_algorithm = True

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 mx.test ESMTP")
        mail, recipients = None, []
        while line := self.rfile.readline().decode("utf-8", "replace").strip():
            verb = line[:4].upper()
            if verb in ("EHLO", "HELO"):
                lines = ["mx.test", *self.offers]
                self.wfile.write(b"".join(f"250-{line}\r\n".encode() for line in lines[:-1]))
                self.say(f"250 {lines[-1]}")
            elif verb == "MAIL":
                mail, recipients = line[10:], []
                self.say("250 2.1.0 ok")
            elif verb == "RCPT":
                recipient = re.search("<(.*)>", line)[1]
                reply = self.reply(recipient)
                if reply.startswith("250"):
                    recipients.append(recipient)
                self.say(reply)
            elif verb == "DATA" and recipients:
                self.say("354 go on")
                content = self.content()
                if content is None:
                    return
                self.keep(content, mail, recipients)
                if any(self.drops(recipient) for recipient in recipients):
                    return
                self.say("250 2.0.0 kept")
            elif verb == "DATA":
                self.say("503 5.5.1 no recipients")
            elif verb == "QUIT":
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("250 2.0.0 ok")

    def reply(self, recipient):
        with self.lock:
            self.asked[recipient] += 1
            for beginning, (times, reply) in REPLIES.items():
                if recipient.startswith(beginning) and self.asked[recipient] <= times:
                    return reply
        return "250 2.1.5 ok"

    def drops(self, recipient):
        return recipient.startswith("drop") and self.asked[recipient] == 1

    def content(self):
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                return None
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def keep(self, content, mail, recipients):
        number = re.search(rb"^X-Test: (\S+)", content, re.M)
        entry = {"number": number[1].decode() if number else "", "mail": mail, "at": time.time()}
        entry["content"] = content.decode("latin-1")
        with self.lock, open(RECEIVED, "a") as received:
            for recipient in recipients:
                received.write(json.dumps(entry | {"to": recipient}) + "\n")


class Old(Plain):
    """Knows few extensions and takes little."""

    offers = ["SIZE 10000"]


class Mute(Plain):
    """Says nothing, and holds the line."""

    def handle(self):
        self.rfile.read()


class Rude(Plain):
    """Refuses everything for good."""

    def handle(self):
        self.say("554 5.7.1 go away")
        while self.rfile.readline():
            self.say("554 5.7.1 go away")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def serve(character):
    open(RECEIVED, "a").close()
    Server(("0.0.0.0", 25), {"plain": Plain, "old": Old, "mute": Mute, "rude": Rude}[character]).serve_forever()
