"""Mail that flows while things happen, and the account of it."""

import collections
import contextlib
import itertools
import json
import smtplib
import threading
import time

from system import SMTP_PORT

SENDERS = 4
PAUSE = 0.2  # of each sender between messages
RECIPIENTS = ["alice@example.test", "bob@example.test", "alice@example.test", "friend@far.test"]


class Traffic:
    """Sends, remembers what was accepted, and looks where it is."""

    def __init__(self, system):
        self.system = system
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.accepted = {}  # number: recipient
        self.unsure = {}  # the connection broke after the dot: it may have been accepted
        self.refused = {}  # for good, which nothing here deserves
        self.turned_away = 0  # not accepted, as far as the sender knows

    @contextlib.contextmanager
    def flowing(self):
        """Mail flows, with pauses, until the end of the block."""
        stop = threading.Event()
        senders = [threading.Thread(target=self.keep_sending, args=(stop,)) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        try:
            yield
        finally:
            stop.set()
            for sender in senders:
                sender.join()

    def keep_sending(self, stop):
        while not stop.is_set():
            self.send_one()
            stop.wait(PAUSE)

    def send_now(self, count, recipient="alice@example.test"):
        """As many messages as fast as they are taken."""
        share = count // SENDERS
        send = lambda: [self.send_one(recipient) for _ in range(share)]
        senders = [threading.Thread(target=send) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    def send_one(self, recipient=None):
        with self.lock:
            number = f"n{next(self.numbers):06}"
        index = int(number[1:])
        recipient = recipient or RECIPIENTS[index % len(RECIPIENTS)]
        if recipient == "friend@far.test" and index % 16 == 3:
            recipient = f"grey{index}@far.test"
        text = f"From: tester@example.test\r\nTo: {recipient}\r\nSubject: {number}\r\nX-Test: {number}\r\n\r\nHello.\r\n"
        after_the_dot = False
        try:
            with smtplib.SMTP("127.0.0.1", SMTP_PORT, timeout=30) as door:
                door.ehlo("tester.test")
                for code, words in (door.mail("tester@example.test"), door.rcpt(recipient)):
                    if code != 250:
                        raise smtplib.SMTPResponseException(code, words)
                after_the_dot = True
                code, words = door.data(text)
                after_the_dot = False
                if code != 250:
                    raise smtplib.SMTPResponseException(code, words)
                with self.lock:
                    self.accepted[number] = recipient
        except (OSError, smtplib.SMTPException) as error:
            with self.lock:
                if number in self.accepted:
                    return  # only the goodbye failed
                if not isinstance(error, smtplib.SMTPResponseException):
                    if after_the_dot:
                        self.unsure[number] = recipient
                elif error.smtp_code >= 500:
                    self.refused[number] = f"{error.smtp_code} {error.smtp_error}"
                self.turned_away += 1
            time.sleep(0.2)

    def forget(self, numbers):
        """These are to be lost."""
        for number in numbers:
            del self.accepted[number]

    def found(self):
        """How often each number is where it belongs."""
        counts = collections.Counter()
        for mailbox in ("alice@example.test", "bob@example.test"):
            listed = self.system.ctl("local-delivery", "--json", "mailbox", "list", mailbox)
            counts.update(json.loads(line)["subject"] for line in listed.splitlines())
        received = self.system.internet("receiver", "cat", "/received")
        counts.update(json.loads(line)["number"] for line in received.splitlines())
        return counts

    def wait_for_all(self, limit):
        deadline = time.monotonic() + limit
        while missing := self.accepted.keys() - self.found().keys():
            if time.monotonic() > deadline:
                print(f"{len(missing)} are missing after {limit} s", flush=True)
                return
            time.sleep(1)

    def wrong(self):
        """All that must not be, one line each."""
        found = self.found()
        known = self.accepted | self.unsure
        lines = [f"lost: {number} to {to}" for number, to in self.accepted.items() if not found[number]]
        lines += [f"refused for good: {number}: {words}" for number, words in self.refused.items()]
        for number, times in found.items():
            local = known.get(number, "").endswith("@example.test")
            if number not in known:
                lines.append(f"nobody sent it, or it was not accepted: {number}")
            elif times > 1 and local:
                lines.append(f"{times} times in the mailbox: {number} to {known[number]}")
        return lines

    def summary(self):
        found = self.found()
        away = [number for number, to in self.accepted.items() if to.endswith("@far.test")]
        twice = sum(found[number] > 1 for number in away)
        return (
            f"accepted {len(self.accepted)}, of them {len(away)} for elsewhere ({twice} of these came there more than "
            f"once); not accepted {self.turned_away}, of them {len(self.unsure)} with no answer after the dot"
        )
