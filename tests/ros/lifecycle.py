#!/usr/bin/env python3
"""The other side of the node's services: rclpy as a lifecycle manager and as a person at `ros2 param`.

It leads the node through its states, reads and sets its parameters, resets it, and writes what it saw as JSON. It judges
nothing; whoever runs it reads the JSON.

Exit status: 0 when every request was answered, 3 when the node did not show up or left a request without an answer.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

STEPS = ["activate", "configure", "activate", "reset", "deactivate", "cleanup", "reset", "configure", "shutdown"]
SETS = [
    ("sanity.max_step_metres", 1.5),
    ("sanity.max_step_metres", -1.0),
    ("topics.image", "/elsewhere"),
    ("publish.tf", True),
    ("no.such", 1),
]


class NoAnswer(Exception):
    pass


class Manager(Node):
    def __init__(self, name, timeout):
        super().__init__("egoreasoner_manager")
        self.timeout = timeout
        self.event_topic = f"{name}/transition_event"
        self.events, self.statuses = [], []
        reliable = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(TransitionEvent, self.event_topic, self.on_event, reliable)
        self.create_subscription(DiagnosticStatus, f"{name}/status", self.on_status, reliable)
        self.requests = {
            service: self.create_client(kind, f"{name}/{service}")
            for service, kind in {
                "change_state": ChangeState,
                "get_state": GetState,
                "get_available_states": GetAvailableStates,
                "get_available_transitions": GetAvailableTransitions,
                "get_transition_graph": GetAvailableTransitions,
                "reset": Trigger,
                "list_parameters": ListParameters,
                "get_parameters": GetParameters,
                "describe_parameters": DescribeParameters,
                "set_parameters": SetParameters,
            }.items()
        }

    def on_event(self, event):
        self.events.append([event.start_state.label, event.goal_state.label])

    def on_status(self, status):
        values = {v.key: v.value for v in status.values}
        self.statuses.append({"name": status.name, "message": status.message, "lifecycle": values.get("lifecycle")})

    def wait(self):
        for service, client in self.requests.items():
            if not client.wait_for_service(timeout_sec=self.timeout):
                raise NoAnswer(f"{service} did not show up")
        end = time.monotonic() + self.timeout
        while self.count_publishers(self.event_topic) == 0:
            if time.monotonic() > end:
                raise NoAnswer("transition_event did not show up")
            rclpy.spin_once(self, timeout_sec=0.1)

    def call(self, service, request):
        future = self.requests[service].call_async(request)
        rclpy.spin_until_future_complete(self, future, timeout_sec=self.timeout)
        if not future.done() or future.result() is None:
            raise NoAnswer(f"{service} was not answered in {self.timeout} s")
        return future.result()

    def step(self, asked):
        """Asks for a transition or a reset; what came of it, and where the node is then."""
        if asked == "start":
            success = True
        elif asked == "reset":
            success = self.call("reset", Trigger.Request()).success
        else:
            request = ChangeState.Request(transition=Transition(label=asked))
            success = self.call("change_state", request).success
        state = self.call("get_state", GetState.Request()).current_state
        available = self.call("get_available_transitions", GetAvailableTransitions.Request()).available_transitions
        return {
            "asked": asked,
            "success": success,
            "state": state.label,
            "id": state.id,
            "available": [a.transition.label for a in available],
        }

    def values(self, names):
        values = self.call("get_parameters", GetParameters.Request(names=names)).values
        python = [parameter_value_to_python(v) for v in values]
        return {n: list(v) if hasattr(v, "typecode") else v for n, v in zip(names, python)}

    def set(self, name, value):
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        [result] = self.call("set_parameters", request).results
        return {"name": name, "successful": result.successful, "reason": result.reason}


def describe(descriptor):
    ranges = [[r.from_value, r.to_value] for r in descriptor.integer_range]
    return {
        "type": descriptor.type,
        "description": descriptor.description,
        "read_only": descriptor.read_only,
        "integer_range": ranges[0] if ranges else None,
    }


def look(node, prefixes):
    names, described, values = [], [], {}
    for request in [ListParameters.Request(prefixes=[p]) for p in prefixes] or [ListParameters.Request()]:
        names += node.call("list_parameters", request).result.names
    size = 2 if prefixes else len(names)
    for part in (names[i : i + size] for i in range(0, len(names), size)):
        described += node.call("describe_parameters", DescribeParameters.Request(names=part)).descriptors
        values |= node.values(part)
    assert all(d.type != ParameterType.PARAMETER_NOT_SET for d in described)
    report = {
        "values": values,
        "described": {d.name: describe(d) for d in described},
        "states": len(node.call("get_available_states", GetAvailableStates.Request()).available_states),
        "graph": None
        if prefixes
        else len(node.call("get_transition_graph", GetAvailableTransitions.Request()).available_transitions),
        "steps": [node.step(asked) for asked in ["start", *STEPS]],
        "set": [node.set(name, value) for name, value in SETS],
    }
    report["value_after_set"] = node.values(["sanity.max_step_metres"])["sanity.max_step_metres"]
    # The last event may still be on its way.
    end = time.monotonic() + node.timeout
    while (not node.events or node.events[-1][1] != "finalized") and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    return {**report, "events": node.events, "statuses": node.statuses}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True, type=Path, help="JSON file to write")
    p.add_argument("--node", required=True, help="full name of the node")
    p.add_argument("--timeout", type=float, default=30.0, help="for each answer, in seconds (default 30)")
    p.add_argument("--settle", type=float, default=1.0, help="between the match and the first request, in seconds")
    p.add_argument(
        "--prefix",
        action="append",
        default=[],
        help="ask for the parameters under this, a few at a time, and not for the graph of transitions (default: everything at once)",
    )
    args = p.parse_args()
    rclpy.init()
    node = Manager(args.node, args.timeout)
    try:
        node.wait()
        time.sleep(args.settle)  # the node's side of the match cannot be seen from here
        report = look(node, args.prefix)
    except NoAnswer as problem:
        print(f"lifecycle: {problem}", file=sys.stderr)
        return 3
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1))
    states = [step["state"] for step in report["steps"]]
    print(f"lifecycle: {' '.join(states)}; {len(report['values'])} parameters, {len(report['events'])} events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
