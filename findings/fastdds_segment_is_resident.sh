#!/bin/sh
# Fast DDS 3.2 (ros-rclpy 9.1.2, Kilted): a participant writes to the whole of its shared-memory segment when it is made.
# One would expect a mapping to take memory as messages come to lie in it, so that a generous segment_size costs nothing
# but addresses; a process takes all of it from its first ROS node on, be it one that sends nothing. Seen, the segment's
# size by segment_size and what of it is resident after rclpy.create_node, no publisher made:
#
#   segment_size  8 MiB: mapped  8.8 MB, resident  8.6 MB
#   segment_size 64 MiB: mapped 70.3 MB, resident 68.2 MB
#
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'ros-rclpy[fastrtps]==9.1.2'
cat > "$work/node.py" <<'END'
import re
from pathlib import Path

import rclpy

rclpy.init()
node = rclpy.create_node("silent")
largest = (0.0, 0.0)
mapping = None
for line in Path("/proc/self/smaps").read_text().splitlines():
    found = re.match(r"([0-9a-f]+)-([0-9a-f]+) .*/fast(?:dds|rtps)_[0-9a-f]{16}$", line)
    if found:
        mapping = (int(found[2], 16) - int(found[1], 16)) / 1e6
    elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
        mapping = None
    elif mapping and line.startswith("Rss:"):
        largest = max(largest, (mapping, int(line.split()[1]) * 1024 / 1e6))
print(*largest)
rclpy.shutdown()
END
status=0
for mib in 8 64; do
    cat > "$work/profile.xml" <<END
<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>memory</transport_id>
        <type>SHM</type>
        <segment_size>$((mib << 20))</segment_size>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="one" is_default_profile="true">
      <rtps>
        <userTransports><transport_id>memory</transport_id></userTransports>
        <useBuiltinTransports>false</useBuiltinTransports>
      </rtps>
    </participant>
  </profiles>
</dds>
END
    set -- $(ROS_LOG_DIR="$work" ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=78 \
        FASTDDS_DEFAULT_PROFILES_FILE="$work/profile.xml" "$work/venv/bin/python" "$work/node.py")
    printf 'segment_size %2d MiB: mapped %4.1f MB, resident %4.1f MB\n' "$mib" "$1" "$2"
    awk -v mapped="$1" -v resident="$2" 'BEGIN { exit !(mapped > 8 && resident > 0.9 * mapped) }' || status=1
done
[ "$status" = 0 ] || echo "changed: a segment is not resident as a whole" >&2
exit "$status"
