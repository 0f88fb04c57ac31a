"""The reader reads every fixture, and finds what is changed: `python3 -m unittest discover tests/reader`."""
import contextlib
import io
import json
import pathlib
import re
import struct
import sys
import tempfile
import unittest
from unittest import mock

import underpass_log as log

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPORT = ROOT / "fixtures/export/activity-v1.jsonl"
NAMES = {name: key for key, (name, _) in log.PAYLOADS.items()}


def hex_file(name):
    return bytes.fromhex((ROOT / "fixtures/frames" / name).read_text())


def run(*arguments):
    """Exit code and lines of the program."""
    said = io.StringIO()
    with mock.patch.object(sys, "argv", ["underpass_log.py", *map(str, arguments)]), contextlib.redirect_stdout(said):
        code = log.main()
    return code, said.getvalue().splitlines()


def exported_frames():
    """The frames of the exported log, made again from its lines."""
    lines, frames = [json.loads(text) for text in EXPORT.read_bytes().splitlines()], {}
    for line in lines:
        frames.setdefault(line["framefirst"], []).append(line)
    return [log.frame_from(lines) for lines in frames.values()]


def head_of(frame):
    frame, position = log.frame_of(frame), log.frame_of(frame).first + log.frame_of(frame).count - 1
    head = struct.pack("<4sBBHQQQQ16s32s", b"UPLH", 1, frame.log, 0, frame.epoch, position, frame.first,
                       frame.recorded, frame.commit, frame.hash)
    return head + struct.pack("<I", log.crc32c(head))


