#!/usr/bin/env python3
"""Reads and verifies an event log of Underpass, from nothing but the documents in docs/format/.

    underpass_log.py etcd HOST:PORT [--prefix underpass] [--log control]
    underpass_log.py frames FOLDER
    underpass_log.py export FILE

One line an event: position, time, kind, version, stream, actor, payload. The last line is
{"ok":true,"log":...,"head":N,"hash":"..."} with exit 0, or {"ok":false,"position":N,"reason":"..."} with exit 1; the
position is null where what is wrong has none. Python 3.11, its standard library, and no code of the server.
"""
import argparse, base64, contextlib, io, ipaddress, json, pathlib, struct, sys, urllib.request, uuid
from collections import namedtuple
from datetime import datetime, timedelta, timezone

LOGS = (None, "control", "activity")
ENTITIES = ("log", "user", "client", "mapping", "code", "invite", "session", "node", "key")
ACTORS = ("system", "operator", "node", "client", "key")
CONTEXT = "underpass 2026 event log frame chain v1"

# docs/format/payloads-v1.md: kind, version, name, and the fields in their order, each `name:type`, or the type alone
# where the field is called like it. `?`: may be absent. `*`: a sequence.
PAYLOADS = {(int(kind), int(version)): (name, fields) for kind, version, name, *fields in map(str.split, """
1 1 log.created log:uuid
10 1 invite.issued invite secret_hash:digest expires_at:time label:text?
11 1 invite.used invite client
12 1 invite.revoked invite
13 1 invite.expired invite
20 1 client.enrolled client owner:user? name:text public_key platform:text invite?
21 1 client.renamed client name:text
22 1 client.blocked client reason:text
23 1 client.unblocked client
24 1 client.removed client name:text
30 1 mapping.created mapping owner:user? name:text ingress client target:text options code?
31 1 mapping.changed mapping name:text ingress target:text options
32 1 mapping.enabled mapping name:text
33 1 mapping.disabled mapping name:text
34 1 mapping.removed mapping name:text
35 1 mapping.expired mapping name:text
36 1 mapping.restored mapping owner:user? name:text ingress client target:text options code? enabled:bool created_at:time created_by:actor
40 1 code.issued code owner:user? client lookup:text redeem_hash:digest target:text activate_until:time access_s:u64 options
41 1 code.redeemed code client mapping
42 1 code.revoked code
43 1 code.expired code
50 1 key.issued key hash:digest scopes:scope* label:text? expires_at:time?
51 1 key.revoked key
52 1 key.expired key
60 1 node.started node name:text version:text
61 1 node.stopped node
70 1 log.trimmed until:u64 hash:digest
71 1 log.repaired cut_from:u64 lost:u64 cut_hash:digest reason:text
100 1 session.opened session client node address:socket transport:text
100 2 session.opened session client node address:socket transport:text release:text?
101 1 session.closed session client reason:text
102 1 session.expired session client
110 1 usage.recorded mapping bytes_in:u64 bytes_out:u64 tunnels:u64 refused:u64
120 1 auth.failed address:ip identity:public_key? reason:text
130 1 carry.started log:uuid
131 1 session.carried session client node address:socket transport:text release:text? opened_at:time closed:session_end?
132 1 usage.carried mapping bytes_in:u64 bytes_out:u64 tunnels:u64 refused:u64 last_at:time position:u64
133 1 auth_failure.carried position:u64 at:time address:ip identity:public_key? reason:text
134 1 carry.finished started:u64
135 1 log.trimmed until:u64 hash:digest
140 1 log.repaired cut_from:u64 lost:u64 cut_hash:digest reason:text
""".strip().splitlines())}
STRUCTS = {
    "options": ["seal", "max_connections:u32?", "idle_timeout_s:u32?", "expires_at:time?"],
    "session_end": ["at:time", "position:u64", "reason:text"],
}
# Variants by number: a name and what it holds, which is nothing, one value or fields.
ENUMS = {
    "seal": (("auto", None), ("on", None), ("off", None)),
    "actor": (("system", None), ("operator", None), ("node", "node"), ("client", "client"), ("key", "key")),
    "scope": (("admin", None), ("read", None), ("audit", None), ("metrics", None), ("user", "user")),
    "ingress": (("client", ["client", "listen:socket"]), ("port", ["port:u16"])),
}
FIXED = {
    "uuid": (16, lambda raw: str(uuid.UUID(bytes=raw))),
    "digest": (32, bytes.hex),
    "public_key": (32, lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")),
}
INTEGERS = {"u16": 2, "u32": 4, "u64": 8}


class Bad(Exception):
    """Why this is no sound log, and where."""

    def __init__(self, reason, position=None):
        super().__init__(reason)
        self.reason, self.position = reason, position


def need(condition, reason, position=None):
    if not condition:
        raise Bad(reason, position)


@contextlib.contextmanager
def about(position):
    """What is wrong within is wrong at this position."""
    try:
        yield
    except Bad as bad:
        raise Bad(bad.reason, bad.position or position) from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error) as why:
        raise Bad(f"what should be there can't be: {why!r}", position) from None


