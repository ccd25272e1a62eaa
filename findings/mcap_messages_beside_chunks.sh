#!/bin/sh
# mcap 1.6.0 (Python): of a file that holds messages both in chunks and beside them, which the format allows, make_reader's
# iter_messages yields those in chunks alone, without a word, where the input can be searched; from a pipe it yields all.
# One would expect the same messages either way. (The seeking reader takes the summary's index of chunks for a list of
# all messages.) The summary's statistics count both.
#
#   message_count of the summary: 2; from a file: 1; from a pipe: 2
#
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q mcap==1.6.0
"$work/venv/bin/python" - <<'END'
import io
import sys
import zlib

from mcap.data_stream import RecordBuilder
from mcap.reader import NonSeekingReader, make_reader
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, Header, Message, Statistics

MAGIC = b"\x89MCAP0\r\n"


def encoded(*records):
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return builder.end()


def message(number):
    return Message(channel_id=1, log_time=number, data=b"{}", publish_time=number, sequence=number)


channel = Channel(id=1, topic="/topic", message_encoding="json", metadata={}, schema_id=0)
inside = encoded(channel, message(1))
chunk = encoded(
    Chunk(
        compression="", data=inside, message_start_time=1, message_end_time=1, uncompressed_crc=zlib.crc32(inside),
        uncompressed_size=len(inside),
    )
)
before = MAGIC + encoded(Header(profile="", library=""))
data = before + chunk + encoded(channel, message(2), DataEnd(data_section_crc=0))
summary = encoded(
    channel,
    ChunkIndex(
        message_start_time=1, message_end_time=1, chunk_start_offset=len(before), chunk_length=len(chunk),
        message_index_offsets={}, message_index_length=0, compression="", compressed_size=len(inside),
        uncompressed_size=len(inside),
    ),
    Statistics(
        message_count=2, schema_count=0, channel_count=1, attachment_count=0, metadata_count=0, chunk_count=1,
        message_start_time=1, message_end_time=2, channel_message_counts={1: 2},
    ),
)
footer = encoded(Footer(summary_start=len(data), summary_offset_start=0, summary_crc=0))
file = data + summary + footer + MAGIC

counted = make_reader(io.BytesIO(file)).get_summary().statistics.message_count
seeking = len(list(make_reader(io.BytesIO(file)).iter_messages()))
piped = len(list(NonSeekingReader(io.BytesIO(file)).iter_messages()))
print(f"message_count of the summary: {counted}; from a file: {seeking}; from a pipe: {piped}")
sys.exit(0 if (counted, seeking, piped) == (2, 1, 2) else "changed: both are read alike")
END
