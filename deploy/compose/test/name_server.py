"""A name server that answers from a zone: a record a line, `NAME MX PREFERENCE HOST` or `NAME A ADDRESS`."""

import collections
import socket
import struct

KINDS = {"A": 1, "MX": 15}
NXDOMAIN = 3


def serve(zone):
    records = read(zone)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    while True:
        query, peer = server.recvfrom(4096)
        server.sendto(answer(query, records), peer)


def read(zone):
    """The data of the records, by name and by kind within."""
    records = collections.defaultdict(lambda: collections.defaultdict(list))
    for name, kind, *data in map(str.split, zone.strip().splitlines()):
        if kind == "MX":
            preference, host = data
            data = struct.pack("!H", int(preference)) + encoded(host)
        else:
            data = socket.inet_aton(*data)
        records[name][KINDS[kind]].append(data)
    return records


def encoded(name):
    labels = [label for label in name.split(".") if label]  # none in the root, "."
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def answer(query, records):
    """The response to a DNS query of one question."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    name, question = ".".join(labels), query[12 : at + 5]
    code = 0 if name in records else NXDOMAIN
    data = records[name][kind] if name in records else []
    header = query[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(data), 0, 0)
    return header + question + b"".join(record(kind, one) for one in data)


def record(kind, data):
    """One of the name that was asked for."""
    return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
