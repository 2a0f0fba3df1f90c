"""The rest of the internet, for the test: a name server and a mail server, of Python's standard library alone.

    internet.py dns NAME=ADDRESS ...     every name below .test has the MX `mx.NAME`; mx.NAME has the address given
    internet.py smtp                     takes all mail on port 25, and appends a JSON line for each to /received
    internet.py get URL                  prints what is there (the metrics of a container without a shell)

The mail server puts off the first attempt for each recipient whose name begins with `grey` (451, then 250).
"""

import json
import re
import socket
import socketserver
import struct
import sys
import threading
import time
import urllib.request

A, MX, AAAA = 1, 15, 28
NXDOMAIN = 3


def encoded(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def answer(query, addresses):
    """The response to a DNS query of one question. `addresses`: domain to the address of its mail server."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    question, name = query[12 : at + 5], ".".join(labels)
    domain = name.removeprefix("mx.")
    code, data = 0, None
    if domain not in addresses:
        code = NXDOMAIN
    elif name == domain and kind == MX:
        data = struct.pack("!H", 10) + encoded("mx." + domain)
    elif name != domain and kind == A:
        data = socket.inet_aton(addresses[domain])
    header = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data if data else b""
    return header + question + record


def serve_dns(addresses):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    while True:
        query, peer = server.recvfrom(4096)
        server.sendto(answer(query, addresses), peer)


class Smtp(socketserver.StreamRequestHandler):
    """One SMTP session."""

    seen = set()  # recipients that were put off once
    lock = threading.Lock()
    disable_nagle_algorithm = True

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 mx.test ESMTP")
        sender, recipients = None, []
        while line := self.rfile.readline().decode("utf-8", "replace").strip():
            verb = line[:4].upper()
            if verb in ("EHLO", "HELO"):
                self.wfile.write(b"250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n")
            elif verb == "MAIL":
                sender, recipients = line[10:], []
                self.say("250 2.1.0 ok")
            elif verb == "RCPT":
                recipient = re.search("<(.*)>", line)[1]
                if self.puts_off(recipient):
                    self.say("451 4.7.1 greylisted, come back")
                else:
                    recipients.append(recipient)
                    self.say("250 2.1.5 ok")
            elif verb == "DATA" and recipients:
                self.say("354 go on")
                content = self.content()
                if content is None:
                    return
                self.keep(content, sender, recipients)
                self.say("250 2.0.0 kept")
            elif verb == "DATA":
                self.say("503 5.5.1 no recipients")
            elif verb == "QUIT":
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("250 2.0.0 ok")

    def puts_off(self, recipient):
        with self.lock:
            first = recipient.startswith("grey") and recipient not in self.seen
            self.seen.add(recipient)
            return first

    def content(self):
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                return None
            lines.append(line)
        return b"".join(lines)

    def keep(self, content, sender, recipients):
        number = re.search(rb"^X-Test: (\S+)", content, re.M)
        number = number[1].decode() if number else ""
        with self.lock, open("/received", "a") as received:
            for recipient in recipients:
                entry = {"number": number, "to": recipient, "from": sender, "at": time.time()}
                received.write(json.dumps(entry) + "\n")


class SmtpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main(command, *arguments):
    if command == "dns":
        serve_dns(dict(argument.split("=") for argument in arguments))
    elif command == "smtp":
        open("/received", "a").close()
        SmtpServer(("0.0.0.0", 25), Smtp).serve_forever()
    elif command == "get":
        sys.stdout.write(urllib.request.urlopen(arguments[0], timeout=10).read().decode())


main(*sys.argv[1:])