def crc_entry(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [crc_entry(byte) for byte in range(256)]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXED = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT, DERIVE_CONTEXT, DERIVE_MATERIAL = 1, 2, 4, 8, 32, 64


def rotated(word, by):
    return (word >> by | word << 32 - by) & 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    """BLAKE3's compression: the first eight words, which are all that a hash of 32 bytes needs."""
    v = [*chaining, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, length, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXED):
            for word, by, then in ((block[2 * i], 16, 12), (block[2 * i + 1], 8, 7)):
                v[a] = v[a] + v[b] + word & 0xFFFFFFFF
                v[d] = rotated(v[d] ^ v[a], by)
                v[c] = v[c] + v[d] & 0xFFFFFFFF
                v[b] = rotated(v[b] ^ v[c], then)
        block = [block[i] for i in PERMUTATION]
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def node(key, mode, data, chunk):
    """What is compressed last for these bytes, from this chunk on; at the root the caller adds a flag."""
    if len(data) <= 1024:
        blocks = [data[at:at + 64] for at in range(0, len(data) or 1, 64)]
        chaining = key
        for i, block in enumerate(blocks):
            flags = mode | CHUNK_START * (i == 0) | CHUNK_END * (i == len(blocks) - 1)
            last = chaining, struct.unpack("<16I", block.ljust(64, b"\0")), chunk, len(block), flags
            if i < len(blocks) - 1:
                chaining = compress(*last)
        return last
    left = 1 << ((len(data) - 1) // 1024).bit_length() - 1
    halves = node(key, mode, data[:1024 * left], chunk), node(key, mode, data[1024 * left:], chunk + left)
    return key, compress(*halves[0]) + compress(*halves[1]), 0, 64, mode | PARENT


def blake3(data, key=IV, mode=0):
    *rest, flags = node(key, mode, data, 0)
    return struct.pack("<8I", *compress(*rest, flags | ROOT))


def blake3_derive(context, data):
    return blake3(data, struct.unpack("<8I", blake3(context.encode(), mode=DERIVE_CONTEXT)), DERIVE_MATERIAL)


BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def id_text(prefix, raw):
    number = int.from_bytes(raw, "big")
    return prefix + "_" + "".join(BASE32[number >> 5 * i & 31] for i in reversed(range(26)))


def id_bytes(text):
    letters = text.rpartition("_")[2]
    return sum(BASE32.index(letter) << 5 * i for i, letter in enumerate(reversed(letters))).to_bytes(16, "big")


def tagged_text(names, raw, alone):
    """A tagged id as text; the first `alone` numbers have no id."""
    need(raw[0] < len(names), f"tagged id {raw[0]} is of a newer release")
    need(raw[0] >= alone or not any(raw[1:]), f"{names[raw[0]]} has no id")
    return names[raw[0]] if raw[0] < alone else names[raw[0]] + "/" + id_text(names[raw[0]], raw[1:])


def tagged_bytes(names, text):
    name, _, id_ = text.partition("/")
    return bytes([names.index(name)]) + (id_bytes(id_) if id_ else bytes(16))


def time_text(milliseconds):
    need(milliseconds <= 253402207200000, "a time lies behind the last one that has a text")
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ip_text(raw):
    mapped = len(raw) == 16 and raw[:12] == bytes(10) + b"\xff\xff"
    return "::ffff:" + ip_text(raw[12:]) if mapped else str(ipaddress.ip_address(raw))


class Payload:
    """A payload in codec 1, read from its beginning to its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(len(self.data) - self.at >= count, "a payload ends too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, size):
        """An unsigned integer of `size` bytes, in its shortest form."""
        first = self.take(1)[0]
        width = {251: 2, 252: 4, 253: 8}.get(first, 99 if first > 250 else 0)
        need(width <= size, "a number in a payload is too large")
        value = int.from_bytes(self.take(width), "little") if width else first
        need(value > {0: -1, 2: 250, 4: 0xFFFF, 8: 0xFFFFFFFF}[width], "a number is longer than it needs to be")
        return value

    def choice(self, count):
        variant = self.number(4)
        need(variant < count, f"variant {variant} is of a newer release")
        return variant

    def value(self, kind):
        if kind.endswith("?"):
            return self.value(kind[:-1]) if self.choice(2) else None
        if kind.endswith("*"):
            return [self.value(kind[:-1]) for _ in range(self.number(8))]
        if kind in ENUMS:
            name, holds = ENUMS[kind][self.choice(len(ENUMS[kind]))]
            return {name: self.fields(holds) if isinstance(holds, list) else self.value(holds)} if holds else name
        if kind in STRUCTS:
            return self.fields(STRUCTS[kind])
        if kind in INTEGERS:
            return self.number(INTEGERS[kind])
        if kind in FIXED:
            size, text = FIXED[kind]
            return text(self.take(size))
        match kind:
            case "text":
                return self.take(self.number(8)).decode()
            case "time":
                return time_text(self.number(8))
            case "bool":
                return self.choice(2) == 1
            case "ip":
                return ip_text(self.take((4, 16)[self.choice(2)]))
            case "socket":
                address = self.value("ip")
                return f"[{address}]:{self.number(2)}" if ":" in address else f"{address}:{self.number(2)}"
        return id_text(kind, self.take(16))

    def fields(self, layout):
        pairs = (field.partition(":") for field in layout)
        return {name.rstrip("?*"): self.value(kind or name) for name, _, kind in pairs}


def payload(kind, version, data):
    """The name of an event, and its payload as its schema has it."""
    need((kind, version) in PAYLOADS, f"event kind {kind} version {version} is of a newer release")
    name, layout = PAYLOADS[kind, version]
    reader = Payload(data)
    value = reader.fields(layout)
    need(reader.at == len(data), "a payload has bytes behind its end")
    return name, value


RECORD, FRAME = struct.Struct("<HHB17sQ16s17s"), struct.Struct("<4sBBBBIIQQI16sQ16s32s")
Record = namedtuple("Record", "kind version flags stream stream_version command actor"
                              " source causation correlation asked payload")
Frame = namedtuple("Frame", "magic format flags codec log length checksum epoch first count commit recorded node"
                            " previous records hash")


def record_of(raw):
    need(len(raw) >= RECORD.size, "a record is too short")
    fixed, rest, parts = RECORD.unpack_from(raw), raw[RECORD.size:], []
    flags = fixed[2]
    need(flags < 32 and flags & 3 != 3, f"record flags {flags} are of a newer release")
    for size in (flags & 1 and 4 or flags & 2 and 16, flags & 4 and 9, flags & 8 and 16, flags & 16 and 33):
        need(len(rest) >= size, "a record is too short")
        parts.append(rest[:size])
        rest = rest[size:]
    need(not parts[1] or parts[1][0] in (1, 2), "a cause is in a log of a newer release")
    record = Record(*fixed, *parts, rest)
    tagged_text(ENTITIES, record.stream, 1)
    tagged_text(ACTORS, record.actor, 2)
    tagged_text(ENTITIES, record.asked[16:] or bytes(17), 1)
    return record


def frame_hash(raw):
    return blake3_derive(CONTEXT, raw[:12] + raw[16:-32])


def frame_of(raw):
    need(raw[:4] == b"UPLF", "this is no frame")
    need(len(raw) >= FRAME.size + 32, "a frame is too short")
    frame = Frame(*FRAME.unpack_from(raw), [], raw[-32:])
    need(frame.format == 1, f"frame format {frame.format} is of a newer release")
    need(frame.flags == 0, f"frame flags {frame.flags} are of a newer release")
    need(frame.length == len(raw) <= 1 << 20, "a frame has not the length that it says")
    need(crc32c(raw[:12] + raw[16:]) == frame.checksum, "the checksum of a frame is wrong")
    need(frame_hash(raw) == frame.hash, "the hash of a frame is wrong")
    need(frame.codec == 1, f"payload codec {frame.codec} is of a newer release")
    need(frame.log in (1, 2), f"log {frame.log} is of a newer release")
    need(frame.epoch >= 1 and frame.first >= 1 and 1 <= frame.count <= 4096, "a frame says what can't be")
    at, end = FRAME.size, len(raw) - 32
    while at < end:
        size = int.from_bytes(raw[at:at + 4], "little")
        need(at + 4 + size <= end, "a record is longer than its frame")
        frame.records.append(record_of(raw[at + 4:at + 4 + size]))
        at += 4 + size
    need(len(frame.records) == frame.count, "a frame has another number of records than it says")
    return frame


class Chain:
    """Frame after frame of a log; of a part of one, if it needn't be whole."""

    def __init__(self, log=None, whole=True):
        self.log, self.whole, self.last, self.position, self.streams, self.id = log, whole, None, 0, {}, None

    def add(self, raw, at=None):
        """Checks a frame against all before it. Yields its events: position, frame, record, name, payload."""
        at = at or self.position + 1
        with about(at):
            frame = frame_of(raw)
        if not self.last:
            self.log, self.whole = self.log or frame.log, self.whole or frame.first == 1
            self.position = 0 if self.whole else frame.first - 1
        expected, last = self.position + 1, self.last
        need(frame.log == self.log, "a frame is of another log", expected)
        need(frame.first == expected, f"no frame begins at {expected}; the next says {frame.first}", expected)
        need(frame.previous == last.hash if last else not self.whole or not any(frame.previous),
             "a frame does not follow the one before", expected)
        need(not last or frame.epoch >= last.epoch and frame.recorded >= last.recorded, "epoch or time falls", expected)
        for record in frame.records:
            at, before = self.position + 1, self.streams.get(record.stream, 0 if self.whole else None)
            need(record.stream_version == before + 1 if before is not None else record.stream_version >= 1,
                 f"version {record.stream_version} of a stream follows {before}", at)
            with about(at):
                name, value = payload(record.kind, record.version, record.payload)
            need(record.kind == 1 or self.log == 1 + (record.kind >= 100), f"{name} is of the other log", at)
            if at == 1:
                need(name == "log.created", "a log begins with log.created", at)
                self.id = value["log"]
            self.position, self.streams[record.stream] = at, record.stream_version
            yield at, frame, record, name, value
        self.last = frame

    def end(self, head=None):
        """The log ends here, and its head must say so."""
        at, last = self.position, self.last
        need(last, "there is no frame")
        if head is None:
            return
        need(len(head) == 92 and head[:4] == b"UPLH" and head[6:8] == b"\0\0", "the head is no head", at)
        need(crc32c(head[:88]) == int.from_bytes(head[88:], "little"), "the checksum of the head is wrong", at)
        need(head[4] == 1, f"head format {head[4]} is of a newer release", at)
        says = struct.unpack_from("<5xB2xQQQQ16s32s", head)
        need(says[2] <= at, "the head names a position that isn't there", at + 1)
        need(says[2] == at, "a frame lies behind the one that the head names", says[2] + 1)
        need(says == (last.log, last.epoch, at, last.first, last.recorded, last.commit, last.hash),
             "the head doesn't name the last frame", at)


def read_folder(folder, chain):
    """The frames of a folder: `*.bin` in the order of their names, and `head.bin` if there is one."""
    for file in sorted(folder.glob("*.bin")):
        if file.name != "head.bin":
            yield from chain.add(file.read_bytes())
    chain.end((folder / "head.bin").read_bytes() if (folder / "head.bin").exists() else None)


def read_etcd(endpoint, prefix, chain):
    """A log in etcd, by its JSON gateway: all of it at the revision of the first answer."""
    revision = 0

    def get(key, end=b"", limit=0):
        nonlocal revision
        asked = {"key": base64.b64encode(key).decode(), "range_end": base64.b64encode(end).decode(),
                 "limit": limit, "revision": revision}
        request = urllib.request.Request(f"http://{endpoint}/v3/kv/range", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.load(answer)
        revision = revision or int(said["header"]["revision"])
        return [[base64.b64decode(pair.get(part, "")) for part in ("key", "value")] for pair in said.get("kvs", ())]

    prefix = prefix.rstrip("/").encode()
    marker = get(prefix + b"/format")
    need(marker and marker[0][1] == b"underpass-store-etcd\nformat 1\n", "no store of format 1 has this prefix")
    keys = prefix + b"/k/log/" + LOGS[chain.log].encode() + b"/"
    need(not get(keys + b"copying"), "the log is being copied here")
    head, after = get(keys + b"h"), keys + b"e/"
    while page := get(after, keys + b"e0", 16):
        for key, value in page:
            at = int.from_bytes(key[len(keys) + 2:], "big")
            need(at == chain.position + 1, f"no frame is at {chain.position + 1}, but at {at}", chain.position + 1)
            yield from chain.add(value)
        after = page[-1][0] + b"\0"
    need(head, "there is no head", chain.position or None)
    chain.end(head[0][1])


def line_of(log_id, position, frame, record, name, value):
    """The line of an event in an export."""
    line = {
        "specversion": "1.0", "id": f"{log_id}/{position}", "source": f"urn:underpass:log:{log_id}:{LOGS[frame.log]}",
        "type": f"underpass.{name}.v{record.version}", "time": time_text(frame.recorded),
        "subject": tagged_text(ENTITIES, record.stream, 1), "datacontenttype": "application/json",
        "dataschema": f"urn:underpass:event:{name}:v{record.version}", "data": value, "exportversion": 1,
        "position": str(position), "streamversion": str(record.stream_version), "eventkind": record.kind,
        "eventversion": record.version, "commandid": str(uuid.UUID(bytes=record.command)),
        "actor": tagged_text(ACTORS, record.actor, 2), "sourceaddress": ip_text(record.source or bytes(4)),
        "causation": f"{LOGS[record.causation[0]]}:{int.from_bytes(record.causation[1:], 'little')}"
        if record.causation else "", "correlation": record.correlation.hex(),
        "askedcontent": record.asked[:16].hex(),
        "askedsubject": tagged_text(ENTITIES, record.asked[16:] or bytes(17), 1),
        "codec": frame.codec, "payload": base64.b64encode(record.payload).decode(), "epoch": str(frame.epoch),
        "framefirst": str(frame.first), "framecount": frame.count, "commitid": frame.commit.hex(),
        "node": id_text("node", frame.node), "recordedat": str(frame.recorded), "previoushash": frame.previous.hex(),
        "framehash": frame.hash.hex()}
    absent = {"sourceaddress": 3, "causation": 4, "correlation": 8, "askedcontent": 16, "askedsubject": 16}
    return {key: said for key, said in line.items() if key not in absent or record.flags & absent[key]}


def frame_from(lines):
    """The bytes of a frame, from its lines."""
    records = b""
    for line in lines:
        address = ipaddress.ip_address(line["sourceaddress"]).packed if "sourceaddress" in line else b""
        log, _, position = line.get("causation", "").partition(":")
        cause = struct.pack("<BQ", LOGS.index(log), int(position)) if log else b""
        correlation, asked = bytes.fromhex(line.get("correlation", "")), b""
        if "askedcontent" in line:
            asked = bytes.fromhex(line["askedcontent"]) + tagged_bytes(ENTITIES, line["askedsubject"])
        flags = {0: 0, 4: 1, 16: 2}[len(address)] | 4 * bool(cause) | 8 * bool(correlation) | 16 * bool(asked)
        record = RECORD.pack(
            line["eventkind"], line["eventversion"], flags, tagged_bytes(ENTITIES, line["subject"]),
            int(line["streamversion"]), uuid.UUID(line["commandid"]).bytes, tagged_bytes(ACTORS, line["actor"]))
        record += address + cause + correlation + asked + base64.b64decode(line["payload"])
        records += struct.pack("<I", len(record)) + record
    raw = FRAME.pack(
        b"UPLF", 1, 0, line["codec"], LOGS.index(line["source"].rpartition(":")[2]), FRAME.size + len(records) + 32, 0,
        int(line["epoch"]), int(line["framefirst"]), line["framecount"], bytes.fromhex(line["commitid"]),
        int(line["recordedat"]), id_bytes(line["node"]), bytes.fromhex(line["previoushash"])) + records
    raw += frame_hash(raw + bytes(32))
    return raw[:12] + struct.pack("<I", crc32c(raw[:12] + raw[16:])) + raw[16:]


def once(pairs):
    need(len(dict(pairs)) == len(pairs), "a line says something twice")
    return dict(pairs)


def read_export(file, chain):
    """An export: each frame is made again from its lines, and must say the same as each of them."""
    lines = []
    for text in io.BytesIO(file.read_bytes()):
        at = chain.position + len(lines) + 1 if chain.last else None
        with about(at):
            need(len(text) <= 8 << 20, "a line is too long")
            lines.append(json.loads(text, object_pairs_hook=once))
            raw = frame_from(lines) if len(lines) >= lines[0]["framecount"] else b""
        if raw:
            for event, line in zip(chain.add(raw, int(lines[0]["framefirst"])), lines, strict=True):
                chain.id = chain.id or line["id"].partition("/")[0]
                same = [json.dumps(side, sort_keys=True) for side in (line, line_of(chain.id, *event))]
                need(same[0] == same[1], "a line contradicts its frame", event[0])
                yield event
            lines = []
    need(not lines, "the last frame is not whole", chain.position + len(lines))
    chain.end()


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sources = parser.add_subparsers(dest="source", required=True)
    etcd = sources.add_parser("etcd", help="a store in etcd")
    etcd.add_argument("endpoint", metavar="HOST:PORT")
    etcd.add_argument("--prefix", default="underpass")
    etcd.add_argument("--log", choices=LOGS[1:], default="control")
    sources.add_parser("frames", help="a folder of frames").add_argument("path", type=pathlib.Path)
    sources.add_parser("export", help="an exported log").add_argument("path", type=pathlib.Path)
    asked = parser.parse_args()
    chain = Chain(LOGS.index(asked.log)) if asked.source == "etcd" else Chain(whole=False)
    try:
        match asked.source:
            case "etcd":
                events = read_etcd(asked.endpoint, asked.prefix, chain)
            case "frames":
                events = read_folder(asked.path, chain)
            case "export":
                events = read_export(asked.path, chain)
        for position, frame, record, name, value in events:
            stream, actor = tagged_text(ENTITIES, record.stream, 1), tagged_text(ACTORS, record.actor, 2)
            print(position, time_text(frame.recorded), name, f"v{record.version}", stream, actor, compact(value))
    except (Bad, OSError, ValueError) as why:
        bad = why if isinstance(why, Bad) else Bad(str(why))
        print(compact({"ok": False, "position": bad.position, "reason": bad.reason}))
        return 1
    print(compact({"ok": True, "log": LOGS[chain.log], "head": chain.position, "hash": chain.last.hash.hex()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