class Primitives(unittest.TestCase):
    def test_blake3_and_crc32c_give_the_published_values(self):
        data = bytes(i % 251 for i in range(1025))
        self.assertEqual(log.blake3(b"").hex(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
        self.assertEqual(log.blake3(data).hex(), "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444")
        self.assertEqual(log.blake3_derive("BLAKE3 2019-12-27 16:29:52 test vectors context", data).hex(),
                         "effaa245f065fbf82ac186839a249707c3bddf6d3fdda22d1b95a3c970379bcb")
        self.assertEqual(log.crc32c(b"123456789"), 0xE3069283)

    def test_addresses_are_written_as_the_document_says(self):
        for raw, text in (("c0000201", "192.0.2.1"), ("00" * 16, "::"), ("00" * 15 + "01", "::1"),
                          ("00" * 10 + "ffffc0000201", "::ffff:192.0.2.1"), ("00" * 12 + "c0000201", "::c000:201"),
                          ("20010db8000000010000000000000001", "2001:db8:0:1::1"),
                          ("20010db8000000000001000000000001", "2001:db8::1:0:0:1"),
                          ("20010db8000000010001000100010001", "2001:db8:0:1:1:1:1:1")):
            self.assertEqual(log.ip_text(bytes.fromhex(raw)), text)

    def test_ids_survive_their_text(self):
        for raw in (bytes(16), b"\2" * 16, b"\xff" * 16, bytes(range(16))):
            self.assertEqual(log.id_bytes(log.id_text("client", raw)), raw)


class Payloads(unittest.TestCase):
    def test_every_fixture_decodes_to_its_json(self):
        files = sorted((ROOT / "fixtures/events").glob("*/v*/*.bin"))
        # `log.created`, `log.trimmed` and `log.repaired` are in both logs and have one shape.
        shapes = {(name, version) for (_, version), (name, _) in log.PAYLOADS.items()}
        self.assertGreaterEqual(len(files), 3 * len(shapes))
        for file in files:
            with self.subTest(file=str(file.relative_to(ROOT))):
                name, version = file.parts[-3], int(file.parts[-2][1:])
                said = log.payload(NAMES[name][0], version, file.read_bytes())
                self.assertEqual(said, (name, json.loads(file.with_suffix(".json").read_text())))

    def test_a_payload_that_is_cut_off_or_goes_on_is_refused(self):
        for file in (ROOT / "fixtures/events").glob("*/v*/unicode.bin"):
            kind, data = (NAMES[file.parts[-3]][0], int(file.parts[-2][1:])), file.read_bytes()
            for wrong in [*(data[:end] for end in range(len(data))), data + b"\0"]:
                with self.subTest(kind=kind, length=len(wrong)), self.assertRaises((log.Bad, UnicodeDecodeError)):
                    log.payload(*kind, wrong)

    def test_a_number_has_its_shortest_form(self):
        for data in (b"\xfb\xfa\0", b"\xfc\xff\xff\0\0", b"\xfd\xff\xff\xff\xff\0\0\0\0", b"\xfe", b"\xff"):
            with self.assertRaises(log.Bad):
                log.Payload(data + bytes(20)).number(8)
        with self.assertRaises(log.Bad):
            log.Payload(b"\xfc\0\0\1\0").number(2)

    def test_kinds_versions_and_names_are_those_of_the_registry(self):
        registry = json.loads((ROOT / "schemas/registry.json").read_text())["events"]
        self.assertEqual({(e["kind"], e["version"]): e["name"] for e in registry},
                         {key: name for key, (name, _) in log.PAYLOADS.items()})
        for event in registry:
            schema = json.loads((ROOT / "schemas" / event["schema"]).read_text())
            fields = log.PAYLOADS[event["kind"], event["version"]][1]
            self.assertEqual({field.partition(":")[0].rstrip("?*") for field in fields}, set(schema["properties"]))
            always = [field.partition(":")[0].rstrip("*") for field in fields if not field.endswith("?")]
            self.assertEqual(always, schema["required"])

    def test_the_document_has_the_same_rows(self):
        text = (ROOT / "docs/format/payloads-v1.md").read_text()
        rows = re.findall(r"^\| (\d+) \| (\d+) \| `([a-z_.]+)` \| (.*) \|$", text, re.MULTILINE)
        said = {(int(kind), int(version)): (name, re.findall(r"`(\w+)` ([\w?*]+)", fields))
                for kind, version, name, fields in rows}
        read = {key: (name, [(field.partition(":")[0].rstrip("?*"), field.partition(":")[2] or field)
                             for field in fields]) for key, (name, fields) in log.PAYLOADS.items()}
        self.assertEqual(said, read)


class Frames(unittest.TestCase):
    def test_the_fixture_frames_verify(self):
        one, every = (log.frame_of(hex_file(f"frame-v1-{name}.hex")) for name in ("one", "every-field"))
        self.assertEqual((one.first, one.count, one.log, one.previous), (1, 1, 1, bytes(32)))
        self.assertEqual((every.first, every.count, len(every.records)), (42, 3, 3))
        self.assertEqual([record.flags for record in every.records], [16, 13, 14])
        self.assertEqual([log.ip_text(record.source) for record in every.records[1:]], ["192.0.2.1", "2001:db8::1"])
        self.assertEqual({record.payload for record in every.records[1:]}, {b"payload"})

    def test_the_fixture_head_has_its_checksum(self):
        head = hex_file("head-v1.hex")
        self.assertEqual(log.crc32c(head[:88]), int.from_bytes(head[88:], "little"))

    def test_any_flipped_bit_of_a_frame_is_found(self):
        for name in ("frame-v1-one.hex", "frame-v1-every-field.hex"):
            frame = hex_file(name)
            for bit in range(8 * len(frame)):
                changed = bytearray(frame)
                changed[bit // 8] ^= 1 << bit % 8
                with self.subTest(frame=name, bit=bit), self.assertRaises(log.Bad):
                    log.frame_of(bytes(changed))

    def test_a_flipped_bit_under_a_mended_checksum_is_found(self):
        frame = hex_file("frame-v1-every-field.hex")
        for bit in [*range(0, 96, 7), *range(128, 8 * len(frame), 41)]:
            changed = bytearray(frame)
            changed[bit // 8] ^= 1 << bit % 8
            changed[12:16] = struct.pack("<I", log.crc32c(bytes(changed[:12] + changed[16:])))
            with self.subTest(bit=bit), self.assertRaises(log.Bad):
                log.frame_of(bytes(changed))


class Logs(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def frames(self, frames, head=None):
        for number, frame in enumerate(frames):
            (self.folder / f"{number:06}.bin").write_bytes(frame)
        if head:
            (self.folder / "head.bin").write_bytes(head)
        return run("frames", self.folder)

    def export(self, text):
        (self.folder / "export.jsonl").write_bytes(text)
        return run("export", self.folder / "export.jsonl")

    @staticmethod
    def last(said):
        return said[0], json.loads(said[1][-1])

    def assert_bad_at(self, said, position, why=""):
        code, line = self.last(said)
        self.assertEqual((code, line["ok"], line["position"]), (1, False, position), line)
        self.assertIn(why, line["reason"])

    def test_an_export_verifies_and_lists_its_events(self):
        code, lines = run("export", EXPORT)
        newest = json.loads(EXPORT.read_bytes().splitlines()[-1])
        self.assertEqual((code, json.loads(lines[-1])), (0, {
            "ok": True, "log": "activity", "head": int(newest["position"]), "hash": newest["framehash"]}))
        self.assertEqual(lines[0], '1 2026-01-01T00:00:01.500Z log.created v1 log system'
                                   ' {"log":"01010101-0101-0101-0101-010101010101"}')
        self.assertEqual([int(line.split()[0]) for line in lines[:-1]], list(range(1, len(lines))))

    def test_a_folder_of_frames_verifies_with_its_head(self):
        frames = exported_frames()
        self.assertEqual(self.frames(frames, head_of(frames[-1]))[1], run("export", EXPORT)[1])

    def test_a_part_verifies(self):
        code, line = self.last(self.frames(exported_frames()[1:]))
        self.assertEqual((code, line["ok"]), (0, True))

    def test_heads_that_name_something_else_are_found(self):
        frames = exported_frames()
        last = log.frame_of(frames[-1])
        self.assert_bad_at(self.frames(frames, head_of(frames[-2])), last.first, "behind")
        damaged = bytearray(head_of(frames[-1]))
        damaged[60] ^= 1
        self.assert_bad_at(self.frames(frames, bytes(damaged)), last.first + last.count - 1, "checksum of the head")
        (self.folder / f"{len(frames) - 1:06}.bin").unlink()
        self.assert_bad_at(self.frames(frames[:-1], head_of(frames[-1])), last.first, "isn't there")

    def test_frames_that_are_missing_doubled_or_moved_are_found(self):
        frames = exported_frames()
        firsts = [log.frame_of(frame).first for frame in frames]
        self.assert_bad_at(self.frames(frames[:1] + frames[2:] + frames[-1:]), firsts[1], "no frame begins")
        self.assert_bad_at(self.frames([frames[0], *frames]), firsts[1], "no frame begins")
        self.assert_bad_at(self.frames([frames[0], frames[2], frames[1], *frames[3:]]), firsts[1], "no frame begins")

    def test_a_frame_that_was_made_anew_breaks_the_chain(self):
        lines = [json.loads(text) for text in EXPORT.read_bytes().splitlines()]
        lines[0]["recordedat"] = str(int(lines[0]["recordedat"]) - 1)
        self.assert_bad_at(self.frames([log.frame_from(lines[:1]), *exported_frames()[1:]]), 2, "does not follow")

    def test_a_line_that_says_something_else_is_found(self):
        lines = EXPORT.read_bytes().splitlines(keepends=True)
        for name, value in json.loads(lines[0]).items():
            wrong = json.loads(lines[0]) | {name: value + 1 if isinstance(value, int) else
                                            {} if isinstance(value, dict) else value.replace("0", "1") + "1"}
            with self.subTest(name=name):
                code, line = self.last(self.export(json.dumps(wrong).encode() + b"\n" + b"".join(lines[1:])))
                self.assertEqual((code, line["ok"]), (1, False))
        twice = lines[4].replace(b'{"specversion"', b'{"codec":1,"specversion"')
        self.assert_bad_at(self.export(b"".join(lines[:4]) + twice + b"".join(lines[5:])), 5, "twice")
        unknown = lines[4].replace(b'{"specversion"', b'{"else":1,"specversion"')
        self.assert_bad_at(self.export(b"".join(lines[:4]) + unknown + b"".join(lines[5:])), 5, "contradicts")

    def test_lines_that_are_missing_doubled_or_moved_are_found(self):
        lines = EXPORT.read_bytes().splitlines(keepends=True)
        for wrong in (lines[:2] + lines[3:], lines[:2] + lines[1:], lines[:5] + [lines[6], lines[5]] + lines[7:],
                      lines[:3], lines[:1] + [b"\n"] + lines[1:]):
            code, line = self.last(self.export(b"".join(wrong)))
            self.assertEqual((code, line["ok"]), (1, False))

    def test_nothing_is_no_log(self):
        self.assert_bad_at(self.frames([]), None, "no frame")
        self.assert_bad_at(run("export", self.folder / "missing"), None)


if __name__ == "__main__":
    unittest.main()
