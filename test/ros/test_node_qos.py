"""Quality of service: the defaults serve every camera, overrides come by parameter, misfits are named."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


def make(rig, ros, overrides=(), **given):
    """A rig whose topics' overrides are given as (topic, entity, policy, value)."""
    namespace = rig.next_namespace()
    named = {f"qos_overrides.{namespace}/{topic}.{kind}.{policy}": value for topic, kind, policy, value in overrides}
    return rig.Rig(ros, rig.StandIn(), **given, **named)


def offered(bench, topic):
    [info] = bench.tester.get_publishers_info_by_topic(f"{bench.namespace}/{topic}")
    return info.qos_profile


def requested(bench, topic):
    [info] = bench.tester.get_subscriptions_info_by_topic(f"{bench.namespace}/{topic}")
    return info.qos_profile


@pytest.mark.parametrize("reliability", ["BEST_EFFORT", "RELIABLE"])
def test_the_default_subscription_takes_every_publisher(rig, ros, reliability):
    with make(rig, ros, reliability=reliability) as bench:
        bench.prime()
        labels = bench.exchange(bench.image(rig.picture(2)))["labels"]
        np.testing.assert_array_equal(rig.array_of(labels), rig.picture(2)[..., 0] % 11)
        assert requested(bench, "image_raw").reliability == BEST_EFFORT


def test_outputs_are_reliable_and_the_legend_is_latched(rig, ros):
    with make(rig, ros, outputs=("labels", "overlay", "labels_color")) as bench:
        bench.connect()
        for topic in bench.outputs:
            assert offered(bench, topic).reliability == RELIABLE
            assert offered(bench, topic).durability == DurabilityPolicy.VOLATILE
        assert offered(bench, "legend").durability == DurabilityPolicy.TRANSIENT_LOCAL


def test_overrides_reach_subscription_and_publishers(rig, ros):
    overrides = [
        ("image_raw", "subscription", "reliability", "reliable"),
        ("labels", "publisher", "reliability", "best_effort"),
        ("labels", "publisher", "durability", "transient_local"),
    ]
    with make(rig, ros, overrides, outputs=(), reliability="RELIABLE") as bench:
        bench.connect()
        bench.spin_until(lambda: bench.tester.count_publishers(f"{bench.namespace}/labels") == 1)
        assert requested(bench, "image_raw").reliability == RELIABLE
        assert offered(bench, "labels").reliability == BEST_EFFORT
        assert offered(bench, "labels").durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert offered(bench, "overlay").reliability == RELIABLE


def test_overrides_survive_cleanup(rig, ros):
    with make(rig, ros, [("image_raw", "subscription", "reliability", "reliable")], outputs=()) as bench:
        for step in ("deactivate", "cleanup", "configure", "activate"):
            getattr(bench.node, f"trigger_{step}")()
        bench.spin_until(lambda: bench.tester.count_subscribers(f"{bench.namespace}/image_raw") == 1)
        assert requested(bench, "image_raw").reliability == RELIABLE


def test_a_publisher_that_cannot_serve_is_named_with_the_remedy(rig, ros):
    overrides = [("image_raw", "subscription", "reliability", "reliable")]
    with make(rig, ros, overrides, outputs=(), reliability="BEST_EFFORT") as bench:
        bench.publisher("image_raw")
        bench.spin_until(lambda: bench.logged("offers a QoS"))
        bench.idle()
        [warning] = bench.logged("offers a QoS")
        topic = f"{bench.namespace}/image_raw"
        assert warning.startswith(f"{topic}: ") and "(reliability)" in warning
        assert f"qos_overrides.{topic}.subscription.reliability to best_effort" in warning


def test_an_override_that_does_not_exist_ends_configure(rig, ros):
    overrides = [("image_raw", "subscription", "reliability", "sometimes")]
    with make(rig, ros, overrides, outputs=()) as bench:
        assert bench.node.exit_code == 1
        bench.spin_until(lambda: bench.logged("configure failed"))
        assert "sometimes" in bench.logged("configure failed")[0]
        bench.spin_until(lambda: bench.tester.count_publishers(f"{bench.namespace}/labels") == 0)
