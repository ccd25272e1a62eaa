"""Read off what users depend on: command line options, ROS parameters, topics, services and weight formats.

`python test/interface/surface.py FILE` writes all of it as JSON; `interface.json` beside it is that of version 0.1.0.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

CAMERAS = {"one": [], "two": ["-p", "cameras:=[front,left]"], "compressed": ["-p", "image_transport:=compressed"]}


def options_of(parser: argparse.ArgumentParser) -> dict:
    """Positional arguments by name and options by their longest spelling, of a parser; subcommands nested."""
    found: dict = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found["subcommands"] = {name: options_of(one) for name, one in action.choices.items()}
        elif not isinstance(action, argparse._HelpAction):
            found[max(action.option_strings, key=len) if action.option_strings else action.dest] = {
                "spellings": sorted(action.option_strings),
                "nargs": action.nargs,
                "choices": None if action.choices is None else [str(choice) for choice in action.choices],
                "default": repr(action.default).replace(str(Path.home()), "~"),
                "required": action.required,
            }
    return found


def command_line() -> dict:
    """Every command's options."""
    from vidseg_core.cli.main import COMMANDS, build_parser

    return {name: options_of(build_parser([name]))["subcommands"][name] for name in COMMANDS}


def parameters() -> dict:
    """Every ROS parameter: type, default, range, and when and where it may be set."""
    from vidseg_ros.parameters import DECLARATIONS

    return {
        one.name: {
            "type": one.type.name,
            "default": one.default,
            "range": one.range,
            "while_active": one.while_active,
            "per_camera": one.per_camera,
        }
        for one in DECLARATIONS.values()
    }


def topics_and_services() -> dict:
    """What an active node publishes, subscribes to and serves, for each kind of camera. Needs rclpy."""
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from vidseg_ros.node import VidsegNode

    everything = [Parameter(f"publish_{output}", value=True) for output in ("labels", "overlay", "confidence")]
    found = {}
    for kind, arguments in CAMERAS.items():
        node = VidsegNode(
            cli_args=["--ros-args", "-r", "__ns:=/interface", "-p", "engine:=pass_through", *arguments],
            parameter_overrides=everything,
        )
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            node.start()
            found[kind] = {
                "publishes": {one.topic_name: one.msg_type.__name__ for one in node.publishers},
                "subscribes": {one.topic_name: one.msg_type.__name__ for one in node.subscriptions},
                "serves": {one.service_name: one.srv_type.__name__ for one in node.services},
            }
        finally:
            executor.remove_node(node)
            node.destroy_node()
    return found


def weight_formats() -> dict:
    """Keys and shapes of every architecture that can be loaded, and of the files that come with the package."""
    from safetensors import safe_open

    from vidseg_core.networks.flow_light import FlowLight
    from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
    from vidseg_core.networks.guided_refine import GuidedRefine
    from vidseg_core.networks.swiftnet import SwiftNet
    from vidseg_core.resources import resource

    networks = {
        "swiftnet-r18": SwiftNet(19),
        "guided-refine": GuidedRefine(19, edge=True),
        "light": FlowLight(),
        "flownet_s": UpstreamFlowNetS(),
        "flownet2_s": FlowNet2S(),
    }
    shipped = {}
    for path in sorted(resource("weights").glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            shipped[path.name] = {
                "format": metadata["format"],
                "architecture": json.loads(metadata["architecture"]),
                "metadata": sorted(metadata),
                "tensors": len(list(file.keys())),
            }
    return {
        "networks": {
            name: {key: " x ".join(map(str, value.shape)) for key, value in network.state_dict().items()}
            for name, network in networks.items()
        },
        "shipped": shipped,
    }


def main() -> None:
    import rclpy

    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    rclpy.init()
    try:
        surface = {
            "command_line": command_line(),
            "parameters": parameters(),
            "topics_and_services": topics_and_services(),
            "weight_formats": weight_formats(),
        }
    finally:
        rclpy.try_shutdown()
    Path(sys.argv[1]).write_text(json.dumps(surface, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
