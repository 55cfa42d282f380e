"""The evaluator reads policies as the API's reference does."""

import pytest

from reachability import Cluster, Outside, Pod, Unreadable

NAMESPACES = {"a": {"team": "one"}, "b": {"team": "two"}}
WEB = Pod("web", "a", {"app": "web"}, ("10.0.0.1", "fd00::1"), {"http": 8080})
DB = Pod("db", "a", {"app": "db"}, ("10.0.0.2", "fd00::2"))
OTHER = Pod("other", "b", {"app": "web"}, ("10.0.0.3", "fd00::3"))
WORLD = Outside("world", ("1.1.1.1", "2606:4700::1111"))


def judge(*specs, sender, receiver, port=80, protocol="TCP", family=4, namespace="a"):
    policies = [{"metadata": {"name": "p", "namespace": namespace}, "spec": spec} for spec in specs]
    address = next(it for it in receiver.addresses if (":" in it) == (family == 6))
    return Cluster(policies, NAMESPACES).verdict(sender, receiver, address, protocol, port)


ALL_WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
CASES = {
    "no policy closes nothing": ([], WORLD, WEB, {}, "yes"),
    "an empty policy closes ingress": ([{"podSelector": {}}], WORLD, WEB, {}, "no"),
    "and leaves egress open": ([{"podSelector": {}}], WEB, WORLD, {}, "yes"),
    "egress that is written is closed without policyTypes": ([{"podSelector": {}, "egress": []}], WEB, WORLD, {}, "no"),
    "a policy of another namespace is not ours": ([{"podSelector": {}}], WORLD, OTHER, {}, "yes"),
    "an empty rule opens everything": (
        [{"podSelector": {}, "ingress": [{}]}], WORLD, WEB, {"protocol": "UDP", "port": 53}, "yes",
    ),
    "policies add up": ([{"podSelector": {}}, {**ALL_WEB, "ingress": [{}]}], WORLD, WEB, {}, "yes"),
    "a pod selector alone is of the policy's namespace": (
        [{"podSelector": {}, "ingress": [{"from": [ALL_WEB]}]}], OTHER, DB, {}, "no",
    ),
    "a namespace selector opens all of its pods": (
        [{"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "two"}}}]}]}],
        OTHER, DB, {}, "yes",
    ),
    "both in one peer have to fit": (
        [{"podSelector": {}, "ingress": [{"from": [
            {"namespaceSelector": {"matchLabels": {"team": "two"}}, "podSelector": {"matchLabels": {"app": "db"}}},
        ]}]}],
        OTHER, DB, {}, "no",
    ),
    "in two peers, one of them": (
        [{"podSelector": {}, "ingress": [{"from": [
            {"namespaceSelector": {"matchLabels": {"team": "two"}}}, {"podSelector": {"matchLabels": {"app": "db"}}},
        ]}]}],
        OTHER, DB, {}, "yes",
    ),
    "a port without protocol is TCP": (
        [{"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}], WORLD, WEB, {"protocol": "UDP"}, "no",
    ),
    "a named port is the receiver's": (
        [{"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}], WORLD, WEB, {"port": 8080}, "yes",
    ),
    "one that the receiver lacks is none": (
        [{"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]}], WORLD, DB, {"port": 8080}, "no",
    ),
    "a range of ports": (
        [{"podSelector": {}, "ingress": [{"ports": [{"port": 70, "endPort": 80}]}]}], WORLD, WEB, {}, "yes",
    ),
    "a block's exceptions are closed": (
        [{"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["1.1.1.0/24"]}}]}]}],
        WEB, WORLD, {}, "no",
    ),
    "a block of one family says nothing of the other": (
        [{"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}], WEB, WORLD, {"family": 6}, "no",
    ),
    "whether a block covers pods is up to the plugin": (
        [{"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}],
        WEB, DB, {}, "depends",
    ),
    "both ends have to open": (
        [
            {**ALL_WEB, "policyTypes": ["Egress"], "egress": [{}]},
            {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
        ],
        WEB, DB, {}, "no",
    ),
    "In": (
        [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]}}],
        WORLD, WEB, {}, "yes",
    ),
    "NotIn fits what lacks the key": (
        [{"podSelector": {"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["x"]}]}}],
        WORLD, WEB, {}, "no",
    ),
    "Exists": ([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}], WORLD, WEB, {}, "no"),
    "DoesNotExist": (
        [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}], WORLD, WEB, {}, "yes",
    ),
}


@pytest.mark.parametrize(("specs", "sender", "receiver", "ask", "verdict"), CASES.values(), ids=CASES)
def test_a_policy_is_read_as_the_reference_says(specs, sender, receiver, ask, verdict):
    assert judge(*specs, sender=sender, receiver=receiver, **ask) == verdict


@pytest.mark.parametrize(
    "spec",
    [
        {"podSelector": {}, "ingress": [{"from": [{"service": "x"}]}]},
        {"podSelector": {}, "ingress": [{"form": []}]},
        {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}]}]},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}},
    ],
)
def test_what_is_not_understood_is_not_passed_over(spec):
    with pytest.raises(Unreadable):
        judge(spec, sender=WORLD, receiver=WEB)
