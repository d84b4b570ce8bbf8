"""Run with the Python that has MAVSDK: prints each MAVLink message it decodes as a JSON line.

python mavsdk_listener.py tcpout://127.0.0.1:PORT
"""

import json
import sys
import time

from mavsdk import ComponentType, Configuration, Mavsdk
from mavsdk.plugins.mavlink_direct import MavlinkDirect
from mavsdk.plugins.telemetry import Telemetry

sdk = Mavsdk(Configuration.create_with_component_type(ComponentType.GROUND_STATION))
print(json.dumps({"connection": sdk.add_any_connection(sys.argv[1]).name}), flush=True)
while not (systems := sdk.get_systems()):
    time.sleep(0.05)
direct, telemetry = MavlinkDirect(systems[0]), Telemetry(systems[0])


def show(message, _):
    fields = json.loads(message.fields_json)
    print(json.dumps({"name": message.message_name, "system": message.system_id} | fields))
    position = telemetry.position()
    known = position.latitude_deg == position.latitude_deg
    if known:
        print(json.dumps({"name": "position", "lat": position.latitude_deg}))
    sys.stdout.flush()


handle = direct.subscribe_message("", show)
sys.stdin.read()  # until the test has seen enough
